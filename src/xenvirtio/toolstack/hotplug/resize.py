"""A disk's size, while its guest uses it.

    grow:    the image, then the disk      shrink:  the disk, then the image

so that the disk never ends behind its image, nor when a growth is undone. B/host has the disk's size since it
was plugged: it stays when the image, or block device, gets longer, until `resize` without a size.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError, XenvirtioError
from xenvirtio.toolstack.checks import SECTOR, check_user, image_end
from xenvirtio.toolstack.create import uninterrupted
from xenvirtio.toolstack.hotplug.detach import UNDO_LIMIT
from xenvirtio.toolstack.hotplug.update import DEFAULT_LIMIT, change_settings, check_served
from xenvirtio.toolstack.running import check_daemon, find_running, need_device

if TYPE_CHECKING:
    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.nodes import Plugged
    from xenvirtio.toolstack.xl import Domain

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

    Raises UsageError before anything is changed; XenvirtioError or TimeLimit after the disk is ordered to be
    as it was, and its image is so, unless `toolstack.say` was told that it stays longer; XenvirtioError as
    well if a disk has shrunk, but its image cannot be cut.
    """
    check_user(toolstack.host)
    domain = find_running(name, toolstack.xl)
    device = need_device(toolstack.store, domain, vdev)
    if not device.is_disk:
        raise UsageError(f"{vdev} is a NIC: it has no size", hint="xenvirtio list")
    check_daemon(toolstack.host)
    end = image_end(f"{vdev} of guest {domain.name}", device.settings["path"])
    before = min(int(device.settings.get("size", end)), end)
    after = end if size is None else parse_size(size, before)
    _check(domain, device, before, after, by_hand=size is not None, shrink=shrink)
    check_served(toolstack.store, device)
    path = device.settings["path"]
    if after > end:
        _lengthen(vdev, path, after)
    try:
        change_settings(toolstack.store, device, {"size": str(after)}, limit)
    except BaseException:
        if after > end:
            _shorten_again(domain, device, before, end, toolstack, min(limit, UNDO_LIMIT))
        raise
    if size is not None and shrink and after < end:
        _cut(vdev, path, after)
    return Resized(vdev, before, after)


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


def _lengthen(vdev: str, path: str, after: int) -> None:
    try:
        os.truncate(path, after)
    except OSError as error:
        words = f"{vdev}: {path} cannot be made {after} bytes long: {error.strerror}"
        if error.errno == errno.EFBIG:
            raise UsageError(words, hint="a smaller size: its file system has no files as long") from error
        raise XenvirtioError(words, hint=f"df -h {path}; lsattr {path}") from error


def _cut(vdev: str, path: str, after: int) -> None:
    try:
        os.truncate(path, after)
    except OSError as error:
        raise XenvirtioError(
            f"{vdev} has {after} bytes now, but its image {path} cannot be cut to them: {error.strerror}",
            hint=f"mend that (lsattr {path}), then: truncate -s {after} {path}",
        ) from error


def _shorten_again(
    domain: Domain, device: Plugged, before: int, end: int, toolstack: Toolstack, limit: float
) -> None:
    """Undo a growth: the image is cut when the daemon has said that the disk ends before, and else left long,
    which does no harm. An error here is only said, not raised."""
    path, vdev = device.settings["path"], device.vdev
    with uninterrupted():
        try:
            change_settings(toolstack.store, device, {"size": str(before)}, limit)
            os.truncate(path, end)
        except (XenvirtioError, OSError) as error:
            again = f"xenvirtio resize {domain.name} {vdev} {before} --shrink"
            why = error.message if isinstance(error, XenvirtioError) else error.strerror
            toolstack.say(f"{path} stays long, lest {vdev} ends behind it: {why}; run: {again}")


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
