"""The map cache of mode foreign in a PVH guest: right while it balloons, gone with it, and worth having."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.lab_rig import (
    MIB,
    GuestMaker,
    device_of,
    kill_worker,
    make_image,
    traces,
    traces_after,
    until_served,
    worker_of,
)
from xenvirtio.lab.guest import TOOLS_DISK, Disk, GuestConfig
from xenvirtio.spec.xenbus import KEY_MAP_CACHE, MemoryAccess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend, Guest

DISK_BYTES = 64 * MIB
MEMORY = 256  # MiB
SMALL = 176
#: what is tried with the memory that came back, MiB
BACK = 24
#: of the measurement, with the cache and without
ROUNDS = 1
#: which of its devices is served without cache: vdc, devid 2
PLAIN = "vdc"

Run = tuple[float, float, float, float]


@pytest.fixture(scope="module")
def guest(lab: Lab, backend: Backend) -> Iterator[Guest]:
    """A PVH guest with two disks alike: vda has a cache, vdc none."""
    before = traces(lab)
    with ExitStack() as stack:
        disks = (
            Disk(make_image(lab, "/root/cached.img", DISK_BYTES)),
            TOOLS_DISK,
            Disk(make_image(lab, "/root/plain.img", DISK_BYTES), PLAIN),
        )
        config = GuestConfig(
            "mapcache", type="pvh", disks=disks, memory_access=MemoryAccess.FOREIGN, memory=MEMORY
        )
        made = GuestMaker(lab, backend, stack).create(config)
        made.mount_tools()
        # a restarted worker reads its settings anew
        node = f"/local/domain/0/backend/virtio/{made.domid()}/2/host/{KEY_MAP_CACHE}"
        lab.run(["xenstore-write", node, "0"]).check()
        kill_worker(lab, made)
        until_served(backend, made, PLAIN)
        yield made
    assert traces_after(lab, before) == before
    assert "(null)" not in lab.run("xl list").check().stdout


def balloon(lab: Lab, guest: Guest, mebibytes: int) -> None:
    """Asks the guest to have so much memory, and waits at most 30 s until it has."""
    lab.run(["xl", "mem-set", guest.name, str(mebibytes)]).check()
    near = f"[ $((m - {mebibytes})) -le 4 ] && [ $(({mebibytes} - m)) -le 4 ]"
    lab.run(
        f"n=0; until m=$(xl list {guest.name} | awk 'NR == 2 {{ print $3 }}'); {near}; do "
        "n=$((n + 1)); [ $n -lt 30 ] || exit 1; sleep 1; done",
        timeout=90,
    ).check()


def memory_of(backend: Backend, guest: Guest, device: str) -> dict[str, int]:
    """How the device reached the guest's memory so far."""
    found: Any = device_of(backend, guest.name, device)["memory"]
    assert isinstance(found, dict)
    return found


def fio(guest: Guest, device: str, *options: str) -> dict[str, Any]:
    """Runs one job on a disk of the guest; its part of fio's report."""
    job = f"fio --name=job --filename=/dev/{device} --direct=1 --ioengine=libaio --thread {' '.join(options)}"
    guest.run(
        f"{job} --output-format=json --output=/tmp/fio.json >/tmp/fio.log 2>&1 || "
        "{ s=$?; tail -n 20 /tmp/fio.log; exit $s; }",
        timeout=180,
    )
    return job_of(guest.run("cat /tmp/fio.json", timeout=60).output)


def job_of(report: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report[report.index("{") :])["jobs"][0]
    assert found["error"] == 0
    return found


def test_data_is_right_while_the_guest_balloons_down_and_up(guest: Guest, lab: Lab, backend: Backend) -> None:
    before = memory_of(backend, guest, "vda")
    job = (
        "fio --name=verify --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite "
        f"--bsrange=4k-64k --size={DISK_BYTES // 2} --verify=crc32c --verify_fatal=1 --do_verify=1 --thread"
    )
    guest.run(
        f"(while [ ! -e /tmp/enough ]; do {job} >/tmp/verify.log 2>&1 || break; echo >>/tmp/rounds; done; "
        "echo $? >/tmp/verify.status) >/dev/null 2>&1 &"
    )
    for _ in range(2):
        balloon(lab, guest, SMALL)
        balloon(lab, guest, MEMORY)
        # the frames that came back are other pages now: they are written and read through the disk
        guest.run(f"head -c {BACK * MIB} /dev/urandom >/tmp/new", timeout=60)
        wanted = guest.run("md5sum </tmp/new").output
        guest.run("dd if=/tmp/new of=/dev/vda bs=1M seek=32 oflag=direct 2>/dev/null", timeout=60)
        read = f"dd if=/dev/vda bs=1M skip=32 count={BACK} iflag=direct 2>/dev/null | md5sum"
        assert guest.run(f"rm /tmp/new; {read}", timeout=60).output == wanted
    guest.run(
        "touch /tmp/enough; n=0; until [ -e /tmp/verify.status ]; do "
        "n=$((n + 1)); [ $n -lt 90 ] || exit 1; sleep 1; done",
        timeout=120,
    )
    assert guest.run("cat /tmp/verify.status").output.strip() == "0", guest.run("tail /tmp/verify.log").output
    assert guest.run("wc -l </tmp/rounds").output.strip() != "0"
    after = memory_of(backend, guest, "vda")
    assert after["invalidations"] > before["invalidations"]
    assert after["cache_hits"] > after["cache_misses"]


def test_a_killed_worker_does_not_hold_the_guest_up_when_it_balloons(
    guest: Guest, lab: Lab, backend: Backend
) -> None:
    kill_worker(lab, guest)
    balloon(lab, guest, SMALL)
    assert guest.run("echo alive").output.strip() == "alive"
    balloon(lab, guest, MEMORY)
    fio(guest, "vda", "--rw=randwrite --bs=4k --size=1m --verify=crc32c --do_verify=1")
    until_served(backend, guest, PLAIN)


def test_what_the_cache_is_worth(guest: Guest, lab: Lab, backend: Backend) -> None:
    """Printed, as absolute figures mean nothing here; the calls of Xen that it saves are certain."""
    for rw, depth in (("randread", 1), ("randwrite", 32)):
        runs: dict[str, list[Run]] = {"vda": [], PLAIN: []}
        for device in ("vda", PLAIN, PLAIN, "vda")[: 2 * ROUNDS]:
            runs[device].append(measured(guest, lab, backend, device, rw, depth))
        with_cache, without = (
            tuple(sum(values) / ROUNDS for values in zip(*runs[device], strict=True)) for device in runs
        )
        print(
            f"{rw} 4k QD{depth}, with and without the cache: {with_cache[0]:.0f}, {without[0]:.0f} IOPS "
            f"({with_cache[0] / without[0]:.2f}); worker's time a request {with_cache[1]:.2f}, "
            f"{without[1]:.2f} ms ({with_cache[1] / without[1]:.2f}); calls of Xen a request "
            f"{with_cache[2]:.2f}, {without[2]:.2f}; kicks a request {with_cache[3]:.2f}, {without[3]:.2f}"
        )
        assert with_cache[2] < without[2] / 4
    counted = memory_of(backend, guest, "vda")
    hits = counted["cache_hits"] / (counted["cache_hits"] + counted["cache_misses"])
    print(
        f"hit rate {hits:.4f}, {counted['mapped_bytes'] / MIB:.1f} MiB mapped, "
        f"{counted['cache_evictions']} evictions, {counted['invalidations']} invalidations"
    )
    assert hits > 0.9
    assert memory_of(backend, guest, PLAIN)["cache_hits"] == 0


def measured(guest: Guest, lab: Lab, backend: Backend, device: str, rw: str, depth: int) -> Run:
    """IOPS; of the worker for each request: milliseconds of its time, calls of Xen, kicks."""
    before: Any = device_of(backend, guest.name, device)
    ticks = worker_ticks(lab, guest)
    options = (
        f"--rw={rw} --bs=4k --iodepth={depth} --size={DISK_BYTES} --io_size={1024 if depth > 1 else 512}k"
    )
    job = fio(guest, device, options)["read" if rw == "randread" else "write"]
    spent = worker_ticks(lab, guest) - ticks
    after: Any = device_of(backend, guest.name, device)
    done = job["total_ios"]
    calls = after["memory"]["hypercalls"] - before["memory"]["hypercalls"]
    kicks = after["backend"]["kicks"] - before["backend"]["kicks"]
    return job["iops"], 10 * spent / done, calls / done, kicks / done


def worker_ticks(lab: Lab, guest: Guest) -> int:
    """Time that the guest's worker has had, in 1/100 s (proc(5), utime and stime)."""
    stat = lab.run(["cat", f"/proc/{worker_of(lab, guest)}/stat"]).check().stdout
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
