"""The device page: what the device writes there and what it reads of the driver (docs/virtio-xenbus.md).

The page is the guest's own memory: it may change under us at any time. The driver's part is copied once a
command, and nothing that the device wrote is ever read back.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.memory import raw
from xenvirtio.spec import xenbus

if TYPE_CHECKING:
    from xenvirtio.spec.xenbus import Result

#: DRV_CMD … DRV_DATA, little-endian: cmd, queue, value, desc, driver, device, port, offset, features
FIELDS = struct.Struct("<4xIIIQQQIIQQ")
DRIVER_BYTES = xenbus.DRV_DATA + xenbus.DRV_DATA_MAX - xenbus.DRV_CMD_SEQ
U32 = 0xFFFF_FFFF
U64 = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class Request:
    """One command, copied out of the page."""

    sequence: int
    command: int
    queue: int
    value: int
    desc: int
    driver: int
    device: int
    port: int
    offset: int
    features: int
    data: bytes


class DevicePage:
    """The page at a local address, which must stay mapped as long as this lives."""

    def __init__(self, address: int) -> None:
        self._address = address
        self._copy = (ctypes.c_ubyte * DRIVER_BYTES)()
        self._config = (ctypes.c_ubyte * xenbus.DEV_CONFIG_MAX)()
        self._generation = 0

    def clear(self) -> None:
        """Zeroes the device's part, for a new connection."""
        raw.fill(self._address, 0, xenbus.DRV_CMD_SEQ)

    def publish(self, device_id: int, queues: int, features: int) -> None:
        """Writes what does not change while connected; DEV_MAGIC comes last."""
        store = self._store32
        store(xenbus.DEV_VERSION, xenbus.VERSION)
        store(xenbus.DEV_DEVICE_ID, device_id)
        store(xenbus.DEV_VENDOR_ID, xenbus.VENDOR_ID)
        store(xenbus.DEV_NUM_QUEUES, queues)
        self._store64(xenbus.DEV_FEATURES, features & U64)
        self._store64(xenbus.DEV_FEATURES + 8, features >> 64)
        raw.fence_release()
        store(xenbus.DEV_MAGIC, xenbus.MAGIC)

    def set_status(self, status: int) -> None:
        """DEV_STATUS."""
        self._store32(xenbus.DEV_STATUS, status)

    def set_config(self, config: bytes) -> None:
        """The configuration space, under an odd generation (virtio 1.3 §2.5.1)."""
        if len(config) > xenbus.DEV_CONFIG_MAX:
            raise ValueError(f"configuration space of {len(config)} bytes")
        ctypes.memmove(self._config, config, len(config))
        self._store32(xenbus.DEV_CONFIG_GENERATION, self._generation + 1 & U32)
        raw.fence_full()
        raw.copy(self._address + xenbus.DEV_CONFIG, ctypes.addressof(self._config), len(config))
        self._store32(xenbus.DEV_CONFIG_SIZE, len(config))
        raw.fence_full()
        self._generation = self._generation + 2 & U32
        self._store32(xenbus.DEV_CONFIG_GENERATION, self._generation)

    @property
    def generation(self) -> int:
        """DEV_CONFIG_GENERATION as last written; even."""
        return self._generation

    def continue_generation(self, generation: int) -> None:
        """A restarted worker goes on counting, so that the driver sees a change."""
        self._generation = generation + (generation & 1) & U32

    def request(self, answered: int) -> Request | None:
        """The driver's command, if it is another than the one `answered` last."""
        sequence = raw.load32(self._address + xenbus.DRV_CMD_SEQ)
        if sequence == answered:
            return None
        raw.fence_acquire()
        raw.copy(ctypes.addressof(self._copy), self._address + xenbus.DRV_CMD_SEQ, DRIVER_BYTES)
        command, queue, value, desc, driver, device, port, offset, low, high = FIELDS.unpack_from(self._copy)
        data = bytes(self._copy)[xenbus.DRV_DATA - xenbus.DRV_CMD_SEQ :]
        return Request(
            sequence, command, queue, value, desc, driver, device, port, offset, high << 64 | low, data
        )

    def answer(self, sequence: int, result: Result, value: int = 0) -> None:
        """Ends a command: result and value, then DEV_ACK_SEQ."""
        self._store32(xenbus.DEV_ACK_RESULT, result)
        self._store64(xenbus.DEV_ACK_VALUE, value)
        raw.fence_release()
        self._store32(xenbus.DEV_ACK_SEQ, sequence)

    def _store32(self, offset: int, value: int) -> None:
        raw.store32(self._address + offset, value)

    def _store64(self, offset: int, value: int) -> None:
        raw.store64(self._address + offset, value)
