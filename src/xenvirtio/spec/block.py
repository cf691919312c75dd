"""virtio-blk: constants and wire layouts (virtio 1.3 §5.2; Linux uapi linux/virtio_blk.h)."""

from __future__ import annotations

from struct import Struct

DEVICE_ID = 2
SECTOR_SIZE = 512  # bytes; every sector number on the wire counts these, whatever blk_size says (§5.2.4)

# --- feature bits, virtio 1.3 §5.2.3 ---
F_SIZE_MAX = 1 << 1
F_SEG_MAX = 1 << 2
F_RO = 1 << 5
F_BLK_SIZE = 1 << 6
F_FLUSH = 1 << 9
F_TOPOLOGY = 1 << 10
F_CONFIG_WCE = 1 << 11
F_DISCARD = 1 << 13
F_WRITE_ZEROES = 1 << 14

# --- request types, §5.2.6 ---
T_IN = 0
T_OUT = 1
T_FLUSH = 4
T_GET_ID = 8
T_DISCARD = 11
T_WRITE_ZEROES = 13

# --- status byte, §5.2.6 ---
S_OK = 0
S_IOERR = 1
S_UNSUPP = 2

HEADER_SIZE = 16  # le32 type, le32 reserved, le64 sector
STATUS_SIZE = 1
ID_SIZE = 20  # bytes of the answer to T_GET_ID; not ended by a zero when full
RANGE_SIZE = 16  # struct virtio_blk_discard_write_zeroes: le64 sector, le32 num_sectors, le32 flags
RANGE_FLAG_UNMAP = 1

# --- configuration space, §5.2.4 ---
CONFIG = Struct(
    "<Q"  # 0x00 capacity, sectors
    "II"  # 0x08 size_max, bytes; seg_max
    "HBB"  # 0x10 geometry: cylinders, heads, sectors
    "I"  # 0x14 blk_size, bytes
    "BBHI"  # 0x18 topology: physical_block_exp, alignment_offset, min_io_size, opt_io_size (logical blocks)
    "BxH"  # 0x20 writeback, num_queues
    "III"  # 0x24 max_discard_sectors, max_discard_seg, discard_sector_alignment
    "IIB3x"  # 0x30 max_write_zeroes_sectors, max_write_zeroes_seg, write_zeroes_may_unmap
)
CONFIG_WRITEBACK = 0x20  # the only byte that a driver may write
