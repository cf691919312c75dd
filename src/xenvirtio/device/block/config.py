"""A disk's settings, as the toolstack wrote them to XenStore (docs/virtio-xenbus.md, B/host)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError
from xenvirtio.spec.block import ID_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        return cls(path, mode == "r", discard == "1", serial)
