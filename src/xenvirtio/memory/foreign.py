# cython: language_level=3, annotation_typing=False
"""Guest memory by foreign mapping: address = frame<<12 | offset (PV: machine frames, else guest frames).

By default the frames of each chain are mapped when it is taken and unmapped when it is given back, never
longer: what a chain names is the guest's buffer just so long. A frame that stays mapped may change its
meaning below us (ballooning), and in a PV guest it must not: Xen counts our writable mapping as a use of the
frame as data, so the guest dies of making a page table of it. What the device only reads is mapped read-only,
which is no such use; a chain has two mappings at most.

A guest whose invalidations reach us (`invalidate`) can have its frames `cached`, in aligned buckets, least
recently used ones going first. Neighbours in a bucket may not be the guest's: each page has its own error, a
page with one is a hole, and a hole is tried again when it is asked for. What lies apart for us becomes
several iovecs.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

import cython

from xenvirtio.errors import MemoryViolation, XenError
from xenvirtio.memory import faults
from xenvirtio.memory.base import GuestMemory, Mapping
from xenvirtio.memory.local import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xenvirtio.memory.interfaces import ForeignMapper
    from xenvirtio.memory.segments import Segments

if not cython.compiled:
    from xenvirtio.memory.raw import copy

COMPILED = cython.compiled

FAULT_MEMORY = faults.MEMORY
FAULT_SIZE = faults.SIZE


class _Frames:
    """Frames mapped together, and how many chains use them."""

    def __init__(self) -> None:
        self.pages: dict[int, int] = {}  # frame → local address, holes are not in it
        self.mapped: list[tuple[int, int]] = []  # what to unmap: address, pages
        self.users = 0
        self.kept = True  # in the cache
        self.own_pages = 0  # asked for by the one chain that has them


class ForeignMemory(GuestMemory):
    """One guest's frames, through a `ForeignMapper`."""

    def __init__(
        self,
        mapper: ForeignMapper,
        domid: int,
        cached: bool = False,
        bucket_pages: int = 64,
        buckets: int = 1024,
    ) -> None:
        """At most `buckets` times `bucket_pages` are mapped beside the rings (by default 256 MiB), whether
        cached or not. The mapper stays the caller's."""
        super().__init__()
        self.mapper = mapper
        self.domid = domid
        self.cached = cached
        self._bucket_pages = bucket_pages
        self._buckets_max = buckets
        self._buckets: OrderedDict[int, _Frames] = OrderedDict()
        self._live: set[_Frames] = set()
        self._own_pages = 0  # of chains, where nothing is cached

    def map(self, address: int, length: int, writable: bool = True) -> Mapping:
        offset = address % PAGE_SIZE
        count = -(-(offset + length) // PAGE_SIZE)
        if count == 0 or count > self._bucket_pages * self._buckets_max:
            raise MemoryViolation(f"{length} bytes at {address:#x} cannot be mapped")
        frames = range(address >> 12, (address >> 12) + count)
        held = _Frames()
        try:
            errors = self._map(held, frames, writable)
        except XenError as error:
            raise MemoryViolation(f"frames from {address >> 12:#x} cannot be mapped: {error}") from error
        if any(errors):
            bad = [frame for frame in frames if frame not in held.pages]
            self._unmap(held)
            raise MemoryViolation(f"frame {bad[0]:#x} cannot be mapped")
        return Mapping(held.mapped[0][0] + offset, length, partial(self._unmap, held))

    def begin(self, batch: Segments, first: int = 0) -> int:
        if batch.staging is None:
            batch.staging = []
        users = batch.staging
        assert isinstance(users, list)
        if first == 0:  # chains that were dropped without being given back
            self._release_all(users, len(users))
        limit = self._bucket_pages * self._buckets_max
        for i in range(first, batch.count):
            batch.iov_first[i] = batch.iov_used
            held: list[_Frames] = []
            if batch.fault[i] == 0 and not self._reach(batch, i, held, limit):
                batch.no_iovecs(i)
                self._release(held)
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
        held: list[_Frames] = []
        try:
            if -(-length // PAGE_SIZE) > self._bucket_pages * self._buckets_max:
                return False
            own = None
            if not self.cached:
                own = self._map_own(range(address >> 12, ((address + length - 1) >> 12) + 1), (), held)
            pieces = list(self._pieces(address, length, held, own))
            if min([base for base, _ in pieces], default=0) <= 0:
                return False
            for base, size in pieces:
                copy(destination, base, size)
                destination += size
            return True
        finally:
            self._release(held)

    def invalidate(self) -> None:
        """The guest's frames changed: drop every mapping, those in use when their chains are given back."""
        for held in self._buckets.values():
            held.kept = False
            if held.users == 0:
                self._unmap(held)
        self._buckets.clear()

    def close(self) -> None:
        """Unmap everything but Mappings, also what batches use: they are of no use then."""
        self.invalidate()
        for held in list(self._live):
            self._unmap(held)

    def _reach(self, batch: Segments, i: int, held: list[_Frames], limit: int) -> bool:
        """Iovecs for chain `i`; a hole is a fault. False if there is no room."""
        pages = _pages(batch, i)
        if pages > limit:
            return False
        own = None
        if not self.cached:
            if self._own_pages + pages > limit:
                return False
            first = batch.seg_first[i]
            written = _frames_of(batch, first + batch.seg_read[i], batch.seg_write[i])
            read = _frames_of(batch, first, batch.seg_read[i]) - written
            own = self._map_own(sorted(read), sorted(written), held)
        s = batch.seg_first[i]
        for k in range(batch.seg_read[i] + batch.seg_write[i]):
            write = k >= batch.seg_read[i]
            for base, size in self._pieces(batch.seg_address[s + k], batch.seg_length[s + k], held, own):
                if base < 0 or not batch.add_iovec(i, write, base, size):
                    return False
                if base == 0:
                    batch.fault[i] = FAULT_MEMORY
        return True

    def _pieces(
        self, address: int, length: int, held: list[_Frames], own: _Frames | None
    ) -> Iterator[tuple[int, int]]:
        """Where the pages of a segment lie for us: (local address, bytes); address 0 in a hole, -1 if every
        bucket is in use. Frames not among the chain's `own` are in buckets, which are added to `held`."""
        while length > 0:
            frame = address >> 12
            offset = address & 4095
            size = min(length, PAGE_SIZE - offset)
            bucket = own if own is not None else self._bucket(frame, held)
            if bucket is None:
                yield -1, size
                return
            local = bucket.pages.get(frame, 0)
            yield (local + offset if local else 0), size
            address += size
            length -= size

    def _bucket(self, frame: int, held: list[_Frames]) -> _Frames | None:
        """The bucket of `frame`, in use by the chain that holds `held`; None if there is no room for it."""
        number = frame // self._bucket_pages
        bucket = self._buckets.get(number)
        if bucket is None:
            if len(self._buckets) >= self._buckets_max and not self._evict():
                return None
            start = number * self._bucket_pages
            bucket = self._buckets[number] = self._hold()
            self._try(bucket, range(start, start + self._bucket_pages), True)
        else:
            self._buckets.move_to_end(number)
            if frame not in bucket.pages:
                self._try(bucket, [frame], True)
        if bucket not in held:
            bucket.users += 1
            held.append(bucket)
        return bucket

    def _evict(self) -> bool:
        for number, bucket in self._buckets.items():
            if bucket.users == 0:
                del self._buckets[number]
                self._unmap(bucket)
                return True
        return False

    def _map_own(self, read: Sequence[int], written: Sequence[int], held: list[_Frames]) -> _Frames:
        """Frames for one chain only, which holds them; those in `read` cannot be written."""
        own = self._hold()
        own.kept = False
        own.users += 1
        own.own_pages = len(read) + len(written)
        self._own_pages += own.own_pages
        held.append(own)
        self._try(own, read, False)
        self._try(own, written, True)
        return own

    def _hold(self) -> _Frames:
        held = _Frames()
        self._live.add(held)
        return held

    def _try(self, held: _Frames, frames: Sequence[int], writable: bool) -> None:
        """Map frames into `held`; what cannot be mapped, even all of it, is holes."""
        try:
            if frames:
                self._map(held, frames, writable)
        except XenError:
            return

    def _map(self, held: _Frames, frames: Sequence[int], writable: bool) -> list[int]:
        address, errors = self.mapper.map(frames, self.domid, writable)
        self.counters.hypercalls += 1
        good = [k for k, error in enumerate(errors) if error == 0]
        self.counters.frames_mapped += len(good)
        if not good and len(frames) == 1:  # a hole tried again and again must not pile up
            self.mapper.unmap(address, len(frames))
            self.counters.hypercalls += 1
            return errors
        held.mapped.append((address, len(frames)))
        for k in good:
            held.pages[frames[k]] = address + k * PAGE_SIZE
        return errors

    def _release_all(self, users: list[list[_Frames]], count: int) -> None:
        for held in users[:count]:
            self._release(held)
        del users[:count]

    def _release(self, held: list[_Frames]) -> None:
        for frames in held:
            frames.users -= 1
            if frames.users == 0 and not frames.kept:
                self._unmap(frames)

    def _unmap(self, held: _Frames) -> None:
        self.counters.frames_unmapped += len(held.pages)
        for address, pages in held.mapped:
            self.mapper.unmap(address, pages)
            self.counters.hypercalls += 1
        self._own_pages -= held.own_pages
        held.own_pages = 0
        held.mapped.clear()
        held.pages.clear()
        self._live.discard(held)


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
