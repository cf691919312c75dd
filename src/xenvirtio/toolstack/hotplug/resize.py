"""A disk's size, while its guest uses it.

    grow:    the image, then the disk      shrink:  the disk, then the image

so that the disk never ends behind its image: what fails is taken back in the reverse order, and rather stays
half-done with an image that is longer than its disk. Without a size the disk follows its image, or block
device.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError, XenvirtioError
from xenvirtio.toolstack.checks import SECTOR, check_user
from xenvirtio.toolstack.hotplug.update import DEFAULT_LIMIT, change_settings
from xenvirtio.toolstack.running import check_daemon, find_running, need_device

if TYPE_CHECKING:
    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.nodes import Plugged
    from xenvirtio.toolstack.xl import Domain
    from xenvirtio.xen.interfaces import Store

SIZE = re.compile(r"([+-]?)(\d{1,18})([kmgtKMGT]?)(?:i?[bB])?")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
#: bytes: what the kernel can address
SIZE_MAX = 1 << 60


@dataclass(frozen=True)
class Resized:
    """Bytes before and after."""

    vdev: str
    before: int
    after: int


def resize(
    name: str,
    vdev: str,
    size: str | None,
    toolstack: Toolstack,
    limit: float = DEFAULT_LIMIT,
    *,
    shrink: bool = False,
) -> Resized:
    """Give the disk `vdev` of the guest `name` another size: 2G, +512M, bytes; None: that of its image now.

    Raises UsageError before anything is changed; XenvirtioError or TimeLimit after all is as it was.
    """
    check_user(toolstack.host)
    domain = find_running(name, toolstack.xl)
    device = need_device(toolstack.store, domain, vdev)
    if not device.is_disk:
        raise UsageError(f"{vdev} is a NIC: it has no size", hint="xenvirtio list")
    check_daemon(toolstack.host)
    end = _image_end(domain, device)
    before = min(int(device.settings.get("size", end)), end)
    after = end if size is None else parse_size(size, before)
    _check(domain, device, before, after, by_hand=size is not None, shrink=shrink)
    if after > end:
        _grow(toolstack.store, device, (before, after), end, limit)
        return Resized(vdev, before, after)
    change_settings(toolstack.store, device, {"size": str(after)}, limit)
    if size is not None and after < end:
        _set_end(device, after, f"{vdev} ends at {after} bytes now, its image does not")
    return Resized(vdev, before, after)


def _grow(store: Store, device: Plugged, sizes: tuple[int, int], end: int, limit: float) -> None:
    """The image from `end`, then the disk, from and to `sizes`. A disk that followed its image stops to."""
    before, after = sizes
    if "size" not in device.settings:
        change_settings(store, device, {"size": str(before)}, limit)
        device = replace(device, settings={**device.settings, "size": str(before)})
    _set_end(device, after, f"{device.vdev} stays as it is")
    try:
        change_settings(store, device, {"size": str(after)}, limit)
    except BaseException as error:
        # the daemon may still be about to grow the disk: the image is cut when it says that it ends before
        try:
            change_settings(store, device, {"size": str(before)}, limit)
        except XenvirtioError:
            kept = f"{device.settings['path']} keeps its {after} bytes"
            raise XenvirtioError(
                f"{device.vdev} may have grown or not: {error}; {kept}", "xenvirtio list"
            ) from error
        _set_end(device, end, f"{device.vdev} stays as it is")
        raise


def _set_end(device: Plugged, size: int, otherwise: str) -> None:
    """The image's own size. Raises UsageError for one that its file system cannot have, or XenvirtioError."""
    path = device.settings["path"]
    try:
        os.truncate(path, size)
    except OSError as error:
        kind = UsageError if error.errno in (errno.EFBIG, errno.EINVAL) else XenvirtioError
        raise kind(f"{path} cannot get {size} bytes: {error.strerror}; {otherwise}", f"df {path}") from error


def parse_size(text: str, base: int) -> int:
    """A size in bytes; with a sign it is relative to `base`. Units are powers of 1024. Raises UsageError."""
    match = SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is no size", hint="2G, +512M, or a number of bytes")
    sign, digits, unit = match.groups()
    amount = int(digits) * UNITS[unit.upper()]
    size = base + amount if sign == "+" else base - amount if sign == "-" else amount
    if not 0 < size <= SIZE_MAX:
        raise UsageError(f"a disk cannot have {size} bytes", hint="2G, +512M, or a number of bytes")
    return size


def _image_end(domain: Domain, device: Plugged) -> int:
    path = device.settings["path"]
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(
            f"{device.vdev} of guest {domain.name}: cannot open {path}: {error.strerror}",
            hint=f"ls -l {path}",
        ) from None
    try:
        return os.lseek(handle, 0, os.SEEK_END)
    finally:
        os.close(handle)


def _check(domain: Domain, device: Plugged, before: int, after: int, *, by_hand: bool, shrink: bool) -> None:
    path, vdev = device.settings["path"], device.vdev
    again = f"xenvirtio resize {domain.name} {vdev}"
    if by_hand and stat.S_ISBLK(os.stat(path).st_mode):
        raise UsageError(
            f"{vdev}: {path} is a block device, which has its own size", f"lvextend …, then: {again}"
        )
    if by_hand and device.settings.get("mode") == "r":
        raise UsageError(
            f"{vdev} is read-only, so is its image {path}", f"truncate -s … {path}, then: {again}"
        )
    if after % SECTOR:
        hint = f"{-(-after // SECTOR) * SECTOR} is one"
        raise UsageError(f"{vdev}: {after} bytes are no multiple of {SECTOR}", hint)
    if by_hand and after < before and not shrink:
        lost = (
            f"{vdev}: {after} bytes are less than the {before} that it has: what is behind them would be lost"
        )
        raise UsageError(lost, hint=f"make its file system smaller first, then: {again} {after} --shrink")
