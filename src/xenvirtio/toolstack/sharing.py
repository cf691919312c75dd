"""Who else uses an image, by name: the locks (device/block/lock.py) only say that somebody does."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError
from xenvirtio.toolstack.nodes import BACKEND, plugged, printable
from xenvirtio.transport.xenbus.nodes import backend_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.toolstack.configuration.guest import VirtioDevice
    from xenvirtio.xen.interfaces import View

#: kinds of disks that xl makes (tools/libs/light/libxl_disk.c): blkback's and QEMU's
XL_KINDS = ("vbd", "qdisk")
SYS = Path("/sys")


@dataclass(frozen=True)
class User:
    """A disk of a guest that runs."""

    domid: int
    vdev: str
    path: str
    writable: bool
    ours: bool


def check_unshared(view: View, device: VirtioDevice) -> None:
    """Raises UsageError if another disk of any guest is on the same image, unless both only read."""
    check_path(view, device.vdev, device.settings["path"], device.settings["mode"] == "w")


def check_path(view: View, vdev: str, path: str, writable: bool) -> None:
    """`check_unshared` for a disk that is `vdev` of a guest, whoever serves it."""
    here = _identity(path)
    for user in users(view):
        if (writable or user.writable) and here is not None and _identity(user.path) == here:
            name = printable(view.read(f"/local/domain/{user.domid}/name") or f"domain {user.domid}")
            how = "" if user.writable else ", which reads it"
            command = "xenvirtio detach" if user.ours else "xl block-detach"
            raise UsageError(
                f"disk {vdev}: {path} is in use by guest {name} as {user.vdev}{how}",
                hint=f"{command} {name} {user.vdev}; or give it read-only to both (access=ro)",
            )
    if writable and (loop := writing_loop(path)):
        raise UsageError(
            f"disk {vdev}: {path} is attached to {loop}, which writes to it",
            hint=f"losetup --detach {loop}; or serve that: phy:{loop}",
        )


def users(view: View) -> Iterator[User]:
    """All disks on images of this domain, as their toolstacks wrote them."""
    for domid in _numbers(view, backend_root(BACKEND)):
        for device in plugged(view, domid):
            if device.is_disk:
                yield User(
                    domid, device.vdev, device.settings["path"], device.settings.get("mode") != "r", ours=True
                )
    for kind in XL_KINDS:
        top = f"/local/domain/{BACKEND}/backend/{kind}"
        for domid in _numbers(view, top):
            for number in _numbers(view, f"{top}/{domid}"):
                back = f"{top}/{domid}/{number}"
                params = view.read(f"{back}/params") or ""
                path = params if params.startswith("/") else params.partition(":")[2]  # "raw:/path"
                if path:
                    writable = view.read(f"{back}/mode") != "r"
                    yield User(domid, view.read(f"{back}/dev") or str(number), path, writable, ours=False)


def _numbers(view: View, path: str) -> list[int]:
    return sorted(int(name) for name in view.names(path) or [] if name.isascii() and name.isdigit())


def _identity(path: str) -> tuple[object, ...] | None:
    """The same for every name of a file, for its loop devices, and for every node of a block device."""
    try:
        found = os.stat(path)
        if stat.S_ISBLK(found.st_mode):
            file = backing_file(found.st_rdev)
            if file is None:
                return (found.st_rdev,)
            found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def writing_loop(path: str, sys: Path = SYS) -> str | None:
    """A loop device that writes to the file, which no lock of ours meets; None for block devices."""
    with suppress(OSError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        for device in sys.glob("block/loop*"):
            with suppress(OSError):
                same = os.path.samefile((device / "loop/backing_file").read_text().rstrip("\n"), path)
                if same and (device / "ro").read_text().strip() == "0":
                    return f"/dev/{device.name}"
    return None


def backing_file(number: int, sys: Path = SYS) -> str | None:
    """The file behind a loop device, by its device number; xl's `file:` disks are some. None: it is none."""
    try:
        node = sys / f"dev/block/{os.major(number)}:{os.minor(number)}/loop/backing_file"
        return node.read_text().rstrip("\n")
    except FileNotFoundError:
        return None
