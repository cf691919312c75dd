"""The proofs: each asks the running guest, or dom0, and believes nothing but what comes back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError
from xenvirtio.lab.demo.results import PINGS, NicProof
from xenvirtio.lab.guest import tcp

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Guest

MIB = 1 << 20
#: seconds of each fio job
FIO_SECONDS = 1
_MD5 = re.compile(r"\b([0-9a-f]{32})\b")
_PINGED = re.compile(r"(\d+) packets transmitted, (\d+) packets received")
_ROUND_TRIP = re.compile(r"= [\d.]+/([\d.]+)/")


def md5_in(text: str, what: str) -> str:
    """The MD5 in a command's output (against chance, not malice); raises LabError if there is none."""
    found = _MD5.search(text)
    if found is None:
        raise LabError(f"{what} gave no MD5: {text.strip()[-200:]!r}")
    return found[1]


def disk_size(guest: Guest, device: str) -> int:
    """Bytes, as the guest's kernel sees it."""
    return int(guest.sysfs(f"block/{device}/size")) * 512


def write_disk(guest: Guest, device: str, count: int) -> str:
    """Writes `count` random bytes, whole MiB, to the disk's start, and flushes it; returns their MD5."""
    made = guest.run(f"head -c {count} /dev/urandom >/tmp/data && md5sum /tmp/data", timeout=120)
    command = f"dd if=/tmp/data of=/dev/{device} bs=1M oflag=direct conv=fsync 2>&1 && rm /tmp/data"
    written = guest.run(command, timeout=120).output
    if f"{count // MIB}+0 records out" not in written:
        raise LabError(f"the guest wrote less to {device} than it should: {written.strip()!r}")
    return md5_in(made.output, "the guest's random data")


def disk_md5_in_guest(guest: Guest, device: str, count: int) -> str:
    """The MD5 of the first `count` bytes, read from the device past the guest's page cache."""
    command = f"dd if=/dev/{device} bs=1M count={count // MIB} iflag=direct 2>/dev/null | md5sum"
    return md5_in(guest.run(command, timeout=120).output, f"reading {device} in the guest")


def disk_md5_in_dom0(lab: Lab, image: str, count: int) -> str:
    """The MD5 of the first `count` bytes of the image itself."""
    done = lab.run(f"head -c {count} {image} | md5sum", timeout=120).check()
    return md5_in(done.stdout, f"reading {image} in dom0")


def iops(guest: Guest, device: str) -> dict[str, float]:
    """Random 4 KiB requests a second with 32 in flight, by fio in the guest: reads, then writes."""
    common = (
        f"--filename=/dev/{device} --bs=4k --iodepth=32 --ioengine=libaio --direct=1 --thread "
        f"--time_based --runtime={FIO_SECONDS} --output-format=json"
    )
    jobs = " ".join(f"--stonewall --name={name} --rw={name}" for name in ("randread", "randwrite"))
    text = guest.run(f"fio {common} {jobs}", timeout=2 * FIO_SECONDS + 60).output
    found = {}
    for report in json.loads(text[text.index("{") :])["jobs"]:
        name = str(report["jobname"])
        if report["error"]:
            raise LabError(f"fio {name} on {device} ended with error {report['error']}")
        found[name] = round(report[name.removeprefix("rand")]["iops"], 1)
    return found


def nic(guest: Guest, device: str, count: int) -> NicProof:
    """Pings, and `count` random bytes by TCP each way; raises LabError if a byte of it differs."""
    shown = guest.run(f"ip -4 -o address show dev {device}").output
    address = re.search(r"inet ([\d.]+)", shown)
    if address is None:
        raise LabError(f"the guest's {device} has no address: {shown.strip()!r}")
    # nearly full frames, each sent as soon as the answer to the last one is there
    pinged = guest.run(f"ping -A -c {PINGS} -s 1400 -W 5 {tcp.DOM0}", timeout=120, check=False).output
    counts, average = _PINGED.search(pinged), _ROUND_TRIP.search(pinged)
    if counts is None:
        raise LabError(f"ping in the guest said {pinged.strip()[-300:]!r}")
    sent, received = int(counts[1]), int(counts[2])
    to_guest = tcp.to_guest(guest, count)
    from_guest = tcp.from_guest(guest, count)
    return NicProof(
        device=device,
        address=address[1],
        ping_sent=sent,
        ping_lost=sent - received,
        ping_ms=float(average[1]) if average else 0.0,
        tcp_bytes_verified={"to_guest": to_guest.bytes, "from_guest": from_guest.bytes},
        tcp_mbit={"to_guest": round(to_guest.mbit, 1), "from_guest": round(from_guest.mbit, 1)},
    )
