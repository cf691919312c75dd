"""What a disk offers: feature bits and configuration space (virtio 1.3 §5.2.3, §5.2.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.spec import block as spec

if TYPE_CHECKING:
    from xenvirtio.device.block.image import Image

QUEUE_SIZE_MAX = 128  # entries: the three areas of a split ring of this size fit one page
SEG_MAX = QUEUE_SIZE_MAX - 2  # without indirect descriptors a request takes two more for header and status
#: bytes a segment; so that a request of as many and as large segments as are promised, each anywhere in its
#: first page, can be staged whole (memory.arena.STAGING_BYTES)
SIZE_MAX = 28 << 10
DATA_MAX = SEG_MAX * SIZE_MAX  # bytes a request: bounds what a request may hold staged
RANGES_MAX = 16  # ranges in one discard or write-zeroes request
DISCARD_SECTORS_MAX = 1 << 22  # 2 GiB a range: keeps one request's time bounded
ZERO_SECTORS_MAX = 1 << 16  # 32 MiB a range: where the backing cannot zero a range, it is written


def features(image: Image) -> int:
    """The feature bits that this image can honour."""
    bits = (
        spec.F_SEG_MAX
        | spec.F_SIZE_MAX
        | spec.F_BLK_SIZE
        | spec.F_TOPOLOGY
        | spec.F_FLUSH
        | spec.F_CONFIG_WCE
    )
    if image.read_only:
        return bits | spec.F_RO
    if image.can_discard:
        bits |= spec.F_DISCARD
    return bits | spec.F_WRITE_ZEROES


def config(image: Image, writeback: bool) -> bytes:
    """The configuration space (virtio 1.3 §5.2.4); fields of features not offered are zero."""
    geometry = image.geometry
    logical = geometry.logical_block
    discards = image.can_discard
    zeroes = not image.read_only
    return spec.CONFIG.pack(
        image.size // spec.SECTOR_SIZE,
        SIZE_MAX,
        SEG_MAX,
        *(0, 0, 0),
        logical,
        max(0, (geometry.physical_block // logical).bit_length() - 1),
        min(geometry.alignment_offset // logical, 0xFF),
        min(geometry.io_min // logical, 0xFFFF),
        geometry.io_opt // logical,
        writeback,
        1,
        DISCARD_SECTORS_MAX if discards else 0,
        RANGES_MAX if discards else 0,
        geometry.discard_granularity // spec.SECTOR_SIZE if discards else 0,
        ZERO_SECTORS_MAX if zeroes else 0,
        RANGES_MAX if zeroes else 0,
        discards,
    )
