"""TCP between a lab guest and dom0, both ways, every byte checked."""

from __future__ import annotations

import json
import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import LabError, TimeLimit
from xenvirtio.lab.dom0.protocol import Kind
from xenvirtio.lab.guest.config import FOLDER

if TYPE_CHECKING:
    from xenvirtio.lab.guest.guest import Guest

#: dom0's address on the lab's bridge
DOM0 = "10.77.0.1"
LIMIT = 90.0
_FILE = "/tmp/transfer"


@dataclass(frozen=True)
class Transfer:
    """A transfer whose bytes were the same at both ends."""

    bytes: int
    seconds: float

    @property
    def mbit(self) -> float:
        """Megabits (10⁶) a second."""
        return self.bytes * 8 / self.seconds / 1e6


def to_guest(guest: Guest, count: int) -> Transfer:
    """dom0 sends `count` random bytes; they lie in the guest's memory, so keep them small against it.

    Raises LabError if the bytes differ or the guest cannot connect, TimeLimit, LabLost.
    """
    return _transfer(guest, ["source", "0", str(count)], f"nc {DOM0} PORT </dev/null >{_FILE}", count)


def from_guest(guest: Guest, count: int) -> Transfer:
    """The guest sends `count` random bytes; as to_guest."""
    guest.run(f"head -c {count} /dev/urandom >{_FILE}", timeout=LIMIT)
    return _transfer(guest, ["sink", "0"], f"nc {DOM0} PORT <{_FILE} >/dev/null", count)


def _transfer(guest: Guest, arguments: list[str], command: str, count: int) -> Transfer:
    said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    pieces: dict[Kind, bytes] = {Kind.STDOUT: b"", Kind.STDERR: b""}

    def received(kind: Kind, data: bytes) -> None:
        pieces[kind] += data
        while kind == Kind.STDOUT and b"\n" in pieces[kind]:
            line, _, pieces[kind] = pieces[kind].partition(b"\n")
            said.put(json.loads(line))

    def next_line(what: str, limit: float) -> dict[str, Any]:
        try:
            return said.get(timeout=limit)
        except queue.Empty:
            why = pieces[Kind.STDERR].decode(errors="replace").strip()[-400:]
            raise TimeLimit(f"waited in vain for {what}{f': {why}' if why else ''}") from None

    program = ["python3", "-I", "-S", f"{FOLDER}/traffic.py", *arguments]
    with ThreadPoolExecutor(max_workers=1) as pool:
        running = pool.submit(guest.lab.run, program, timeout=LIMIT, on_output=received)
        port = next_line("dom0 to listen for a TCP connection", LIMIT / 3)["listening"]
        guest.run(command.replace("PORT", str(port)), timeout=LIMIT)
        result = next_line("the end of a TCP transfer in dom0", LIMIT / 3)
        running.result()
    there = guest.run(f"md5sum <{_FILE}; stat -c %s {_FILE}; rm {_FILE}", timeout=LIMIT).output.split()
    ours = [result["md5"], "-", str(result["bytes"])]
    if there != ours or result["bytes"] != count:
        raise LabError(f"TCP: of {count} bytes, dom0 had {ours} and the guest {there}")
    return Transfer(count, float(result["seconds"]))
