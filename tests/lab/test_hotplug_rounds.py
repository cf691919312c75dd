"""A device comes and goes again and again: nothing of it stays, in dom0, in Xen, in the guest.

--rounds 200    so often, where the short form does 20
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import MIB, GuestMaker, make_image, python, wait_for_address
from xenvirtio.lab.guest import Disk, GuestConfig, Nic
from xenvirtio.lab.soak.grants import grants

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Guest

DISK_MIB = 64
#: grants that come and go with what a quiet guest still sends and receives
BREATHING = 8

#: in dom0: a disk or a NIC, in turn, comes to the guest and goes, by the functions that the commands call
_ROUNDS = """
import sys
from xenvirtio.toolstack.hotplug.attach import AttachOptions, attach
from xenvirtio.toolstack.hotplug.detach import DetachOptions, detach
from xenvirtio.toolstack.local import local_toolstack
guest, rounds, disk = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with local_toolstack(lambda line: None) as toolstack:
    for number in range(rounds):
        done = attach(guest, ['model=virtio' if number % 2 else disk], toolstack, AttachOptions(60))
        detach(guest, done.device.vdev, toolstack, DetachOptions(60))
"""
#: in dom0: how many entries of a guest's grant table allow something. argv: domain, frames of the table
#: (xen/include/public/memory.h, XENMEM_acquire_resource; grant_table.h, grant_entry_v1: flags in its first
#: 2 of 8 bytes)
_GRANTED = """
import ctypes, mmap, sys
domid, frames = int(sys.argv[1]), int(sys.argv[2])
library = ctypes.CDLL("libxenforeignmemory.so.1", use_errno=True)
library.xenforeignmemory_open.restype = ctypes.c_void_p
acquire = library.xenforeignmemory_map_resource
c_int, c_uint, c_ulong, c_void_p = ctypes.c_int, ctypes.c_uint, ctypes.c_ulong, ctypes.c_void_p
acquire.argtypes = [c_void_p, ctypes.c_uint16, c_uint, c_uint, c_ulong, c_ulong, c_void_p, c_int, c_int]
acquire.restype = c_void_p
table = ctypes.c_void_p()
GRANT_TABLE, SHARED = 1, 0
handle = library.xenforeignmemory_open(None, 0)
if not acquire(handle, domid, GRANT_TABLE, SHARED, 0, frames, ctypes.byref(table), mmap.PROT_READ, 0):
    sys.exit(f"the grant table of domain {domid} cannot be mapped: errno {ctypes.get_errno()}")
entries = (ctypes.c_uint64 * (frames * 512)).from_address(table.value)
print(sum(1 for entry in entries if entry & 0xFFFF))
"""
#: everything that could leak, one number a line: name, value
_FIGURES = r"""
daemon=$(cat /run/xenvirtio-lab/daemon.pid)
for process in $daemon $(pgrep -x xenvirtio-$1); do
    name=supervisor; [ $process = $daemon ] || name=worker
    echo $name-fds $(ls /proc/$process/fd | wc -l)
    echo $name-maps $(wc -l </proc/$process/maps)
    echo $name-rss $(awk '/^VmRSS/ { print $2 }' /proc/$process/status)
done
echo nodes $(xenstore-ls -fp | grep -E "^/local/domain/(0/backend/virtio|$1)" | wc -l)
echo taps $(ls -d /sys/class/net/*/tun_flags 2>/dev/null | wc -l)
echo state-files $(ls /run/xenvirtio | grep -c state)
lsevtchn=$(ls /usr/lib/xen-*/bin/lsevtchn | head -n 1)
echo guest-ports $($lsevtchn $1 | wc -l)
echo dom0-ports $($lsevtchn 0 | wc -l)
"""


@dataclass(frozen=True)
class Figures:
    """What dom0, Xen and a guest hold."""

    numbers: dict[str, int]

    @classmethod
    def now(cls, lab: Lab, guest: Guest) -> Figures:
        domid = guest.domid()
        assert domid is not None
        output = lab.run(["sh", "-c", _FIGURES, "sh", str(domid)], timeout=60).check().stdout
        numbers = {name: int(value) for name, value in (line.split() for line in output.splitlines())}
        table = grants(lab)[domid]
        granted = lab.run([python(lab), "-c", _GRANTED, str(domid), str(table.frames)]).check().stdout
        inside = guest.run(
            "ls /sys/bus/virtio/devices | wc -l; awk '/^Slab/ { print $2 }' /proc/meminfo"
        ).output
        devices, slab = (int(word) for word in inside.split())
        return cls(
            numbers
            | {"guest-devices": devices, "guest-slab": slab}
            | {"grants-mapped": table.active, "grant-frames": table.frames, "grants": int(granted)}
        )


@pytest.mark.timeout(1800)
def test_rounds_of_attach_and_detach_leak_nothing(
    guests: GuestMaker, lab: Lab, request: pytest.FixtureRequest
) -> None:
    rounds = int(request.config.getoption("--rounds"))
    image = make_image(lab, "/root/rounds.img", DISK_MIB * MIB)
    disk = make_image(lab, "/root/web.img", DISK_MIB * MIB)
    guest = guests.create(GuestConfig("web", disks=(Disk(disk),), nics=(Nic(),), address="10.77.0.2/24"))
    wait_for_address(guest)

    def go(count: int) -> None:
        entry = f"format=raw,vdev=vdb,access=rw,target={image}"
        script = [python(lab), "-c", _ROUNDS, guest.name, str(count), entry]
        lab.run(script, timeout=120 + 30 * count).check()

    go(max(10, rounds // 4))  # caches fill, allocators find their size
    before = Figures.now(lab, guest).numbers
    go(rounds)
    after = Figures.now(lab, guest).numbers
    print(f"{rounds} rounds: {before} -> {after}")
    inexact = ("-rss", "-slab", "-maps", "grants")
    exact = {name for name in before if not name.endswith(inexact)}
    assert {name: after[name] for name in exact} == {name: before[name] for name in exact}
    grown = {name: after[name] - before[name] for name in before}
    assert abs(grown["grants"]) <= BREATHING
    assert guest.run("dmesg | grep -E 'WARNING|BUG|Oops|Call Trace'", check=False).status == 1
    for name in ("supervisor", "worker"):  # heaps find their size: the collector of cycles comes now and then
        assert grown[f"{name}-rss"] < 3072, f"{name} grew by {grown[f'{name}-rss']} KiB"
        assert grown[f"{name}-maps"] <= 3, f"{name} has {grown[f'{name}-maps']} mappings more"
    assert grown["guest-slab"] < 2048 + 4 * rounds
