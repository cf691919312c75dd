"""A disk's settings, as the toolstack wrote them to XenStore (docs/virtio-xenbus.md, B/host)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError
from xenvirtio.spec.block import ID_SIZE, SECTOR_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

#: digits of a size: files end before 2^63
SIZE_DIGITS = 18


@dataclass(frozen=True)
class BlockConfig:
    """What a disk is made from."""

    path: str
    """a raw image file or a block device; its format is never guessed"""
    read_only: bool = False
    discard: bool = True
    """hand discards to the backing where it can do them"""
    serial: str = ""
    """answer to get-id: at most 20 ASCII characters"""
    size: int | None = None
    """bytes: the disk ends there, though the image may go on; None: where the image ends"""

    @classmethod
    def from_settings(cls, settings: Mapping[str, str], name: str) -> BlockConfig:
        """Read B/host of the disk called `name`; keys of other layers are ignored. Raises UsageError."""
        path = settings.get("path", "")
        if not path:
            raise UsageError(f"disk {name}: no image is given", "add path to the disk's settings")
        mode = settings.get("mode", "w")
        if mode not in ("r", "w"):
            raise UsageError(f"disk {name}: mode is {mode!r}", "use r (read-only) or w")
        discard = settings.get("discard", "1")
        if discard not in ("0", "1"):
            raise UsageError(f"disk {name}: discard is {discard!r}", "use 0 or 1")
        serial = settings.get("serial", f"xenvirtio-{name}"[:ID_SIZE])
        if len(serial) > ID_SIZE or not serial.isascii() or not serial.isprintable():
            raise UsageError(
                f"disk {name}: serial {serial!r} is not {ID_SIZE} printable ASCII characters or fewer",
                "shorten it",
            )
        return cls(path, mode == "r", discard == "1", serial, size_setting(settings, name))


def size_setting(settings: Mapping[str, str], name: str) -> int | None:
    """The size that B/host gives the disk called `name`, in bytes. Raises UsageError."""
    text = settings.get("size")
    if text is None:
        return None
    size = int(text) if text.isascii() and text.isdigit() and len(text) <= SIZE_DIGITS else 0
    if size == 0 or size % SECTOR_SIZE:
        raise UsageError(
            f"disk {name}: size is {text!r}", f"use a number of bytes: a multiple of {SECTOR_SIZE} above zero"
        )
    return size
