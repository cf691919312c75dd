# cython: language_level=3, annotation_typing=False
"""Guest memory by foreign mapping: address = frame<<12 | offset (PV: machine frames, else guest frames).

By default the frames of each chain are mapped when it is taken and unmapped when it is given back, never
longer: what a chain names is the guest's buffer just so long. A frame that stays mapped may change its
meaning below us (ballooning), and in a PV guest it must not: Xen counts our writable mapping as a use of the
frame as data, so the guest dies of making a page table of it. What the device only reads is mapped read-only,
which is no such use; a chain has two mappings at most.

A guest whose invalidations reach us (`invalidate`) can have its frames cached; foreign_cache.py says why,
and why no other. A chain for which the cache has no room is served as without one.

A page that cannot be mapped has an error of its own and is a hole: a fault of the chains that name it, and
of no others. What lies apart for us becomes several iovecs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import cython

from xenvirtio.errors import MemoryViolation, XenError
from xenvirtio.memory import faults
from xenvirtio.memory.base import GuestMemory, Mapping
from xenvirtio.memory.foreign_cache import BUCKET_PAGES, NO_ROOM, FrameCache, FrameMaps, Frames
from xenvirtio.memory.local import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.memory.interfaces import ForeignMapper
    from xenvirtio.memory.segments import Segments

if not cython.compiled:
    from xenvirtio.memory.raw import copy

COMPILED = cython.compiled

FAULT_MEMORY = faults.MEMORY
FAULT_SIZE = faults.SIZE

#: pages mapped for chains at a time, beside cache and rings: 256 MiB
CHAIN_PAGES_MAX = 65536


class ForeignMemory(GuestMemory):
    """One guest's frames, through a `ForeignMapper`."""

    def __init__(
        self,
        mapper: ForeignMapper,
        domid: int,
        cache_bytes: int = 0,
        bucket_pages: int = BUCKET_PAGES,
        chain_pages: int = CHAIN_PAGES_MAX,
    ) -> None:
        """Caches at most `cache_bytes` (0: nothing), and maps at most `chain_pages` for chains, beside the
        rings. The mapper stays the caller's. With a cache it is the caller who has `invalidate` called."""
        super().__init__()
        self._maps = FrameMaps(mapper, domid, self.counters)
        self._cache = FrameCache(self._maps, cache_bytes, bucket_pages) if cache_bytes else None
        self._chain_pages = chain_pages

    def map(self, address: int, length: int, writable: bool = True) -> Mapping:
        offset = address % PAGE_SIZE
        count = -(-(offset + length) // PAGE_SIZE)
        if count == 0 or count > self._chain_pages:
            raise MemoryViolation(f"{length} bytes at {address:#x} cannot be mapped")
        frames = range(address >> 12, (address >> 12) + count)
        held = Frames()  # not one that goes at `close`
        try:
            first, errors = self._maps.map(held, frames, writable)
        except XenError as error:
            raise MemoryViolation(f"frames from {address >> 12:#x} cannot be mapped: {error}") from error
        if any(errors):
            bad = [frame for frame, error in zip(frames, errors, strict=True) if error]
            self._maps.unmap(held)
            raise MemoryViolation(f"frame {bad[0]:#x} cannot be mapped")
        return Mapping(first + offset, length, partial(self._maps.unmap, held))

    def begin(self, batch: Segments, first: int = 0) -> int:
        if batch.staging is None:
            batch.staging = []
        users = batch.staging
        assert isinstance(users, list)
        if first == 0:  # chains that were dropped without being given back
            self._release_all(users, len(users))
        for i in range(first, batch.count):
            batch.iov_first[i] = batch.iov_used
            held: list[Frames] = []
            if batch.fault[i] == 0 and not self._reach(batch, i, held):
                batch.no_iovecs(i)
                self._maps.release(held)
                held = []
                if i > 0:
                    batch.truncate(i)
                    break
                batch.fault[i] = FAULT_SIZE
            users.append(held)
        return 0

    def finish(self, batch: Segments, count: int = -1) -> int:
        if count < 0:
            count = batch.count
        users = batch.staging
        if isinstance(users, list):
            self._release_all(users, count)
        return 0

    def fetch(self, address: int, length: int, destination: int) -> bool:
        held: list[Frames] = []
        try:
            frames = range(address >> 12, ((address + length - 1) >> 12) + 1)
            if len(frames) > self._chain_pages:
                return False
            found = self._find_all(frames, held)
            if found is None:
                own = self._map_own(frames, (), held)
                found = [own.pages.get(frame, 0) for frame in frames]
            if 0 in found:
                return False
            for local in found:
                offset = address & 4095
                size = min(length, PAGE_SIZE - offset)
                copy(destination, local + offset, size)
                address += size
                length -= size
                destination += size
            return True
        finally:
            self._maps.release(held)

    def invalidate(self) -> None:
        """The guest's frames changed: drop what is cached, what is in use when its chains are given back."""
        self.counters.invalidations += 1
        if self._cache is not None:
            self._cache.invalidate()

    def close(self) -> None:
        """Unmap everything but Mappings, also what batches use: they are of no use then."""
        if self._cache is not None:
            self._cache.invalidate()
        self._maps.close()

    def _find_all(self, frames: Sequence[int], held: list[Frames]) -> list[int] | None:
        """Where frames are in the cache, 0 for holes; None if there is no cache, or not the room."""
        if self._cache is None:
            return None
        found = []
        for frame in frames:
            local = self._cache.find(frame, held)
            if local == NO_ROOM:
                return None
            found.append(local)
        return found

    def _reach(self, batch: Segments, i: int, held: list[Frames]) -> bool:
        """Iovecs for chain `i`; a hole is a fault. False if there is no room."""
        pages = _pages(batch, i)
        if self._maps.own_pages + pages > self._chain_pages:
            return False
        if self._cache is not None:
            filled = self._fill(batch, i, held, None)
            if filled != NO_ROOM:
                return filled > 0
            batch.no_iovecs(i)
            batch.fault[i] = 0
            self._maps.release(held)
            held.clear()
        first = batch.seg_first[i]
        written = _frames_of(batch, first + batch.seg_read[i], batch.seg_write[i])
        read = _frames_of(batch, first, batch.seg_read[i]) - written
        return self._fill(batch, i, held, self._map_own(sorted(read), sorted(written), held)) > 0

    def _fill(self, batch: Segments, i: int, held: list[Frames], own: Frames | None) -> int:
        """Iovecs from the chain's `own` frames, or from buckets, which are added to `held`.

        1, or 0 if there are not enough iovecs, or NO_ROOM if every bucket is in use.
        """
        s = batch.seg_first[i]
        for k in range(batch.seg_read[i] + batch.seg_write[i]):
            write = k >= batch.seg_read[i]
            address = batch.seg_address[s + k]
            length = batch.seg_length[s + k]
            while length > 0:
                offset = address & 4095
                size = PAGE_SIZE - offset
                if size > length:
                    size = length
                frame = address >> 12
                local = 0
                if own is not None:
                    local = own.pages.get(frame, 0)
                elif self._cache is not None:
                    local = self._cache.find(frame, held)
                if local == NO_ROOM:
                    return NO_ROOM
                if local == 0:
                    batch.fault[i] = FAULT_MEMORY
                else:
                    local += offset
                if not batch.add_iovec(i, write, local, size):
                    return 0
                address += size
                length -= size
        return 1

    def _map_own(self, read: Sequence[int], written: Sequence[int], held: list[Frames]) -> Frames:
        """Frames for one chain only, which holds them; those in `read` cannot be written."""
        own = Frames()
        self._maps.hold(own)
        own.users += 1
        own.own_pages = len(read) + len(written)
        self._maps.own_pages += own.own_pages
        held.append(own)
        self._maps.map_pages(own, read, False)
        self._maps.map_pages(own, written, True)
        return own

    def _release_all(self, users: list[list[Frames]], count: int) -> None:
        for held in users[:count]:
            self._maps.release(held)
        del users[:count]


def _pages(batch: Segments, i: int) -> int:
    """Pages that chain `i` touches, at most."""
    s = batch.seg_first[i]
    total = 0
    for k in range(batch.seg_read[i] + batch.seg_write[i]):
        total += (batch.seg_length[s + k] >> 12) + 2
    return total


def _frames_of(batch: Segments, first: int, count: int) -> set[int]:
    """The frames of `count` segments."""
    frames: set[int] = set()
    for s in range(first, first + count):
        address = batch.seg_address[s]
        frames.update(range(address >> 12, ((address + batch.seg_length[s] - 1) >> 12) + 1))
    return frames
