"""The snapshot of a booted dom0: taken once for an image, a QEMU and an accelerator, copied for every lab."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError, LabLost, TimeLimit, XenvirtioError
from xenvirtio.lab import machine, payload, prune, qemu
from xenvirtio.lab.host import Host
from xenvirtio.lab.paths import Cache, locked
from xenvirtio.lab.qmp import Monitor

if TYPE_CHECKING:
    from pathlib import Path

    from xenvirtio.lab.emulator import Emulator
    from xenvirtio.lab.image import Image
    from xenvirtio.lab.stages import Progress

#: seconds that a trial boot under KVM may take; it takes a few where it works
KVM_LIMIT = 45.0
#: seconds that a boot under emulation may take; 13 on a quiet machine
BOOT_LIMIT = 180.0


@dataclass(frozen=True)
class Snapshot:
    """A disk that holds a booted dom0."""

    folder: Path
    key: str
    accelerator: str

    @property
    def disk(self) -> Path:
        return self.folder / qemu.DISK


@dataclass(frozen=True)
class Choice:
    """An accelerator and why it was chosen."""

    accelerator: str
    reason: str


def snapshot_key(image: Image, accelerator: str, shape: qemu.Shape, version: str) -> str:
    """What a snapshot depends on: it cannot be restored with any of these changed."""
    argv = qemu.arguments("any", accelerator, shape, "boot", restore=False)
    facts = [image.key, image.made, accelerator, version, asdict(shape), argv]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def ensure(cache: Cache, image: Image, emulator: Emulator, shape: qemu.Shape, progress: Progress) -> Snapshot:
    """The image's snapshot for the best accelerator that works here, made if it is not there."""
    remembered = _remembered(cache, image, emulator.version)
    if remembered is None:
        with locked(cache.accelerators / "lock", "the trial of accelerators", limit=600):
            remembered = _remembered(cache, image, emulator.version) or _choose(
                cache, image, emulator, shape, progress
            )
    return _ensure(cache, image, emulator, remembered.accelerator, shape, progress)


def copy(snapshot: Snapshot, target: Path) -> None:
    """A lab's own copy of the disk: shared blocks where the file system can, holes kept in any case."""
    part = target.with_name(f".{target.name}.new")
    Host(target.parent / "copy.log").run(
        ["cp", "--reflink=auto", "--sparse=always", str(snapshot.disk), str(part)],
        limit=60,
        what="copy the snapshot",
    )
    part.replace(target)


def _ensure(
    cache: Cache, image: Image, emulator: Emulator, accelerator: str, shape: qemu.Shape, progress: Progress
) -> Snapshot:
    key = snapshot_key(image, accelerator, shape, emulator.version)
    snapshot = Snapshot(cache.snapshots / key, key, accelerator)
    if not (snapshot.folder / "snapshot.json").exists():
        with locked(
            cache.snapshots / f"{key}.lock", "the snapshot of the booted dom0", limit=BOOT_LIMIT + 60
        ):
            if not (snapshot.folder / "snapshot.json").exists():
                _make(snapshot, image, emulator, shape, progress)
                prune.snapshots(cache, image.key)
    os.utime(snapshot.folder / "snapshot.json")
    return snapshot


def _make(
    snapshot: Snapshot, image: Image, emulator: Emulator, shape: qemu.Shape, progress: Progress
) -> None:
    folder = snapshot.folder
    limit = KVM_LIMIT if snapshot.accelerator == "kvm" else BOOT_LIMIT
    with contextlib.suppress(FileNotFoundError):
        snapshot.disk.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    Host(folder / "disk.log").run(
        [
            *(*emulator.img(), "create", "-q", "-f", "qcow2"),
            *("-F", "raw", "-b", str(image.disk), str(snapshot.disk)),
        ],
        limit=20,
        what="make dom0's disk",
    )
    empty = folder / "empty.raw"
    with empty.open("wb") as file:
        file.truncate(payload.DISK_BYTES)
    machine.prepare(folder, image, empty)
    how = "KVM" if snapshot.accelerator == "kvm" else "emulation"
    with progress.stage(f"Boot Xen {image.xen} and dom0 under {how}", limit) as stage:
        running = machine.start(
            folder,
            snapshot.key,
            emulator,
            snapshot.accelerator,
            shape,
            image=image.key,
            payload="",
            restore=False,
        )
        try:
            machine.wait_for_agent(folder, running, stage.left)
        except BaseException:
            machine.stop(running)
            raise
    with progress.stage("Save the booted dom0", limit=60) as stage:
        try:
            with Monitor(folder) as monitor:
                monitor.human(f"savevm {qemu.SNAPSHOT}", limit=stage.left)
        finally:
            machine.stop(running)
        (folder / "snapshot.json").write_text(
            json.dumps({"accelerator": snapshot.accelerator, "image": image.key})
        )


def _choose(cache: Cache, image: Image, emulator: Emulator, shape: qemu.Shape, progress: Progress) -> Choice:
    """Tries KVM where there is a /dev/kvm, by booting; emulation otherwise."""
    choice = Choice("tcg", "there is no /dev/kvm that we may use")
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        try:
            _ensure(cache, image, emulator, "kvm", shape, progress)
            choice = Choice("kvm", "a trial boot worked")
        except (LabError, LabLost, TimeLimit) as error:
            choice = Choice("tcg", f"a trial boot under KVM failed: {_short(error)}")
    progress.note(f"Accelerator: {choice.accelerator} ({choice.reason})")
    path = _choice_path(cache, image, emulator.version)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({**asdict(choice), "qemu": emulator.version, "tried": time.strftime("%F %T")}, indent=1)
    )
    return choice


def _remembered(cache: Cache, image: Image, version: str) -> Choice | None:
    try:
        facts = json.loads(_choice_path(cache, image, version).read_text())
        return Choice(facts["accelerator"], facts["reason"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _choice_path(cache: Cache, image: Image, version: str) -> Path:
    facts = [version, platform.release(), image.key, os.access("/dev/kvm", os.R_OK | os.W_OK)]
    return cache.accelerators / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}.json"


def _short(error: XenvirtioError) -> str:
    return error.message.partition("\n")[0][:200]
