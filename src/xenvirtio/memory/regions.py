# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""Guest memory that lies in this process: ranges of guest addresses, each at a local address.

The fake driver's kind (xenvirtio.testing), and that of every transport which hands over its guest's memory.
What is memory is known exactly, so an address outside is a violation and not a fault.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cython

from xenvirtio.errors import MemoryViolation
from xenvirtio.memory import faults
from xenvirtio.memory.base import GuestMemory, Mapping

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xenvirtio.memory.segments import Segments

if not cython.compiled:
    from xenvirtio.memory.raw import copy

COMPILED = cython.compiled
FAULT_SIZE = faults.SIZE
ADDRESS_MAX = (1 << 64) - 1

_OUTSIDE = "a buffer lies outside of the guest's memory"


@dataclass(frozen=True)
class Region:
    """`length` bytes at guest address `guest` lie at the local address `local`."""

    guest: int
    length: int
    local: int


def _nothing() -> None:
    """Mappings of regions own nothing."""


class RegionMemory(GuestMemory):
    """Translates by a sorted table. A buffer may span neighbouring regions, wherever those lie for us."""

    def __init__(self, regions: Iterable[Region]) -> None:
        """Raises MemoryViolation if regions are empty, overlap, or end beyond 2^64."""
        super().__init__()
        self.regions = sorted(regions, key=lambda region: region.guest)
        end = 0
        for region in self.regions:
            if region.length <= 0 or region.guest < end or region.guest + region.length > 1 << 64:
                raise MemoryViolation("memory regions overlap, are empty or end beyond the address space")
            end = region.guest + region.length
        self._count = len(self.regions)
        self._last = 0
        self._guest = array("Q", [region.guest for region in self.regions] or [0])
        self._length = array("Q", [region.length for region in self.regions] or [0])
        self._local = array("Q", [region.local for region in self.regions] or [0])

    def map(self, address: int, length: int, writable: bool = True) -> Mapping:  # noqa: ARG002
        r = self._find(address)
        if r < 0 or length > self._length[r] - (address - self._guest[r]):
            raise MemoryViolation(f"{length} bytes at {address:#x} are not within one region of guest memory")
        return Mapping(self._local[r] + (address - self._guest[r]), length, _nothing)

    def begin(self, batch: Segments, first: int = 0) -> int:
        with cython.nogil:
            hole = self._begin(batch, first)
        if hole:
            raise MemoryViolation(_OUTSIDE)
        return 0

    def finish(self, batch: Segments, count: int = -1) -> int:  # noqa: ARG002
        return 0

    def fetch(self, address: int, length: int, destination: int) -> bool:
        if length > 0 and address > ADDRESS_MAX - (length - 1):
            return False
        while length > 0:
            i = self._find(address)
            if i < 0:
                return False
            n = self._length[i] - (address - self._guest[i])
            if n > length:
                n = length
            copy(destination, self._local[i] + (address - self._guest[i]), n)
            address += n
            destination += n
            length -= n
        return True

    def fetch_tables(self, batch: Segments, first: int, destination: int) -> int:
        for i in range(first, batch.count):
            if batch.table_length[i] and not self.fetch(
                batch.table_address[i], batch.table_length[i], destination + batch.table_offset[i]
            ):
                raise MemoryViolation("an indirect table lies outside of the guest's memory")
        return 0

    def _find(self, address: int) -> int:
        """The region that holds `address`; -1 if none does."""
        low = self._last
        if (
            low < self._count
            and address >= self._guest[low]
            and address - self._guest[low] < self._length[low]
        ):
            return low
        low = 0
        high = self._count
        while low < high:
            middle = (low + high) // 2
            if address < self._guest[middle]:
                high = middle
            elif address - self._guest[middle] >= self._length[middle]:
                low = middle + 1
            else:
                self._last = middle
                return middle
        return -1

    def _begin(self, batch: Segments, first: int) -> bool:
        """True if a buffer lies in a hole."""
        for i in range(first, batch.count):
            batch.iov_first[i] = batch.iov_used
            if batch.fault[i]:
                continue
            s = batch.seg_first[i]
            for k in range(batch.seg_read[i] + batch.seg_write[i]):
                result = self._place(
                    batch, i, k >= batch.seg_read[i], batch.seg_address[s + k], batch.seg_length[s + k]
                )
                if result < 0:
                    return True
                if result > 0:
                    batch.no_iovecs(i)
                    if i > 0:
                        batch.truncate(i)
                        return False
                    batch.fault[i] = FAULT_SIZE
                    break
        return False

    def _place(self, batch: Segments, i: int, write: bool, address: int, length: int) -> int:
        """Iovecs for one segment: 0, -1 in a hole, 1 if there is no room."""
        while length > 0:
            r = self._find(address)
            if r < 0:
                return -1
            n = self._length[r] - (address - self._guest[r])
            if n > length:
                n = length
            if not batch.add_iovec(i, write, self._local[r] + (address - self._guest[r]), n):
                return 1
            address += n
            length -= n
        return 0
