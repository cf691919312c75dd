# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Guest memory as queues and devices see it, whatever the way to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import cython

from xenvirtio.memory import faults
from xenvirtio.memory.local import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.memory.segments import Segments

COMPILED = cython.compiled


class Mapping:
    """A long-lived view of guest memory: a ring, the device page. A context manager; may be closed twice.

    address   local address of the first byte asked for
    length    bytes
    """

    def __init__(self, address: int, length: int, release: Callable[[], None]) -> None:
        self.address = address
        self.length = length
        self._release: Callable[[], None] | None = release

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()


class MemoryCounters:
    """What it took: grant copies, their bytes, pages mapped and unmapped, calls of Xen; and of a map cache:
    pages found in it or not, buckets that made room for others, and how often all of it was dropped."""

    def __init__(self) -> None:
        self.grants_copied = self.bytes_copied = self.hypercalls = 0
        self.frames_mapped = self.frames_unmapped = 0
        self.cache_hits = self.cache_misses = self.cache_evictions = self.invalidations = 0

    def as_dict(self) -> dict[str, int]:
        return {
            "grants_copied": self.grants_copied,
            "bytes_copied": self.bytes_copied,
            "frames_mapped": self.frames_mapped,
            "frames_unmapped": self.frames_unmapped,
            "hypercalls": self.hypercalls,
            "mapped_bytes": (self.frames_mapped - self.frames_unmapped) * PAGE_SIZE,
            "cache_hits": self.cache_hits,
            "cache_misses": self.cache_misses,
            "cache_evictions": self.cache_evictions,
            "invalidations": self.invalidations,
        }


class GuestMemory:
    """One guest's memory for one device. The kinds are in regions.py, grant.py and foreign.py."""

    def __init__(self) -> None:
        self.counters = MemoryCounters()

    def map(self, address: int, length: int, writable: bool = True) -> Mapping:
        """A view of `length` bytes at the guest's `address`, contiguous for us. Raises MemoryViolation."""
        raise NotImplementedError

    def begin(self, batch: Segments, first: int = 0) -> int:
        """Make the chains from row `first` on reachable: fill their iovecs; what the device reads is there.

        A chain that cannot be reached gets a fault, the rest goes on. Where there is no room for all of
        them the batch is cut: the chains from there on are to be taken again after others were given back.
        Raises MemoryViolation for an address that no driver may use.
        """
        raise NotImplementedError

    def finish(self, batch: Segments, count: int = -1) -> int:
        """Bring what the device wrote into the first `count` chains (default: all) to the guest, and let go
        of them. A chain for which that fails gets a fault."""
        raise NotImplementedError

    def fetch(self, address: int, length: int, destination: int) -> bool:
        """Copy `length` bytes at the guest's `address` to a local one; False if they cannot be reached."""
        raise NotImplementedError

    def fetch_tables(self, batch: Segments, first: int, destination: int) -> int:
        """Copy the indirect tables of the chains from row `first` on to `destination` + table_offset[i].

        A chain whose table cannot be reached gets a fault.
        """
        for i in range(first, batch.count):
            if batch.table_length[i] and not self.fetch(
                batch.table_address[i], batch.table_length[i], destination + batch.table_offset[i]
            ):
                batch.fault[i] = faults.TABLE
        return 0

    def close(self) -> None:
        """Let go of everything that is not a Mapping."""
