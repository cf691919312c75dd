"""From the snapshot to a dom0 that runs the present payload."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xenvirtio.lab import commands, machine, qemu, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from xenvirtio.lab.emulator import Emulator
    from xenvirtio.lab.image import Image
    from xenvirtio.lab.snapshot import Snapshot

_DISK_KEY = "disk.key"
#: the clock, and the payload's disk, whose content from before the snapshot dom0 must not remember
_SETTLE = """
date -u -s "@$1" >/dev/null
blockdev --flushbufs /dev/vdb
mount -t squashfs -o ro /dev/vdb /opt/xenvirtio
"""


def start(
    folder: Path,
    name: str,
    image: Image,
    emulator: Emulator,
    snap: Snapshot,
    shape: qemu.Shape,
    payload: tuple[str, Path],
    limit: float,
) -> None:
    """Starts a lab's machine from the snapshot with a payload (its key and disk); `limit` in seconds.

    Raises LabLost, LabError, TimeLimit; no machine is left then.
    """
    deadline = time.monotonic() + limit
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / _DISK_KEY
    if not stamp.exists() or stamp.read_text() != snap.key or not (folder / qemu.DISK).exists():
        stamp.unlink(missing_ok=True)
        snapshot.copy(snap, folder / qemu.DISK)
        stamp.write_text(snap.key)
    key, disk = payload
    machine.prepare(folder, image, disk)
    running = machine.start(
        folder, name, emulator, snap.accelerator, shape, image=image.key, payload=key, restore=True
    )
    try:
        machine.wait_for_agent(folder, running, deadline - time.monotonic())
        settle = ("sh", "-euc", _SETTLE, "sh", f"{time.time():.3f}")
        commands.run(folder, settle, timeout=max(1.0, deadline - time.monotonic())).check()
    except BaseException:
        machine.stop(running)
        raise
