"""What a restarted worker needs to go on with a device: a small JSON file, replaced whole at every command.

It lies in the daemon's run directory (a tmpfs on any usual system), one a device. Nothing in it comes from
memory that the guest can write later: sizes and addresses are those that were checked when the queue was
enabled. The rings' own indexes are not in it: block requests complete in order before the worker takes
more, so the used index tells where to go on (and is checked against the available index); a received packet
that was not in the used ring yet is lost, as packets may be. Requests in flight across a crash, several at
a time, need a journal and a fence: issue 6 puts them beside this file.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: longest file that is read, bytes: 64 queues and to spare
FILE_MAX = 64 * 1024


@dataclass(frozen=True)
class SavedQueue:
    """An enabled queue, as the driver set it up."""

    index: int
    size: int
    desc: int
    driver: int
    device: int
    port: int


@dataclass(frozen=True)
class Saved:
    """A connected device between two commands."""

    guest: str
    """what tells the guest from a later one with its domid"""
    access: str
    page: int
    port: int
    status: int = 0
    features: int = 0
    queues: tuple[SavedQueue, ...] = ()
    sequence: int = 0
    """the command answered last, with its answer"""
    result: int = 0
    value: int = 0
    generation: int = 0
    """of the configuration"""


class StateFile:
    """The file of one device."""

    def __init__(self, directory: Path, domid: int, devid: int) -> None:
        self.path = directory / f"{domid}-{devid}.state"

    def write(self, saved: Saved) -> None:
        """Replaces the content in one step."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(saved)))
        os.replace(fresh, self.path)

    def read(self) -> Saved | None:
        """None if there is no file, or none that this version wrote. Raises OSError if it cannot be read."""
        try:
            with self.path.open() as file:
                fields = json.loads(file.read(FILE_MAX))
            queues = tuple(SavedQueue(**queue) for queue in fields.pop("queues"))
            return Saved(queues=queues, **fields)
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def remove(self) -> None:
        """Does nothing if there is none."""
        self.path.unlink(missing_ok=True)
