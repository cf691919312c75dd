"""The proofs: each asks the running guest, or dom0, and believes nothing but what comes back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import LabError
from xenvirtio.lab.demo.results import PINGS, NicProof

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Guest

MIB = 1 << 20
#: data written to the disk
DISK_BYTES = 64 * MIB
#: data sent each way by TCP
TCP_BYTES = 8 * MIB
DOM0_ADDRESS = "10.77.0.1"
TCP_PORT = 5077
#: seconds of each fio job
FIO_SECONDS = 2
_HASH = re.compile(r"\b([0-9a-f]{64})\b")
_PINGED = re.compile(r"(\d+) packets transmitted, (\d+) packets received")
_ROUND_TRIP = re.compile(r"= [\d.]+/([\d.]+)/")


def sha256_in(text: str, what: str) -> str:
    """The hash in a command's output; raises LabError if there is none."""
    found = _HASH.search(text)
    if found is None:
        raise LabError(f"{what} gave no SHA-256: {text.strip()[-200:]!r}")
    return found[1]


def disk_size(guest: Guest, device: str) -> int:
    """Bytes, as the guest's kernel sees it."""
    return int(guest.sysfs(f"block/{device}/size")) * 512


def write_disk(guest: Guest, device: str) -> str:
    """Fills the start of the disk with random data made in the guest, and flushes it; returns its SHA-256."""
    made = guest.run(f"head -c {DISK_BYTES} /dev/urandom >/tmp/data && sha256sum /tmp/data", timeout=120)
    command = f"dd if=/tmp/data of=/dev/{device} bs=1M oflag=direct conv=fsync 2>&1 && rm /tmp/data"
    written = guest.run(command, timeout=120).output
    if f"{DISK_BYTES} bytes" not in written:
        raise LabError(f"the guest wrote less to {device} than it should: {written.strip()!r}")
    return sha256_in(made.output, "the guest's random data")


def disk_hash_in_guest(guest: Guest, device: str) -> str:
    """The SHA-256 of the written part, read from the device past the guest's page cache."""
    command = f"dd if=/dev/{device} bs=1M count={DISK_BYTES // MIB} iflag=direct 2>/dev/null | sha256sum"
    return sha256_in(guest.run(command, timeout=120).output, f"reading {device} in the guest")


def disk_hash_in_dom0(lab: Lab, image: str) -> str:
    """The SHA-256 of the written part of the image itself."""
    done = lab.run(f"head -c {DISK_BYTES} {image} | sha256sum", timeout=120).check()
    return sha256_in(done.stdout, f"reading {image} in dom0")


def iops(guest: Guest, device: str) -> dict[str, float]:
    """Random 4 KiB requests a second with 32 in flight, by fio in the guest: reads, then writes."""
    found = {}
    for name, key in (("randread", "read"), ("randwrite", "write")):
        job = (
            f"fio --name={name} --filename=/dev/{device} --rw={name} --bs=4k --iodepth=32 --ioengine=libaio "
            f"--direct=1 --time_based --runtime={FIO_SECONDS} --output-format=json --thread"
        )
        text = guest.run(job, timeout=FIO_SECONDS + 60).output
        report = json.loads(text[text.index("{") :])["jobs"][0]
        if report["error"]:
            raise LabError(f"fio {name} on {device} ended with error {report['error']}")
        found[name] = round(report[key]["iops"], 1)
    return found


def nic(lab: Lab, guest: Guest, device: str) -> NicProof:
    """Pings, and hashed data by TCP both ways."""
    shown = guest.run(f"ip -4 -o address show dev {device}").output
    address = re.search(r"inet ([\d.]+)", shown)
    if address is None:
        raise LabError(f"the guest's {device} has no address: {shown.strip()!r}")
    # nearly full frames, each sent as soon as the answer to the last one is there
    pinged = guest.run(f"ping -A -c {PINGS} -s 1400 -W 5 {DOM0_ADDRESS}", timeout=120, check=False).output
    counts, average = _PINGED.search(pinged), _ROUND_TRIP.search(pinged)
    if counts is None:
        raise LabError(f"ping in the guest said {pinged.strip()[-300:]!r}")
    sent, received = int(counts[1]), int(counts[2])
    to_guest = _tcp_to_guest(lab, guest, address[1])
    from_guest = _tcp_from_guest(lab, guest, address[1])
    return NicProof(
        device=device,
        address=address[1],
        ping_sent=sent,
        ping_lost=sent - received,
        ping_ms=float(average[1]) if average else 0.0,
        tcp_bytes_verified={"to_guest": to_guest.verified, "from_guest": from_guest.verified},
        tcp_mbit={"to_guest": to_guest.mbit, "from_guest": from_guest.mbit},
    )


@dataclass(frozen=True)
class _Transfer:
    verified: int  # bytes that arrived as they were sent
    mbit: float


def _tcp_to_guest(lab: Lab, guest: Guest, address: str) -> _Transfer:
    _listen(guest, "</dev/null >/tmp/got; : >/tmp/end")
    report = _tcp_in_dom0(lab, "send", address)
    guest.run("until [ -e /tmp/end ]; do sleep 0.1; done", timeout=60)
    got = guest.run("sha256sum /tmp/got; rm /tmp/got /tmp/end", timeout=60).output
    return _transfer(report, sha256_in(got, "TCP to the guest"))


def _tcp_from_guest(lab: Lab, guest: Guest, address: str) -> _Transfer:
    made = guest.run(f"head -c {TCP_BYTES} /dev/urandom >/tmp/data && sha256sum /tmp/data", timeout=60).output
    _listen(guest, "</tmp/data; rm /tmp/data")
    return _transfer(_tcp_in_dom0(lab, "receive", address), sha256_in(made, "TCP data in the guest"))


def _listen(guest: Guest, rest: str) -> None:
    """Starts nc in the guest, its standard files and what follows it given by `rest`."""
    guest.run(f"(nc -l -p {TCP_PORT} {rest}) >/dev/null 2>&1 </dev/null &")
    guest.run(f"until netstat -ltn | grep -q :{TCP_PORT}; do sleep 0.1; done", timeout=30)


def _tcp_in_dom0(lab: Lab, direction: str, address: str) -> dict[str, Any]:
    arguments = [direction, address, str(TCP_PORT), str(TCP_BYTES)]
    done = lab.run(["python3", "-I", "-c", _TCP_SCRIPT, *arguments], timeout=120).check()
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _transfer(report: dict[str, Any], sha256: str) -> _Transfer:
    count = int(report["bytes"])
    intact = count == TCP_BYTES and report["sha256"] == sha256
    return _Transfer(count if intact else 0, round(8 * count / 1e6 / float(report["seconds"]), 1))


#: dom0's end of a transfer; closing lingers until the guest's kernel has acknowledged every byte
_TCP_SCRIPT = """
import hashlib, json, os, socket, struct, sys, time
direction, address, port, length = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
data = os.urandom(length) if direction == "send" else b""
digest = hashlib.sha256(data)
peer = socket.create_connection((address, port), timeout=60)
start = time.monotonic()
if direction == "send":
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    peer.sendall(data)
    peer.settimeout(None)
    peer.close()
    count, seconds = length, time.monotonic() - start
else:
    parts = []
    while part := peer.recv(1 << 20):
        parts.append(part)
    seconds = time.monotonic() - start
    digest.update(b"".join(parts))
    count = sum(map(len, parts))
print(json.dumps({"bytes": count, "seconds": seconds, "sha256": digest.hexdigest()}))
"""
