"""virtio 1.3: device status, transport feature bits, and the layout of split virtqueues.

All fields are little-endian (virtio 1.3 §2.7.1 and its neighbours).
"""

from __future__ import annotations

# --- device status field, virtio 1.3 §2.1 ---
STATUS_ACKNOWLEDGE = 1
STATUS_DRIVER = 2
STATUS_DRIVER_OK = 4
STATUS_FEATURES_OK = 8
STATUS_DEVICE_NEEDS_RESET = 64
STATUS_FAILED = 128

# --- reserved feature bits, virtio 1.3 §6; bits 0-23 and 50-127 are the device type's ---
F_INDIRECT_DESC = 1 << 28
F_EVENT_IDX = 1 << 29
F_VERSION_1 = 1 << 32
F_ACCESS_PLATFORM = 1 << 33
F_RING_PACKED = 1 << 34
F_IN_ORDER = 1 << 35
F_ORDER_PLATFORM = 1 << 36
F_SR_IOV = 1 << 37
F_NOTIFICATION_DATA = 1 << 38
F_NOTIF_CONFIG_DATA = 1 << 39
F_RING_RESET = 1 << 40
F_ADMIN_VQ = 1 << 41

# --- split virtqueues, virtio 1.3 §2.7 ---
QUEUE_SIZE_MAX = 32768  # entries; a power of two
DESC_ALIGN = 16  # bytes
AVAIL_ALIGN = 2
USED_ALIGN = 4

# struct virtq_desc, virtio 1.3 §2.7.5 (byte offsets)
DESC_SIZE = 16
DESC_ADDR = 0  # u64
DESC_LEN = 8  # u32, bytes
DESC_FLAGS = 12  # u16
DESC_NEXT = 14  # u16

DESC_F_NEXT = 1
DESC_F_WRITE = 2  # the device writes (otherwise it reads)
DESC_F_INDIRECT = 4  # virtio 1.3 §2.7.5.3

# struct virtq_avail, virtio 1.3 §2.7.6
AVAIL_FLAGS = 0  # u16
AVAIL_IDX = 2  # u16
AVAIL_RING = 4  # u16[queue size], then u16 used_event (virtio 1.3 §2.7.7)
AVAIL_F_NO_INTERRUPT = 1

# struct virtq_used, virtio 1.3 §2.7.8
USED_FLAGS = 0  # u16
USED_IDX = 2  # u16
USED_RING = 4  # {u32 id, u32 len}[queue size], then u16 avail_event (virtio 1.3 §2.7.10)
USED_ELEM_SIZE = 8
USED_F_NO_NOTIFY = 1

#: bytes in all of a chain's buffers, at most (virtio 1.3 §2.7.5)
CHAIN_BYTES_MAX = (1 << 32) - 1


def desc_length(size: int) -> int:
    """Bytes of the descriptor table of a queue of `size` entries."""
    return DESC_SIZE * size


def avail_length(size: int) -> int:
    """Bytes of the available ring with used_event."""
    return AVAIL_RING + 2 * size + 2


def used_length(size: int) -> int:
    """Bytes of the used ring with avail_event."""
    return USED_RING + USED_ELEM_SIZE * size + 2
