# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""The walk through a queue's chains (virtio 1.3 §2.7.5), descriptor by descriptor, each read once, checked.

A chain in the descriptor table is never longer than the queue. Nor may one be with an indirect table (virtio
1.3 §2.7.5.3.1), but Linux keeps its drivers from that only for the size that the device offers, and makes the
ring smaller when it is short of memory (drivers/virtio/virtio_ring.c, vring_alloc_queue_split). So a chain
that ends in a table may have TABLE_MAX descriptors in any queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cython

from xenvirtio.memory.local import LocalMemory
from xenvirtio.queue import rules
from xenvirtio.spec import virtio

if TYPE_CHECKING:
    from xenvirtio.queue.batch import Batch

if not cython.compiled:
    from xenvirtio.memory.raw import load16, load32, load64

COMPILED = cython.compiled

HEAD = rules.HEAD
NEXT = rules.NEXT
LOOP = rules.LOOP
ORDER = rules.ORDER
OVERFLOW = rules.OVERFLOW
BYTES = rules.BYTES
INDIRECT_OFF = rules.INDIRECT_OFF
INDIRECT_NEXT = rules.INDIRECT_NEXT
INDIRECT_LENGTH = rules.INDIRECT_LENGTH
INDIRECT_HUGE = rules.INDIRECT_HUGE
INDIRECT_NESTED = rules.INDIRECT_NESTED
FULL = rules.FULL

F_NEXT = virtio.DESC_F_NEXT
F_WRITE = virtio.DESC_F_WRITE
F_INDIRECT = virtio.DESC_F_INDIRECT
ADDRESS_MAX = (1 << 64) - 1
CHAIN_MAX = virtio.CHAIN_BYTES_MAX
TABLE_MAX = 1024  # descriptors: no device offers a longer queue (device.*.space)


class Walker:
    """Fills the rows of a batch from one descriptor table and the indirect tables that it names.

    longest          descriptors that a chain may have
    tables_address   local address where the tables that `chain` noted are to be fetched to
    tables_used      bytes of them
    """

    def __init__(self, desc: int, size: int, indirect: bool) -> None:
        """`desc`: local address of a descriptor table of `size` entries."""
        self._desc = desc
        self.size = size
        self._indirect = indirect
        self.longest = max(size, TABLE_MAX) if indirect else size
        # room for many short tables, or one of the longest
        self._tables = LocalMemory(max(64 << 10, virtio.desc_length(self.longest)) if indirect else 0)
        self.tables_address = self._tables.address
        self._tables_length = self._tables.length
        self.tables_used = 0

    def chain(self, batch: Batch, i: int, head: int) -> int:
        """Row `i` becomes the chain at `head`, up to its indirect table. A rule, FULL, or 0."""
        if head >= self.size:
            return HEAD
        batch.begin_chain(i, head)
        index = head
        while True:
            desc = self._desc + 16 * index
            address = load64(desc)
            length = load32(desc + 8)
            flags = load16(desc + 12)
            following = load16(desc + 14)
            if flags & F_INDIRECT:
                return self._reserve(batch, i, address, length, (flags & F_NEXT) != 0)
            batch.depth[i] += 1
            rule = self._segment(batch, i, address, length, (flags & F_WRITE) != 0)
            if rule:
                return rule
            if not flags & F_NEXT:
                batch.seg_used = batch.seg_first[i] + batch.seg_read[i] + batch.seg_write[i]
                return 0
            if following >= self.size:
                return NEXT
            if batch.depth[i] >= self.size:
                return LOOP
            index = following

    def _segment(self, batch: Batch, i: int, address: int, length: int, write: bool) -> int:
        """One buffer of chain `i`; an empty one is no segment. A rule, FULL, or 0."""
        if length == 0:
            return 0
        if not write and batch.seg_write[i] > 0:
            return ORDER
        if address > ADDRESS_MAX - (length - 1):
            return OVERFLOW
        if batch.read_bytes[i] + batch.write_bytes[i] + length > CHAIN_MAX:
            return BYTES
        if not batch.add_segment(i, write, address, length):
            return FULL
        return 0

    def _reserve(self, batch: Batch, i: int, address: int, length: int, more: bool) -> int:
        """Note the indirect table that ends chain `i` and keep room for its segments. A rule, FULL, or 0."""
        if not self._indirect:
            return INDIRECT_OFF
        if more:
            return INDIRECT_NEXT
        if length == 0 or length & 15:
            return INDIRECT_LENGTH
        if length // 16 > self.longest:
            return INDIRECT_HUGE
        if address > ADDRESS_MAX - (length - 1):
            return OVERFLOW
        room = length // 16
        if room > self.longest - batch.depth[i]:
            room = self.longest - batch.depth[i]  # a longer chain is a violation once it is read
        room += batch.seg_first[i] + batch.seg_read[i] + batch.seg_write[i]
        if room > batch.segments or length > self._tables_length - self.tables_used:
            return FULL
        batch.table_address[i] = address
        batch.table_length[i] = length
        batch.table_offset[i] = self.tables_used
        self.tables_used += length
        batch.seg_used = room
        return 0

    def parse_tables(self, batch: Batch, first: int) -> int:
        """Third step: the fetched tables. A rule, or 0."""
        for i in range(first, batch.count):
            if batch.table_length[i] and batch.fault[i] == 0:
                rule = self._parse_table(batch, i)
                if rule:
                    return rule
        return 0

    def _parse_table(self, batch: Batch, i: int) -> int:
        """Chain `i` goes on at entry 0 of its table (virtio 1.3 §2.7.5.3). A rule, or 0."""
        entries = batch.table_length[i] // 16
        table = self.tables_address + batch.table_offset[i]
        index = 0
        seen = 0
        while True:
            desc = table + 16 * index
            address = load64(desc)
            length = load32(desc + 8)
            flags = load16(desc + 12)
            following = load16(desc + 14)
            if flags & F_INDIRECT:
                return INDIRECT_NESTED
            seen += 1
            if seen > entries or batch.depth[i] >= self.longest:
                return LOOP
            batch.depth[i] += 1
            rule = self._segment(batch, i, address, length, (flags & F_WRITE) != 0)
            if rule:
                return rule
            if not flags & F_NEXT:
                return 0
            if following >= entries:
                return NEXT
            index = following
