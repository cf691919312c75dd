"""A driver that fills a split virtqueue as a guest does (virtio 1.3 §2.7.13), or as none should.

    with RegionGuest() as guest:
        driver = Driver(guest, size=128)
        with guest.memory() …, SplitQueue(memory, driver.config, driver.features) as queue:
            driver.add([b"header"], [512, 1])
            if driver.kick():
                device.kick(0)
            for used in driver.used():
                print(used.length, used.data)

What a well-behaved driver never does has its own methods: `write_descriptor`, `put_avail`, `set_avail_idx`.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.memory import raw
from xenvirtio.queue.config import QueueConfig
from xenvirtio.spec import virtio

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xenvirtio.testing.guest import Guest

Descriptor = tuple[int, int, int, int]
"""Address, length, flags, next."""


@dataclass(frozen=True)
class Buffer:
    """A piece of guest memory that is shared with the device."""

    offset: int  # in the guest's memory
    length: int
    address: int  # as the device is told
    write: bool  # the device writes it
    align: int = 16


@dataclass(frozen=True)
class Chain:
    buffers: tuple[Buffer, ...]
    table: Buffer | None
    descriptors: tuple[int, ...]


@dataclass(frozen=True)
class Used:
    """A chain that came back: its head, how many bytes the device says it wrote, and what is in each
    writable buffer now."""

    head: int
    length: int
    data: list[bytes]


class Driver:
    """The driver's side of one split virtqueue."""

    def __init__(
        self, guest: Guest, size: int = 256, features: int = virtio.F_VERSION_1, index: int = 0
    ) -> None:
        """Places and shares the rings; `features` as negotiated (EVENT_IDX is used if it is among them)."""
        self.guest = guest
        self.features = features
        self.size = size
        areas = []
        self._rings: list[Buffer] = []
        for length, writable in (
            (virtio.desc_length(size), False),
            (virtio.avail_length(size), False),
            (virtio.used_length(size), True),
        ):
            offset = guest.ram.place(length, 64)
            guest.ram.write(offset, bytes(length))
            self._rings.append(Buffer(offset, length, guest.share(offset, length, writable), writable, 64))
            areas.append(guest.ram.address + offset)
        self._desc, self._avail, self._used = areas
        self.config = QueueConfig(index, size, *(ring.address for ring in self._rings))
        self.free = deque(range(size))
        self.chains: dict[int, Chain] = {}
        self._next_avail = 0
        self._kicked = 0
        self._last_used = 0
        self._interrupts = True

    # --- as a guest does ---

    def add(
        self,
        readable: Iterable[bytes] = (),
        writable: Iterable[int] = (),
        indirect: bool = False,
        align: int = 16,
    ) -> int:
        """Put a chain on the available ring: what the device reads, and how many bytes it may write where.

        Not yet visible: `kick` shows it. Returns its head. Raises BufferError if no descriptor is free.
        """
        buffers = [self._buffer(len(data), False, align, data) for data in readable]
        buffers += [self._buffer(length, True, align) for length in writable]
        needed = 1 if indirect else len(buffers)
        if not buffers or needed > len(self.free):
            self._release(buffers)
            raise BufferError(f"{needed} descriptors needed, {len(self.free)} free")
        indexes = tuple(self.free.popleft() for _ in range(needed))
        table = None
        if indirect:
            table = self.table(self.descriptors(buffers, range(len(buffers))))
            self.write_descriptor(indexes[0], table.address, table.length, virtio.DESC_F_INDIRECT)
        else:
            for index, descriptor in zip(indexes, self.descriptors(buffers, indexes), strict=True):
                self.write_descriptor(index, *descriptor)
        self.chains[indexes[0]] = Chain(tuple(buffers), table, indexes)
        self.put_avail(indexes[0])
        return indexes[0]

    def kick(self) -> bool:
        """Show everything added (virtio 1.3 §2.7.13.3); does the device want to be told (§2.7.13.4)?"""
        raw.fence_release()
        self.set_avail_idx(self._next_avail)
        raw.fence_full()
        old, self._kicked = self._kicked, self._next_avail
        if self.features & virtio.F_EVENT_IDX:
            return ((self._next_avail - self.avail_event - 1) & 0xFFFF) < ((self._next_avail - old) & 0xFFFF)
        return not self.used_flags & virtio.USED_F_NO_NOTIFY

    def used(self) -> list[Used]:
        """Collect what came back; its memory and descriptors are free again. AssertionError if the device
        returned what it did not have."""
        result = []
        while self._last_used != self.used_idx:
            raw.fence_acquire()
            slot = self._used + 4 + 8 * (self._last_used % self.size)
            head, length = raw.load32(slot), raw.load32(slot + 4)
            chain = self.chains.pop(head, None)
            assert chain is not None, f"the device returned head {head}, which it did not have"
            writable = [buffer for buffer in chain.buffers if buffer.write]
            data = [self.guest.ram.read(buffer.offset, buffer.length) for buffer in writable]
            assert length <= sum(buffer.length for buffer in writable), "more written than there is room"
            result.append(Used(head, length, data))
            self._release([*chain.buffers, *([chain.table] if chain.table else [])])
            self.free.extend(chain.descriptors)
            self._last_used = (self._last_used + 1) & 0xFFFF
        if self._interrupts:
            self.want_interrupts(True)
        return result

    def want_interrupts(self, on: bool, after: int = 1) -> None:
        """Ask for an interrupt when `after` more chains are used, or for none (virtio 1.3 §2.7.7.1)."""
        self._interrupts = on
        if self.features & virtio.F_EVENT_IDX:
            if on:
                raw.store16(self._avail + 4 + 2 * self.size, (self._last_used + after - 1) & 0xFFFF)
        else:
            raw.store16(self._avail, 0 if on else virtio.AVAIL_F_NO_INTERRUPT)
        raw.fence_full()

    def close(self) -> None:
        """Take everything back from the device, which must have let go of it."""
        for chain in self.chains.values():
            self._release([*chain.buffers, *([chain.table] if chain.table else [])])
        self.chains.clear()
        self._release(self._rings)
        self._rings = []

    # --- the pieces ---

    def _buffer(self, length: int, write: bool, align: int, data: bytes = b"") -> Buffer:
        offset = self.guest.ram.place(length, align)
        self.guest.ram.write(offset, data)
        return Buffer(offset, length, self.guest.share(offset, length, write), write, align)

    def _release(self, buffers: Sequence[Buffer]) -> None:
        for buffer in buffers:
            self.guest.unshare(buffer.address, buffer.length)
            self.guest.ram.give_back(buffer.offset, buffer.length, buffer.align)

    @staticmethod
    def descriptors(buffers: Sequence[Buffer], indexes: Sequence[int]) -> list[Descriptor]:
        """A chain over `buffers` in the descriptors `indexes`."""
        result = []
        for k, buffer in enumerate(buffers):
            flags = virtio.DESC_F_WRITE if buffer.write else 0
            last = k + 1 == len(buffers)
            flags |= 0 if last else virtio.DESC_F_NEXT
            result.append((buffer.address, buffer.length, flags, 0 if last else indexes[k + 1]))
        return result

    def table(self, entries: Sequence[Descriptor]) -> Buffer:
        """An indirect table (virtio 1.3 §2.7.5.3) in guest memory, shared for reading."""
        data = b"".join(struct.pack("<QIHH", *entry) for entry in entries)
        return self._buffer(len(data), False, 16, data)

    # --- as no guest should ---

    def write_descriptor(
        self, index: int, address: int, length: int, flags: int = 0, following: int = 0
    ) -> None:
        at = self._desc + virtio.DESC_SIZE * index
        raw.store64(at, address)
        raw.store32(at + virtio.DESC_LEN, length)
        raw.store16(at + virtio.DESC_FLAGS, flags)
        raw.store16(at + virtio.DESC_NEXT, following)

    def put_avail(self, head: int) -> None:
        """The next entry of the available ring; `kick` shows it."""
        raw.store16(self._avail + 4 + 2 * (self._next_avail % self.size), head)
        self._next_avail = (self._next_avail + 1) & 0xFFFF

    def set_avail_idx(self, idx: int) -> None:
        raw.store16(self._avail + virtio.AVAIL_IDX, idx & 0xFFFF)

    def set_used_event(self, idx: int) -> None:
        raw.store16(self._avail + 4 + 2 * self.size, idx & 0xFFFF)

    # --- what the device wrote ---

    @property
    def used_idx(self) -> int:
        return raw.load16(self._used + virtio.USED_IDX)

    @property
    def used_flags(self) -> int:
        return raw.load16(self._used)

    @property
    def avail_event(self) -> int:
        return raw.load16(self._used + 4 + 8 * self.size)
