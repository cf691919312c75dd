"""Where the lab keeps its things: everything below one cache folder.

<cache>/trees/<release>-<key>/       tree/ (Debian, unpacked; payloads are built in it) build.log
<cache>/trees/modulecheck-<release>-<key>/  likewise: what the module is checked with
<cache>/images/<release>-<key>/      root.raw xen vmlinuz initrd.img image.json build.log
<cache>/wheels/<python version>/     Python packages for the image
<cache>/snapshots/<key>/             disk.qcow2 (holds the booted dom0) snapshot.json boots/
<cache>/payloads/<release>/          <key>.raw
<cache>/guests/<release>-<key>/      Debian guests: tree/ disk.raw.zst ssh_key disk.json
<cache>/emulators/<release>-<key>/   tree/ (QEMU, unpacked) qemu.json build.log
<cache>/accelerators/                what trial boots found
<cache>/labs/<name>/                 disk.qcow2 machine.json sockets boots/<time>/
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError, TimeLimit, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OTHER_FOLDER = "another folder for all that the lab makes: export XENVIRTIO_CACHE=/path"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True)
class Cache:
    """The cache folder; see the module's docstring for what is in it."""

    root: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Cache:
        """$XENVIRTIO_CACHE, or xenvirtio in $XDG_CACHE_HOME, or in ~/.cache."""
        own = environment.get("XENVIRTIO_CACHE")
        if own:
            return cls(Path(own).absolute())
        shared = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache"
        return cls(Path(shared).absolute() / "xenvirtio")

    @property
    def trees(self) -> Path:
        return self.root / "trees"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def payloads(self) -> Path:
        return self.root / "payloads"

    @property
    def wheels(self) -> Path:
        return self.root / "wheels"

    @property
    def emulators(self) -> Path:
        return self.root / "emulators"

    @property
    def accelerators(self) -> Path:
        return self.root / "accelerators"

    @property
    def guests(self) -> Path:
        return self.root / "guests"

    @property
    def labs(self) -> Path:
        return self.root / "labs"

    @property
    def folders(self) -> tuple[Path, ...]:
        """All that is ours in the cache folder."""
        made = (self.trees, self.images, self.snapshots, self.payloads, self.wheels)
        return (*made, self.emulators, self.accelerators, self.guests, self.labs)

    def lab_names(self) -> list[str]:
        """Of the labs that have a folder; what cannot be one is passed over."""
        found = [path.name for path in self.labs.iterdir()] if self.labs.is_dir() else []
        return sorted(name for name in found if _NAME.fullmatch(name))

    def lab(self, name: str) -> Path:
        """A named lab's folder; raises UsageError for a name that is not one."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for a lab", hint="use letters, digits, '-', '_' and '.', at most 40"
            )
        return self.labs / name


@contextmanager
def locked(path: Path, what: str, limit: float) -> Iterator[None]:
    """Holds an exclusive lock on a file (made if need be); raises TimeLimit after `limit` seconds.

    Raises LabError where nothing can be written. It is the first thing done in a cache folder.
    """
    deadline = time.monotonic() + limit
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}", hint=OTHER_FOLDER) from None
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeLimit(
                        f"{what} is in use by another xenvirtio for more than {limit:.0f} s",
                        hint=f"see who holds it: fuser -v {path}",
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(fd)


def newest(folder: Path) -> Path | None:
    """The entry of a folder whose name sorts last (boots are named by time); None if there is none."""
    return max(folder.iterdir(), default=None) if folder.is_dir() else None


def lab_command(folder: Path, words: str) -> str:
    """A hint: `xenvirtio lab WORDS` ("log", "run -- xl list") for the lab in this folder."""
    if folder.parent.name != "labs" or folder.name == "default":
        return f"xenvirtio lab {words}"
    subcommand, space, rest = words.partition(" ")
    return f"xenvirtio lab {subcommand} --name {folder.name}{space}{rest}"
