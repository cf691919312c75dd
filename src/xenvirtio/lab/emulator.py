"""The lab's QEMU: that of the lab's Debian, unpacked into the cache and run by its own loader and libraries.

Nothing of it is installed, and every host runs the same one: how well QEMU emulates SVM decides whether PVH
and HVM guests live, and how fast all are. QEMU 10 takes a guest's read of CR2 for one of CR0
(target/i386/tcg/decode-new.c.inc), which Xen 4.17 intercepts and 4.20 does not: under it, no guest of Xen
4.17 but PV ones survives its first page fault. Debian 12's QEMU 7.2 has another decoder.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError
from xenvirtio.lab import debian, prune
from xenvirtio.lab.bootstrap import bootstrap
from xenvirtio.lab.host import Host, answer
from xenvirtio.lab.paths import Cache, locked

if TYPE_CHECKING:
    from xenvirtio.lab.stages import Progress

PACKAGES = ("qemu-system-x86", "qemu-utils")
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
#: below the unpacked root: libraries, the loader in one of these folders, firmware
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")  # Debian 12's packages use both
_LOADER = "ld-linux-x86-64.so.2"
_MODULES = f"{_LIBRARIES[0]}/qemu"
_DATA = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")
SYSTEM, IMG = "qemu-system-x86_64", "qemu-img"


@dataclass(frozen=True)
class Emulator:
    """An unpacked QEMU."""

    root: Path
    version: str  # with its package's: "10.0.2 (Debian 1:10.0.2+ds-1)"

    def system(self) -> list[str]:
        """How qemu-system-x86_64 is called; its arguments follow."""
        return [
            *("env", f"QEMU_MODULE_DIR={self.root / _MODULES}"),
            *_program(self.root, SYSTEM),
            *(word for data in _DATA for word in ("-L", str(self.root / data))),
        ]

    def img(self) -> list[str]:
        """How qemu-img is called."""
        return _program(self.root, IMG)


def ensure(cache: Cache, release: debian.Release, progress: Progress) -> Emulator:
    """The release's QEMU, unpacked if it is not there; raises LabError, MissingDependency, TimeLimit."""
    folder = cache.emulators / f"{release.name}-{_key()}"
    facts = folder / "qemu.json"
    if not facts.exists():
        with locked(Path(f"{folder}.lock"), "the lab's QEMU", limit=300):
            if not facts.exists():
                _make(cache, folder, release, progress)
    return Emulator(folder / "tree", json.loads(facts.read_text())["version"])


def _make(cache: Cache, folder: Path, release: debian.Release, progress: Progress) -> None:
    if folder.exists():
        prune.remove_tree(folder)
    folder.mkdir(parents=True)
    with progress.stage(f"Unpack QEMU of Debian {release.name}", limit=240) as stage:
        host = Host(folder / "build.log")
        bootstrap(host, folder, release, PACKAGES, stage.left, exclude=EXCLUDED, variant="extract")
        version = _version(folder / "tree")
        (folder / "qemu.json").write_text(json.dumps({"version": version}))
    prune.emulators(cache, release.name)


def _program(root: Path, name: str) -> list[str]:
    folders = [root / folder for folder in _LIBRARIES]
    loader = next((found for folder in folders if (found := folder / _LOADER).exists()), root / _LOADER)
    return [str(loader), "--library-path", ":".join(map(str, folders)), str(root / "usr/bin" / name)]


def _version(root: Path) -> str:
    asked = [*_program(root, SYSTEM), "--version"]
    try:
        result = answer(asked, 20)
    except OSError as error:
        raise LabError(f"the lab's QEMU cannot be started: {error}") from error
    match = re.search(r"version (.+)", result.stdout.decode(errors="replace"))
    if match is None:
        raise LabError(
            f"{SYSTEM} --version says nothing: {result.stderr.decode(errors='replace').strip()[:200]}"
        )
    return match[1].strip()


def _key() -> str:
    return hashlib.sha256(json.dumps([PACKAGES, EXCLUDED]).encode()).hexdigest()[:12]
