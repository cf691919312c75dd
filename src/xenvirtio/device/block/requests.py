# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""What the chains of a batch ask of a disk: parsing and checking, no I/O (virtio 1.3 §5.2.6).

A chain is a header of 16 bytes that the device reads, data in one direction, and a status byte that it
writes. How they are spread over descriptors means nothing (§2.7.4.3), so a chain is seen as two streams of
bytes. The header is copied once. The iovecs of the data alone are written out, at the same index where the
chain's own begin in the batch: a row is all that preadv or an io_uring entry needs.
"""

from __future__ import annotations

import ctypes
from array import array
from typing import TYPE_CHECKING

import cython

from xenvirtio.device.block import space
from xenvirtio.errors import GuestViolation
from xenvirtio.spec import block as spec

if TYPE_CHECKING:
    from xenvirtio.queue.batch import Batch

if not cython.compiled:
    from xenvirtio.memory.raw import load32, load64

T_IN = spec.T_IN
T_OUT = spec.T_OUT
T_FLUSH = spec.T_FLUSH
T_GET_ID = spec.T_GET_ID
T_DISCARD = spec.T_DISCARD
T_WRITE_ZEROES = spec.T_WRITE_ZEROES
S_OK = spec.S_OK
S_IOERR = spec.S_IOERR
S_UNSUPP = spec.S_UNSUPP
S_PENDING = 0xFF  # ours: checked, not carried out yet
FLAG_UNMAP = spec.RANGE_FLAG_UNMAP
SECTOR = spec.SECTOR_SIZE
HEADER = spec.HEADER_SIZE
RANGE = spec.RANGE_SIZE
RANGES_MAX = space.RANGES_MAX
DATA_MAX = space.DATA_MAX
DISCARD_MAX = space.DISCARD_SECTORS_MAX
ZERO_MAX = space.ZERO_SECTORS_MAX

_RULES = {
    1: "virtio 1.3 §5.2.6: a request has a header of 16 bytes",
    2: "virtio 1.3 §5.2.6: a request ends in a status byte that the device can write",
}


class Requests:
    """The rows that parsing fills, one a chain of the batch; reused for every batch.

    kind[i]     request type
    status[i]   S_PENDING, or how the request ended before any I/O
    offset[i]   first byte on the disk
    length[i]   bytes of data
    iov_first[i], iov_count[i]   the data's iovecs in `iov`
    """

    def __init__(self, chains: int, iovecs: int, sectors: int, features: int) -> None:
        """Room for `chains` rows and `iovecs` iovecs; a disk of `sectors`; `features` as negotiated."""
        self.sectors = sectors
        self.read_only = bool(features & spec.F_RO)
        self.may_discard = bool(features & spec.F_DISCARD)
        self.may_zero = bool(features & spec.F_WRITE_ZEROES)
        self.kind = array("I", bytes(4 * chains))
        self.status = array("I", bytes(4 * chains))
        self.offset = array("Q", bytes(8 * chains))
        self.length = array("Q", bytes(8 * chains))
        self.iov_first = array("I", bytes(4 * chains))
        self.iov_count = array("I", bytes(4 * chains))
        iov = array("Q", bytes(16 * iovecs))
        self.iov = iov
        self.iov_address = iov.buffer_info()[0]
        self.range_offset = array("Q", bytes(8 * space.RANGES_MAX))
        self.range_length = array("Q", bytes(8 * space.RANGES_MAX))
        self.range_flags = array("I", bytes(4 * space.RANGES_MAX))
        self._copy = ctypes.create_string_buffer(max(spec.HEADER_SIZE, spec.RANGE_SIZE * space.RANGES_MAX))
        self._copy_address = ctypes.addressof(self._copy)

    def parse(self, batch: Batch) -> None:
        """Fill a row for each chain. Raises GuestViolation where there is nowhere to put an answer."""
        rule = self._parse(batch)
        if rule:
            raise GuestViolation(_RULES[rule])

    def _parse(self, batch: Batch) -> int:
        for i in range(batch.count):
            self.kind[i] = 0
            self.offset[i] = 0
            self.length[i] = 0
            self.iov_first[i] = batch.iov_first[i]
            self.iov_count[i] = 0
            self.status[i] = S_IOERR
            batch.on_fault[i] = S_IOERR
            if batch.fault[i] != 0:
                continue
            if batch.read_bytes[i] < HEADER:
                return 1
            if batch.write_bytes[i] == 0:
                return 2
            if batch.gather(i, 0, self._copy_address, HEADER):
                self.kind[i] = load32(self._copy_address)
                self.status[i] = self._check(batch, i, load64(self._copy_address + 8))
        return 0

    def _check(self, batch: Batch, i: int, sector: int) -> int:
        """The status of row `i` so far; its place and data if it is a read or a write."""
        kind = self.kind[i]
        read = batch.read_bytes[i] - HEADER
        write = batch.write_bytes[i] - 1
        if kind == T_IN:
            if read != 0 or not self._inside(sector, write):
                return S_IOERR
            self._place(batch, i, sector, write, True)
        elif kind == T_OUT:
            if self.read_only or write != 0 or not self._inside(sector, read):
                return S_IOERR
            self._place(batch, i, sector, read, False)
        elif kind in (T_DISCARD, T_WRITE_ZEROES):
            if not (self.may_discard if kind == T_DISCARD else self.may_zero):
                return S_UNSUPP
            if self.read_only or read == 0 or read % RANGE != 0 or read // RANGE > RANGES_MAX:
                return S_IOERR
            self.length[i] = read
        elif kind not in (T_FLUSH, T_GET_ID):
            return S_UNSUPP
        return S_PENDING

    def _inside(self, sector: int, length: int) -> bool:
        """Whole sectors, not too many, all of them on the disk; no sum that could overflow."""
        return (
            length % SECTOR == 0
            and length <= DATA_MAX
            and sector <= self.sectors
            and length // SECTOR <= self.sectors - sector
        )

    def _place(
        self,
        batch: Batch,
        i: int,
        sector: int,
        length: int,
        into_guest: bool,
    ) -> None:
        """Write out the iovecs of the data alone, without header and status byte."""
        self.offset[i] = sector * SECTOR
        self.length[i] = length
        skip = 0 if into_guest else HEADER
        source = batch.iov_first[i] + (batch.iov_read[i] if into_guest else 0)
        target = batch.iov_first[i]
        while length > 0:
            base = batch.iov[2 * source]
            size = batch.iov[2 * source + 1]
            source += 1
            if size <= skip:
                skip -= size
                continue
            base += skip
            size -= skip
            skip = 0
            size = size if size < length else length
            length -= size
            self.iov[2 * target] = base
            self.iov[2 * target + 1] = size
            target += 1
        self.iov_count[i] = target - batch.iov_first[i]

    def ranges(self, batch: Batch, i: int) -> int:
        """Copy and check the ranges of a discard or write-zeroes into range_offset and range_length (bytes)
        and range_flags. Returns how many there are, or minus the status (virtio 1.3 §5.2.6.2)."""
        discards = self.kind[i] == T_DISCARD
        count = self.length[i] // RANGE
        if not batch.gather(i, HEADER, self._copy_address, self.length[i]):
            return -S_IOERR
        for row in range(count):
            sector = load64(self._copy_address + RANGE * row)
            sectors = load32(self._copy_address + RANGE * row + 8)
            flags = load32(self._copy_address + RANGE * row + 12)
            if flags & ~FLAG_UNMAP or (discards and flags):
                return -S_UNSUPP
            if sectors > (DISCARD_MAX if discards else ZERO_MAX):
                return -S_IOERR
            if sector > self.sectors or sectors > self.sectors - sector:
                return -S_IOERR
            self.range_offset[row] = sector * SECTOR
            self.range_length[row] = sectors * SECTOR
            self.range_flags[row] = flags
        return count
