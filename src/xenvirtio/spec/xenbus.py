"""virtio over XenBus, version 1: the constants of docs/virtio-xenbus.md; C: guest/linux/virtio_xenbus.h."""

from __future__ import annotations

from enum import IntEnum

VERSION = 1
MAGIC = 0x74726976  # "virt", little-endian
VENDOR_ID = 0x564E4558  # "XENV"
PAGE_SIZE = 4096
NUM_QUEUES_MAX = 4096  # XB-17

#: kind of the XenStore directories: backend/virtio/<domid>/<devid>, device/virtio/<devid>
KIND = "virtio"
TRANSPORT = "xenbus"

# --- device page, part written by the device (byte offsets, little-endian) ---
DEV_MAGIC = 0x000  # u32
DEV_VERSION = 0x004  # u32
DEV_DEVICE_ID = 0x008  # u32
DEV_VENDOR_ID = 0x00C  # u32
DEV_NUM_QUEUES = 0x010  # u32
DEV_CONFIG_SIZE = 0x014  # u32, bytes
DEV_STATUS = 0x018  # u32
DEV_CONFIG_GENERATION = 0x01C  # u32, odd while the configuration is being changed
DEV_FEATURES = 0x020  # u64[2], bits 0-127
DEV_ACK_SEQ = 0x030  # u32
DEV_ACK_RESULT = 0x034  # u32, a Result
DEV_ACK_VALUE = 0x038  # u64
DEV_CONFIG = 0x100
DEV_CONFIG_MAX = 0x400  # bytes

# --- part written by the driver ---
DRV_CMD_SEQ = 0x800  # u32
DRV_CMD = 0x804  # u32, a Command
DRV_QUEUE = 0x808  # u32
DRV_VALUE = 0x80C  # u32: status, queue size, or length of a configuration write
DRV_DESC = 0x810  # u64
DRV_DRIVER = 0x818  # u64, available ring
DRV_DEVICE = 0x820  # u64, used ring
DRV_PORT = 0x828  # u32, event channel of the queue; 0: the device's
DRV_OFFSET = 0x82C  # u32, of a configuration write
DRV_FEATURES = 0x830  # u64[2], bits 0-127
DRV_DATA = 0x840  # u8[64], of a configuration write
DRV_DATA_MAX = 64


class Command(IntEnum):
    """What the driver asks for; one at a time, answered through DEV_ACK_SEQ."""

    SET_STATUS = 1  # DRV_VALUE: device status; 0 resets; DRV_FEATURES are read when FEATURES_OK is new in it
    QUEUE_QUERY = 2  # DRV_QUEUE → DEV_ACK_VALUE: largest size, 0 if there is no such queue
    QUEUE_ENABLE = 3  # DRV_QUEUE, DRV_VALUE (size), DRV_DESC, DRV_DRIVER, DRV_DEVICE, DRV_PORT
    QUEUE_RESET = 4  # DRV_QUEUE
    CONFIG_WRITE = 5  # DRV_OFFSET, DRV_VALUE (length), DRV_DATA


class Result(IntEnum):
    """How a command ended."""

    OK = 0
    INVALID = 1  # an argument is out of its range
    UNKNOWN = 2  # no such command
    STATE = 3  # not allowed in this device status
    FAULT = 4  # an address or port cannot be reached


class MemoryAccess:
    """How addresses in rings are meant; the strings in XenStore."""

    GRANT = "grant"
    FOREIGN = "foreign"


#: set in every address of access mode "grant": 1<<63 | first grant reference<<12 | offset in the page
GRANT_ADDRESS = 1 << 63

# --- XenStore keys ---
KEY_VERSION = "version"  # both sides: "1"
KEY_TRANSPORT = "transport"  # both sides, by the toolstack: "xenbus"
KEY_MEMORY_ACCESS = "memory-access"  # backend: modes it accepts, preferred first; frontend: the one it uses
KEY_DEVICE_PAGE = "device-page"  # frontend: grant reference of the device page
KEY_EVENT_CHANNEL = "event-channel"  # frontend: its port, unbound for the backend's domain
KEY_QUEUE_EVENT_CHANNELS = "queue-event-channels"  # backend: "1" if queues may have their own ports, XB-67
KEY_UNLESS_USED = "unless-used"  # toolstack: "1", the frontend keeps the device if it is in use, XB-27
KEY_ERROR = "error"  # backend: why it closed, in words
KEY_MAP_CACHE = "map-cache"  # B/host: MiB of the guest that a device may keep mapped, in mode "foreign"
MAP_CACHE_MAX = 65536
KEY_HOST = "host"  # backend: subdirectory that only the backend's domain can read: the device's settings
