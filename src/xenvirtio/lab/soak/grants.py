"""Grants in use, by domain, as Xen itself counts them: its debug key g, whose answer goes to its console."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.errors import TimeLimit
from xenvirtio.lab.paths import lab_command

if TYPE_CHECKING:
    from xenvirtio.lab import Lab

_TABLE = re.compile(r"\(XEN\) .*grant-table for remote d(\d+)")
_FRAMES = re.compile(r"\(XEN\)\s+(\d+) frames \(\d+ max\), (\d+) maptrack frames")
_ENTRY = re.compile(r"\(XEN\)\s+\[0x[0-9a-f]+\]")
_END = "gnttab_usage_print_all ] done"
#: seconds for Xen to print it all on an emulated serial line
LIMIT = 120.0


@dataclass(frozen=True)
class Grants:
    """Of one domain: entries that somebody has mapped, pages of its grant table, pages for what it maps."""

    active: int
    frames: int
    maptrack: int


def grants(lab: Lab) -> dict[int, Grants]:
    """By domain number. Raises TimeLimit."""
    log = Console(lab)
    lab.run(["xl", "debug-keys", "g"]).check()
    end = time.monotonic() + LIMIT
    while _END not in (text := log.read()):
        if time.monotonic() > end:
            raise TimeLimit(
                f"Xen did not print its grant tables within {LIMIT:.0f} s", lab_command(lab.folder, "log")
            )
        time.sleep(1)
    return parse(text)


def parse(text: str) -> dict[int, Grants]:
    """Of Xen's console."""
    found: dict[int, Grants] = {}
    domid = None
    for line in text.splitlines():
        if table := _TABLE.search(line):
            domid = int(table[1])
            found[domid] = Grants(0, 0, 0)
        elif domid is not None and (frames := _FRAMES.search(line)):
            found[domid] = Grants(found[domid].active, int(frames[1]), int(frames[2]))
        elif domid is not None and _ENTRY.search(line):
            now = found[domid]
            found[domid] = Grants(now.active + 1, now.frames, now.maptrack)
    return found


class Console:
    """What Xen writes to the lab machine's console from now on."""

    def __init__(self, lab: Lab) -> None:
        self._path = lab.log() / "console.log"
        self._start = self._path.stat().st_size

    def read(self) -> str:
        """All of it, up to now."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")
