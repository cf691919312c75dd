"""What the driver said of a queue, and where one stands."""

from __future__ import annotations

from dataclasses import dataclass

from xenvirtio.errors import QueueViolation
from xenvirtio.spec import virtio


@dataclass(frozen=True)
class QueueConfig:
    """One split virtqueue as the driver set it up: its index, size (entries), and the guest addresses of its
    three areas (virtio 1.3 §2.7)."""

    index: int
    size: int
    desc: int
    driver: int
    device: int

    def check(self) -> None:
        """Raises QueueViolation if no driver may set up a queue like this (virtio 1.3 §2.7)."""
        size = self.size
        if size <= 0 or size > virtio.QUEUE_SIZE_MAX or size & (size - 1):
            raise QueueViolation(f"queue size {size} is not a power of two from 1 to {virtio.QUEUE_SIZE_MAX}")
        areas = (
            ("descriptor table", self.desc, virtio.DESC_ALIGN, virtio.desc_length(size)),
            ("available ring", self.driver, virtio.AVAIL_ALIGN, virtio.avail_length(size)),
            ("used ring", self.device, virtio.USED_ALIGN, virtio.used_length(size)),
        )
        end, before = 0, ""
        for name, address, align, length in sorted(areas, key=lambda area: area[1]):
            if address % align:
                raise QueueViolation(f"{name} at {address:#x} is not aligned to {align} bytes")
            if address < 0 or address + length > 1 << 64:
                raise QueueViolation(f"{name} at {address:#x} ends beyond the address space")
            if address < end:
                raise QueueViolation(f"{name} at {address:#x} overlaps the {before}")
            end, before = address + length, name


@dataclass(frozen=True)
class QueueState:
    """Where a queue stands: both are free-running u16 indexes (virtio 1.3 §2.7.6, §2.7.8)."""

    last_avail: int  # the next entry of the available ring to take
    used: int  # the used ring's idx, as we wrote it
