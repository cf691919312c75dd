"""The load in one guest: fio on its disk, in passes that verify all they wrote, and iperf3 both ways at once.

Each pass writes with a seed of its own: a block that was lost, and still holds what an earlier pass wrote
there, is found by its header. Two of the four jobs read back while they write.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import LabError, TimeLimit
from xenvirtio.lab.guest.tcp import DOM0

if TYPE_CHECKING:
    from xenvirtio.lab.guest import Guest

MIB = 1 << 20
DEVICE = "vda"
IMAGE_BYTES = 64 * MIB
#: name, block sizes, requests in flight, options; each has a quarter of the disk and writes a part of it
JOBS = (
    ("small", "4k-4k", 16, "--verify_backlog=64"),
    ("mixed", "4k-64k", 8, "--verify_backlog=32 --fsync=64"),
    ("odd", "512-32k", 8, "--fdatasync=32"),
    ("large", "64k-256k", 4, ""),
)
JOB_BYTES = 8 * MIB
FOLDER = "/run/soak"
#: seconds for a pass that was begun before the end to come to its own, on a busy machine
LAST_PASS_LIMIT = 420.0

_PASSES = """
end=$(($(cut -d. -f1 /proc/uptime) + SECONDS))
while [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ]; do
    fio --randseed=$(($(head -c 4 /dev/urandom | od -A n -t u4))) --output-format=json --output=fio.json \\
        --filename=/dev/DEVICE --direct=1 --ioengine=libaio --thread --rw=randwrite --size=BYTES \\
        --randrepeat=0 --verify=crc32c --verify_fatal=1 --do_verify=1 --group_reporting JOBS >fio.log 2>&1
    status=$?
    [ $status = 0 ] || { tail -n 5 fio.log; echo "status $status"; } >failed
    awk '/"io_bytes"/ { gsub(/[^0-9]/, "", $3); line = line " " $3 } END { print line }' fio.json >>passes
    [ $status = 0 ] || break
done
"""
_TCP = """
iperf3 --client DOM0 --port PORT --bidir --time SECONDS --interval 0 --json >iperf.json 2>iperf.log
echo $? >iperf.status
"""


@dataclass(frozen=True)
class DiskLoad:
    """What fio did; bytes. `error` is what it said when a pass failed."""

    passes: int
    bytes_written: int
    bytes_verified: int
    error: str | None

    @property
    def ok(self) -> bool:
        return self.error is None and 0 < self.bytes_written == self.bytes_verified


@dataclass(frozen=True)
class TcpLoad:
    """What iperf3 did in its `seconds`: bytes that each end's receiver got, and what was sent again."""

    to_guest: int
    from_guest: int
    retransmits: int
    seconds: float
    error: str | None

    @property
    def ok(self) -> bool:
        return self.error is None and self.to_guest > 0 and self.from_guest > 0


def jobs() -> str:
    """fio's arguments for all jobs: each in its own quarter of the disk."""
    quarter = IMAGE_BYTES // len(JOBS)
    return " ".join(
        f"--name={name} --offset={number * quarter} --bsrange={sizes} --iodepth={depth} {more}"
        for number, (name, sizes, depth, more) in enumerate(JOBS)
    )


def start(guest: Guest, port: int, seconds: int) -> None:
    """Starts both in the guest's background; an iperf3 server must listen in dom0 on `port`."""
    words = {
        "SECONDS": str(seconds),
        "DEVICE": DEVICE,
        "BYTES": str(JOB_BYTES),
        "JOBS": jobs(),
        "DOM0": DOM0,
        "PORT": str(port),
    }
    for name, script in (("disk", _PASSES), ("tcp", _TCP)):
        for word, value in words.items():
            script = script.replace(word, value)
        text = f"cd {FOLDER}\n{script}\ntouch {name}.done\n"
        guest.run(f"mkdir -p {FOLDER}; cat >{FOLDER}/{name} <<'END'\n{text}\nEND")
    # both scripts lie there before either takes the processor
    guest.run(f"for each in disk tcp; do setsid sh {FOLDER}/$each </dev/null >/dev/null 2>&1 & done")


def wait(guest: Guest, limit: float = LAST_PASS_LIMIT) -> None:
    """Until both have ended; raises TimeLimit."""
    missing = f"cd {FOLDER}; [ -e disk.done ] || echo disk; [ -e tcp.done ] || echo tcp"
    until = f'n=0; while [ -n "$({missing})" ] && [ $n -lt {limit:.0f} ]; do n=$((n + 1)); sleep 1; done'
    left = guest.run(f"{until}; {missing}", timeout=limit + 120).output.split()
    if left:
        raise TimeLimit(f"guest {guest.name}: the load ({', '.join(left)}) did not end within {limit:.0f} s")


def disk_load(guest: Guest) -> DiskLoad:
    """What fio has done in the guest up to now."""
    text = guest.run(f"cd {FOLDER}; cat passes; echo --; cat failed 2>/dev/null || true", timeout=60).output
    return parse_passes(text)


def parse_passes(text: str) -> DiskLoad:
    """Of lines "read written trimmed", "--", and what a failed pass said."""
    passes, _, error = text.partition("--\n")
    rows = [[int(word) for word in line.split()] for line in passes.splitlines() if line.split()]
    return DiskLoad(
        len(rows), sum(row[1] for row in rows), sum(row[0] for row in rows), error.strip() or None
    )


def tcp_load(guest: Guest) -> TcpLoad:
    """What iperf3 has done; it must have ended."""
    text = guest.run(f"cd {FOLDER}; cat iperf.status iperf.json", timeout=120).output
    status, _, report = text.partition("\n")
    try:
        return parse_iperf(json.loads(report))
    except (ValueError, KeyError) as error:
        raise LabError(
            f"guest {guest.name}: iperf3 ended with status {status} and said {report!r}"
        ) from error


def parse_iperf(report: dict[str, Any]) -> TcpLoad:
    """Of a client's report on a transfer both ways; raises KeyError if it is none."""
    error = report.get("error")
    end = report["end"]
    if error:
        return TcpLoad(0, 0, 0, 0.0, str(error))
    there, back = end["sum_received"], end["sum_received_bidir_reverse"]
    sent = (end["sum_sent"], end["sum_sent_bidir_reverse"])
    return TcpLoad(
        to_guest=int(back["bytes"]),
        from_guest=int(there["bytes"]),
        retransmits=sum(int(each.get("retransmits", 0)) for each in sent),
        seconds=round(float(there["seconds"]), 1),
        error=None,
    )
