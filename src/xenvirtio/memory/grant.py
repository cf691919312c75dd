# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""Guest memory by grants: address = 1<<63 | grant reference<<12 | offset in the page, references consecutive.

Buffers move by grant copy, one call for a whole batch each way, through a staging arena that every batch has
of its own: a ring, because chains are given back in the order in which they were taken. Rings are mapped. The
guest gives up nothing but the pages that it named, for as long as it wants.

A copy never crosses a page, on either side. Larger segments are staged at the same offset in a page as they
have in the guest, so a page is one copy, and what is aligned in the guest is aligned for us (O_DIRECT).
"""

from __future__ import annotations

from array import array
from functools import partial
from typing import TYPE_CHECKING

import cython

from xenvirtio.errors import MemoryViolation, XenError
from xenvirtio.memory import faults
from xenvirtio.memory.arena import STAGING_BYTES
from xenvirtio.memory.base import GuestMemory, Mapping
from xenvirtio.memory.local import PAGE_SIZE, LocalMemory
from xenvirtio.spec import grants

if TYPE_CHECKING:
    from xenvirtio.memory.interfaces import GrantTable
    from xenvirtio.memory.segments import Segments

if not cython.compiled:
    from xenvirtio.memory.arena import Arena
    from xenvirtio.memory.raw import load16, store8, store16, store32, store64

COMPILED = cython.compiled

FAULT_MEMORY = faults.MEMORY
FAULT_TABLE = faults.TABLE
FAULT_SIZE = faults.SIZE
NO_STATUS = faults.NO_STATUS
REF_MAX = (1 << 32) - 1
SPAN_MAX = (1 << 44) - 1  # reference and offset together
NO_ROOM = 1

_NO_GRANT = "an address is not one of a grant (bit 63, 32 bits of reference, 12 bits of offset)"

assert (grants.COPY_SIZE, grants.COPY_DEST, grants.COPY_LEN) == (24, 8, 16)  # as _add lays them out


class GrantMemory(GuestMemory):
    """One guest's granted pages, through a `GrantTable`."""

    def __init__(self, table: GrantTable, domid: int, staging_bytes: int = STAGING_BYTES) -> None:
        """`staging_bytes` for each batch: what is not used is never touched. The table stays the caller's."""
        super().__init__()
        self.table = table
        self.domid = domid
        self._staging_bytes = staging_bytes
        self._count = 0
        self._room = 64
        self._memory = LocalMemory(24 * self._room)
        self._ops = self._memory.address
        self._row = array("I", bytes(4 * self._room))

    def map(self, address: int, length: int, writable: bool = True) -> Mapping:
        if length == 0 or not self._granted(address, length):
            raise MemoryViolation(_NO_GRANT)
        offset = address % PAGE_SIZE
        first = address >> 12 & 0xFFFFFFFF
        count = -(-(offset + length) // PAGE_SIZE)
        try:
            local = self.table.map(range(first, first + count), self.domid, writable)
        except XenError as error:
            raise MemoryViolation(
                f"grants {first} to {first + count - 1} cannot be mapped: {error}"
            ) from error
        self.counters.hypercalls += 1
        self.counters.frames_mapped += count
        return Mapping(local + offset, length, partial(self._unmap, local, count))

    def begin(self, batch: Segments, first: int = 0) -> int:
        if batch.staging is None:
            batch.staging = Arena(self._staging_bytes)
        arena = batch.staging
        assert isinstance(arena, Arena)
        self._reserve(2 * (arena.length // 4096) + 4 * batch.segments)
        self._count = 0
        with cython.nogil:
            bad = self._stage(batch, arena, first)
        if bad:
            raise MemoryViolation(_NO_GRANT)
        self._run(0)
        with cython.nogil:
            self._check_reads(batch)
        return 0

    def finish(self, batch: Segments, count: int = -1) -> int:
        if count < 0:
            count = batch.count
        arena = batch.staging
        if count == 0 or arena is None:
            return 0
        assert isinstance(arena, Arena)
        self._reserve(2 * (arena.length // 4096) + 4 * batch.segments + batch.chains)
        self._count = 0
        with cython.nogil:
            self._collect_writes(batch, count)
        self._run(0)
        with cython.nogil:
            done = self._check_writes(batch)
        self._run(done)
        arena.head = batch.staged[count - 1]
        return 0

    def fetch(self, address: int, length: int, destination: int) -> bool:
        if not self._granted(address, length):
            return False
        self._reserve(2 * (length // 4096 + 2))
        self._count = 0
        self._add(False, address, destination, length, 0)
        self._run(0)
        for i in range(self._count):  # noqa: SIM110 (no closures in compiled code)
            if load16(self._ops + 24 * i + 20) != 0:
                return False
        return True

    def fetch_tables(self, batch: Segments, first: int, destination: int) -> int:
        self._count = 0
        for i in range(first, batch.count):
            if batch.table_length[i] == 0:
                continue
            if not self._granted(batch.table_address[i], batch.table_length[i]):
                raise MemoryViolation(_NO_GRANT)
            self._reserve(self._count + 2 * (batch.table_length[i] // 4096 + 2))
            self._add(
                False, batch.table_address[i], destination + batch.table_offset[i], batch.table_length[i], i
            )
        self._run(0)
        for k in range(self._count):
            if load16(self._ops + 24 * k + 20) != 0:
                batch.fault[self._row[k]] = FAULT_TABLE
        return 0

    def _unmap(self, local: int, count: int) -> None:
        self.table.unmap(local, count)
        self.counters.hypercalls += 1
        self.counters.frames_unmapped += count

    def _reserve(self, count: int) -> int:
        """Room for `count` copies; those already collected are kept."""
        if count > self._room:
            memory = LocalMemory(24 * count)
            row = array("I", bytes(4 * count))
            if self._count:
                store = self._count * 24
                memory.write(0, self._memory.read(0, store))
                for k in range(self._count):
                    row[k] = self._row[k]
            self._memory = memory
            self._ops = memory.address
            self._row = row
            self._room = count
        return 0

    def _run(self, first: int) -> int:
        """Do the copies collected from number `first` on."""
        if self._count > first:
            self.table.copy(self._ops + 24 * first, self._count - first)
            self.counters.hypercalls += 1
            for k in range(first, self._count):
                if load16(self._ops + 24 * k + 20) == 0:
                    self.counters.grants_copied += 1
                    self.counters.bytes_copied += load16(self._ops + 24 * k + 16)
        return 0

    def _add(self, out: bool, address: int, local: int, length: int, row: int) -> None:
        """Collect the copies between `length` granted bytes at `address` and ours; `out`: to the guest."""
        ref = address >> 12 & REF_MAX
        offset = address & 4095
        while length > 0:
            n = 4096 - (local & 4095)
            if n > 4096 - offset:
                n = 4096 - offset
            if n > length:
                n = length
            at = self._ops + 24 * self._count
            granted = at + 8 if out else at
            ours = at if out else at + 8
            store64(ours, local)
            store32(granted, ref)
            store16(granted + 4, offset)
            store16(granted + 6, self.domid)
            store16(at + 16, n)
            store16(at + 18, 2 if out else 1)
            store16(at + 20, 1)  # no status that Xen returns: what was not done counts as failed
            self._row[self._count] = row
            self._count += 1
            local += n
            length -= n
            offset += n
            if offset == 4096:
                offset = 0
                ref += 1

    def _granted(self, address: int, length: int) -> bool:
        """Is every byte's address one of a grant? `length` is not 0."""
        if address >> 44 != 1 << 19:
            return False
        return (address & SPAN_MAX) + (length - 1) <= SPAN_MAX

    def _stage(self, batch: Segments, arena: Arena, first: int) -> bool:
        """Room and iovecs for the chains from `first` on, and copies of what the device reads. True if an
        address is not of a grant."""
        if first == 0:
            arena.head = 0
            arena.tail = 0
        for i in range(first, batch.count):
            batch.iov_first[i] = batch.iov_used
            start = arena.tail
            if batch.fault[i] == 0:
                result = self._stage_chain(batch, arena, i)
                if result < 0:
                    return True
                if result == NO_ROOM:
                    batch.no_iovecs(i)
                    arena.tail = start
                    if i > 0:
                        batch.truncate(i)
                        return False
                    batch.fault[i] = FAULT_SIZE
                    self._stage_status(batch, arena, i)
            batch.staged[i] = arena.tail
        return False

    def _stage_chain(self, batch: Segments, arena: Arena, i: int) -> int:
        """0, NO_ROOM, or -1 for an address that is not of a grant. Copies are collected only if all fits."""
        s = batch.seg_first[i]
        for k in range(batch.seg_read[i] + batch.seg_write[i]):
            if not self._granted(batch.seg_address[s + k], batch.seg_length[s + k]):
                return -1
            local = arena.place(batch.seg_length[s + k], batch.seg_address[s + k] & 4095)
            batch.seg_local[s + k] = local
            if local == 0 or not batch.add_iovec(i, k >= batch.seg_read[i], local, batch.seg_length[s + k]):
                return NO_ROOM
        for k in range(batch.seg_read[i]):
            self._add(False, batch.seg_address[s + k], batch.seg_local[s + k], batch.seg_length[s + k], i)
        return 0

    def _stage_status(self, batch: Segments, arena: Arena, i: int) -> None:
        """A chain too large to stage can still be answered, if its last segment is small."""
        s = batch.seg_first[i] + batch.seg_read[i]
        for k in range(batch.seg_write[i]):
            local = 0
            if k + 1 == batch.seg_write[i] and batch.seg_length[s + k] <= 4096:
                local = arena.place(batch.seg_length[s + k], batch.seg_address[s + k] & 4095)
            batch.seg_local[s + k] = local
            if not batch.add_iovec(i, True, local, batch.seg_length[s + k]):
                batch.no_iovecs(i)
                return

    def _check_reads(self, batch: Segments) -> None:
        """Chains whose readable part did not come get a fault, and nothing to read."""
        for k in range(self._count):
            if load16(self._ops + 24 * k + 20) == 0:
                continue
            i = self._row[k]
            batch.fault[i] = FAULT_MEMORY
            for r in range(batch.iov_first[i], batch.iov_first[i] + batch.iov_read[i]):
                batch.iov[2 * r] = 0

    def _collect_writes(self, batch: Segments, count: int) -> None:
        for i in range(count):
            left = batch.written[i]
            if left > batch.write_bytes[i]:
                left = batch.write_bytes[i]
            if batch.fault[i]:
                if left > 0 and left == batch.write_bytes[i]:
                    self._last_byte(batch, i, NO_STATUS)
                continue
            s = batch.seg_first[i] + batch.seg_read[i]
            for k in range(batch.seg_write[i]):
                n = batch.seg_length[s + k]
                if n > left:
                    n = left
                self._add(True, batch.seg_address[s + k], batch.seg_local[s + k], n, i)
                left -= n

    def _last_byte(self, batch: Segments, i: int, status: int) -> None:
        """Copy chain `i`'s last writable byte, after it became `status`, if that is one."""
        if batch.seg_write[i] == 0:
            return
        s = batch.seg_first[i] + batch.seg_read[i] + batch.seg_write[i] - 1
        n = batch.seg_length[s] - 1
        if batch.seg_local[s] == 0:
            return
        if status != NO_STATUS:
            store8(batch.seg_local[s] + n, status & 0xFF)
        self._add(True, batch.seg_address[s] + n, batch.seg_local[s] + n, 1, i)

    def _check_writes(self, batch: Segments) -> int:
        """Chains whose written part did not all arrive get a fault, and the status that the device chose for
        that. Returns how many copies were checked; those after them are still to be done."""
        done = self._count
        for k in range(done):
            i = self._row[k]
            if load16(self._ops + 24 * k + 20) == 0 or batch.fault[i]:
                continue
            batch.fault[i] = FAULT_MEMORY
            if batch.on_fault[i] == NO_STATUS:
                batch.written[i] = 0  # no status says it: the length must (XB-81)
            elif batch.written[i] >= batch.write_bytes[i]:
                self._last_byte(batch, i, batch.on_fault[i])
        return done
