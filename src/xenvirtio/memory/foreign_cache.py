# cython: language_level=3, annotation_typing=False
"""Frames of a guest that stay mapped from one request to the next: aligned buckets, least recently used first
out.

Which guests may be cached. In an HVM or PVH guest a frame number is a key in the guest's p2m, and what it
stands for can change below a mapping, which then silently reads and writes a page that is the guest's no
more. Xen (4.15 and later; read in 4.17 and 4.20, xen/arch/x86/mm/p2m.c) asks every enabled IOREQ server to
INVALIDATE whenever an entry that was RAM goes, and the vCPU that did it waits for the answers before it
runs on:

- p2m_remove_entry: XENMEM_decrease_reservation (ballooning), XENMEM_remove_from_physmap, a grant unmapped,
  and XENMEM_add_to_physmap for both the place that is overwritten and the one that a frame moves from;
- set_typed_p2m_entry, and what populate-on-demand takes back.

What comes without INVALIDATE, and why it does no harm:

- a hole is filled (XENMEM_populate_physmap at balloon-up, a grant mapped there). A hole is never kept: its
  page has an error of its own and is tried again whenever it is asked for. Frames that were never RAM, and
  frames which another domain granted (they are not this guest's to map), are such holes;
- RAM is populated or grant-mapped over (p2m_add_page): the old page is not freed, the guest just loses it.
  No honest guest does, it balloons out first; one that does reads its own lost page;
- the toolstack removes a frame: its vCPUs tell at their next hypercall. Nothing that serves a running guest
  does that (xl mem-set asks the guest, which balloons).

So a cache is dropped as a whole at INVALIDATE, before that is answered (worker/invalidation.py); what
chains use just then is unmapped when they are given back: an honest guest does not give away pages that are
on the ring. The other pages of such a bucket are not looked at any more, but not given back to Xen either:
the 256 receive buffers of an idle NIC, each in a bucket of its own, would hold 32 MiB of a guest that
balloons down. That is why buckets are no larger.

PV guests have no IOREQ servers, and none would help. Machine frames do not change below a mapping, which
holds the page; but a guest notices that it is held. A writable mapping holds its type
(docs/virtio-xenbus.md, XB-79). A read-only one holds a reference: what is ballooned out is not given back
to Xen (measured: 86 MiB stayed until they were unmapped, then came at once), and XENMEM_exchange refuses the
page (read: steal_page, xen/arch/x86/mm.c), so that Linux is denied contiguous memory for DMA where it would
have to make it of frames that once were buffers. Ageing would mend the first, and make the second rare and
hard to explain. So PV guests are not cached.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import cython

from xenvirtio.errors import XenError
from xenvirtio.memory.local import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.memory.base import MemoryCounters
    from xenvirtio.memory.interfaces import ForeignMapper

COMPILED = cython.compiled

#: 128 KiB: one call of Xen costs about the same for 1 page and for 32
BUCKET_PAGES = 32
#: `FrameCache.find`: every bucket is in use
NO_ROOM = -1


class Frames:
    """Frames mapped together, and how many chains use them."""

    def __init__(self) -> None:
        self.pages: dict[int, int] = {}  # frame → local address, holes are not in it
        self.mapped: list[tuple[int, int]] = []  # what to unmap: address, pages
        self.count = 0  # of pages that are no holes
        self.users = 0
        self.kept = False  # in the cache
        self.own_pages = 0  # asked for by the one chain that has them


class Bucket(Frames):
    """Neighbours in a cache: where the first lies, and which are no holes. Holes that were filled later are
    in `pages`."""

    def __init__(self, pages: int) -> None:
        super().__init__()
        self.base = 0
        self.good = bytes(pages)  # 1 for each that is no hole
        self.kept = True


class FrameMaps:
    """One guest's frames, mapped and unmapped in groups, and counted."""

    def __init__(self, mapper: ForeignMapper, domid: int, counters: MemoryCounters) -> None:
        self.mapper = mapper
        self.domid = domid
        self.counters = counters
        self.own_pages = 0
        self._live: set[Frames] = set()

    def hold(self, held: Frames) -> None:
        """What is mapped for `held` goes at `close`, if not before."""
        self._live.add(held)

    def map(self, held: Frames, frames: Sequence[int], writable: bool) -> tuple[int, list[int]]:
        """Map frames into `held`: the first one's address, 0 or a negative errno for each. Raises
        XenError."""
        address, errors = self.mapper.map(frames, self.domid, writable)
        self.counters.hypercalls += 1
        good = errors.count(0)
        if good:
            held.mapped.append((address, len(frames)))
            held.count += good
            self.counters.frames_mapped += good
        else:  # a hole tried again and again must not pile up
            self.mapper.unmap(address, len(frames))
            self.counters.hypercalls += 1
        return address, errors

    def map_pages(self, held: Frames, frames: Sequence[int], writable: bool) -> None:
        """Map frames into `held.pages`; what cannot be mapped, even all of it, is holes."""
        if not frames:
            return
        try:
            address, errors = self.map(held, frames, writable)
        except XenError:
            return
        for k, error in enumerate(errors):
            if error == 0:
                held.pages[frames[k]] = address + k * PAGE_SIZE

    def release(self, users: list[Frames]) -> None:
        """A chain is done with these."""
        for held in users:
            held.users -= 1
            if held.users == 0 and not held.kept:
                self.unmap(held)

    def unmap(self, held: Frames) -> None:
        """Whoever uses it; may be called twice."""
        self.counters.frames_unmapped += held.count
        for address, pages in held.mapped:
            self.mapper.unmap(address, pages)
            self.counters.hypercalls += 1
        self.own_pages -= held.own_pages
        held.own_pages = held.count = 0
        held.mapped.clear()
        held.pages.clear()
        self._live.discard(held)

    def close(self) -> None:
        """Unmap every group."""
        for held in list(self._live):
            self.unmap(held)


class FrameCache:
    """At most `limit` bytes of a guest, in buckets of `bucket_pages`."""

    def __init__(self, maps: FrameMaps, limit: int, bucket_pages: int = BUCKET_PAGES) -> None:
        self._maps = maps
        self._counters = maps.counters
        self._bucket_pages = bucket_pages
        self._buckets_max = max(1, limit // (bucket_pages * PAGE_SIZE))
        self._buckets: OrderedDict[int, Bucket] = OrderedDict()

    def find(self, frame: int, held: list[Frames]) -> int:
        """The local address of a frame; 0 for a hole. The chain that holds `held` uses its bucket from now
        on.

        NO_ROOM if there is no bucket to be had.
        """
        number = frame // self._bucket_pages
        k = frame % self._bucket_pages
        bucket = self._buckets.get(number)
        if bucket is None:
            if len(self._buckets) >= self._buckets_max and not self._evict():
                return NO_ROOM
            bucket = self._new(number)
            self._counters.cache_misses += 1
        else:
            self._buckets.move_to_end(number)
            if bucket.good[k] or frame in bucket.pages:
                self._counters.cache_hits += 1
            else:
                self._counters.cache_misses += 1
                self._maps.map_pages(bucket, [frame], True)
        if bucket not in held:
            bucket.users += 1
            held.append(bucket)
        if bucket.good[k]:
            return bucket.base + k * PAGE_SIZE
        return bucket.pages.get(frame, 0)

    def _new(self, number: int) -> Bucket:
        start = number * self._bucket_pages
        bucket = Bucket(self._bucket_pages)
        with contextlib.suppress(XenError):  # else holes, each to be tried by itself
            bucket.base, errors = self._maps.map(bucket, range(start, start + self._bucket_pages), True)
            bucket.good = bytes(error == 0 for error in errors)
        self._maps.hold(bucket)
        self._buckets[number] = bucket
        return bucket

    def invalidate(self) -> None:
        """Drop every bucket; those in use are unmapped when their chains are given back."""
        for bucket in self._buckets.values():
            bucket.kept = False
            if bucket.users == 0:
                self._maps.unmap(bucket)
        self._buckets.clear()

    def _evict(self) -> bool:
        for number, bucket in self._buckets.items():
            if bucket.users == 0:
                del self._buckets[number]
                self._maps.unmap(bucket)
                self._counters.cache_evictions += 1
                return True
        return False
