# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""The columns of a batch: chains, the segments the guest named, and the iovecs where they lie for us.

Three tables of fixed capacity, reused. Row i of the chains owns the segments seg_first[i]… (first those that
the device reads, then those that it writes) and the iovecs iov_first[i]… in the same order. The queue fills
chains and segments; guest memory makes iovecs of them.
"""

from __future__ import annotations

from array import array

import cython

from xenvirtio.memory.faults import NO_STATUS

COMPILED = cython.compiled


class Segments:
    """
    count                          chains in the batch
    head[i]                        u16 head index
    depth[i]                       descriptors in the chain, empty ones too
    seg_first/seg_read/seg_write   where its segments start, how many are readable, how many writable
    iov_first/iov_read/iov_write   the same for its iovecs
    read_bytes[i], write_bytes[i]  totals, from the descriptors
    fault[i]                       memory.faults: 0, or why this chain cannot be served
    written[i]                     set by the device: bytes from the start of the writable part that it wrote,
                                   all of them (what lies there goes to the guest). For a chain with a fault
                                   only the very last writable byte goes, and only if written[i] is
                                   write_bytes[i].
    on_fault[i]                    set by the device: what becomes of the last writable byte if the bytes
                                   before it turn out not to reach the guest; NO_STATUS: nothing
    seg_address[], seg_length[]    guest address and bytes of a segment
    iov[]                          u64 base, u64 length, …: as struct iovec; iov_address is its local address.
                                   A base of 0 (only in chains with a fault) cannot be reached.

    The rest belongs to the queue (table_*) and to guest memory (seg_local, staged, staging).
    """

    def __init__(self, chains: int = 256, segments: int = 0, iovecs: int = 0) -> None:
        """Room for `chains` chains, `segments` segments (default: four a chain, 1024 at least) and
        `iovecs` iovecs (default: twice the segments)."""
        segments = segments or max(1024, 4 * chains)
        iovecs = iovecs or 2 * segments
        self.chains = chains
        self.segments = segments
        self.iovecs = iovecs
        self.count = self.seg_used = self.iov_used = 0
        self.head = array("H", bytes(2 * chains))
        self.on_fault = array("H", bytes(2 * chains))
        self.fault = array("I", bytes(4 * chains))
        self.depth = array("I", bytes(4 * chains))
        self.seg_first = array("I", bytes(4 * chains))
        self.seg_read = array("I", bytes(4 * chains))
        self.seg_write = array("I", bytes(4 * chains))
        self.iov_first = array("I", bytes(4 * chains))
        self.iov_read = array("I", bytes(4 * chains))
        self.iov_write = array("I", bytes(4 * chains))
        self.read_bytes = array("Q", bytes(8 * chains))
        self.write_bytes = array("Q", bytes(8 * chains))
        self.written = array("Q", bytes(8 * chains))
        self.staged = array("Q", bytes(8 * chains))
        self.table_address = array("Q", bytes(8 * chains))
        self.table_length = array("I", bytes(4 * chains))
        self.table_offset = array("I", bytes(4 * chains))
        self.seg_address = array("Q", bytes(8 * segments))
        self.seg_local = array("Q", bytes(8 * segments))
        self.seg_length = array("I", bytes(4 * segments))
        iov = array("Q", bytes(16 * iovecs))
        self.iov_address = iov.buffer_info()[0]
        self.iov = iov
        self.staging: object = None

    def begin_chain(self, i: int, head: int) -> None:
        """Row `i` becomes an empty chain."""
        self.head[i] = head
        self.on_fault[i] = 0xFFFF
        self.fault[i] = 0
        self.depth[i] = 0
        self.seg_first[i] = self.seg_used
        self.seg_read[i] = 0
        self.seg_write[i] = 0
        self.iov_first[i] = self.iov_used
        self.iov_read[i] = 0
        self.iov_write[i] = 0
        self.read_bytes[i] = 0
        self.write_bytes[i] = 0
        self.written[i] = 0
        self.staged[i] = 0
        self.table_address[i] = 0
        self.table_length[i] = 0
        self.table_offset[i] = 0

    def add_segment(self, i: int, write: bool, address: int, length: int) -> bool:
        """Append a segment to chain `i`; False if there is no room."""
        pos = self.seg_first[i] + self.seg_read[i] + self.seg_write[i]
        if pos >= self.segments:
            return False
        self.seg_address[pos] = address
        self.seg_length[pos] = length
        self.seg_local[pos] = 0
        if write:
            self.seg_write[i] += 1
            self.write_bytes[i] += length
        else:
            self.seg_read[i] += 1
            self.read_bytes[i] += length
        return True

    def add_iovec(self, i: int, write: bool, base: int, length: int) -> bool:
        """Append to the iovecs of chain `i`, the last one; neighbours become one. False if there is no
        room."""
        last = self.iov_used - 1
        if (
            base != 0
            and (self.iov_write[i] if write else self.iov_read[i]) > 0
            and self.iov[2 * last] != 0
            and self.iov[2 * last] + self.iov[2 * last + 1] == base
        ):
            self.iov[2 * last + 1] += length
            return True
        if self.iov_used >= self.iovecs:
            return False
        self.iov[2 * self.iov_used] = base
        self.iov[2 * self.iov_used + 1] = length
        self.iov_used += 1
        if write:
            self.iov_write[i] += 1
        else:
            self.iov_read[i] += 1
        return True

    def no_iovecs(self, i: int) -> None:
        """Take back the iovecs of chain `i`, the last one."""
        self.iov_used = self.iov_first[i]
        self.iov_read[i] = 0
        self.iov_write[i] = 0

    def truncate(self, count: int) -> None:
        """Forget the chains from row `count` on."""
        if count < self.count:
            self.seg_used = self.seg_first[count]
            self.iov_used = self.iov_first[count]
            self.count = count

    def drop(self, count: int) -> None:
        """Forget the first `count` chains; the rest move to the front."""
        left = self.count - count
        if left <= 0:
            self.count = self.seg_used = self.iov_used = 0
            return
        seg = self.seg_first[count]
        iov = self.iov_first[count]
        for i in range(left):
            self._move_chain(i, i + count, seg, iov)
        for k in range(self.seg_used - seg):
            self.seg_address[k] = self.seg_address[k + seg]
            self.seg_local[k] = self.seg_local[k + seg]
            self.seg_length[k] = self.seg_length[k + seg]
        for k in range(2 * (self.iov_used - iov)):
            self.iov[k] = self.iov[k + 2 * iov]
        self.count = left
        self.seg_used -= seg
        self.iov_used -= iov

    def clear(self) -> None:
        """Forget every chain; nothing is given back."""
        self.drop(self.count)

    def _move_chain(self, to: int, i: int, seg: int, iov: int) -> None:
        self.head[to] = self.head[i]
        self.on_fault[to] = self.on_fault[i]
        self.fault[to] = self.fault[i]
        self.depth[to] = self.depth[i]
        self.seg_first[to] = self.seg_first[i] - seg
        self.seg_read[to] = self.seg_read[i]
        self.seg_write[to] = self.seg_write[i]
        self.iov_first[to] = self.iov_first[i] - iov
        self.iov_read[to] = self.iov_read[i]
        self.iov_write[to] = self.iov_write[i]
        self.read_bytes[to] = self.read_bytes[i]
        self.write_bytes[to] = self.write_bytes[i]
        self.written[to] = self.written[i]
        self.staged[to] = self.staged[i]


assert NO_STATUS == 0xFFFF  # begin_chain needs a number that is no Python object
