# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""Carries out the requests of a batch: moves data straight between the disk and the guest's buffers.

`submit` does what each row asks, in order; `complete` makes what must be stable stable and writes every
status byte. They share nothing but the rows, so that another engine may let time pass between them.

One fdatasync serves all the flushes of a batch: it runs after every write of the batch, so it covers those
that completed before each flush was sent (virtio 1.3 §5.2.6.2).
"""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING

import cython

from xenvirtio.device.syscalls import KEEP_SIZE as _KEEP_SIZE
from xenvirtio.device.syscalls import PUNCH_HOLE as _PUNCH_HOLE
from xenvirtio.device.syscalls import ZERO_RANGE as _ZERO_RANGE
from xenvirtio.spec import block as spec

if TYPE_CHECKING:
    from xenvirtio.queue.batch import Batch

if not cython.compiled:
    from xenvirtio.device.block.requests import (
        FLAG_UNMAP,
        S_IOERR,
        S_OK,
        S_PENDING,
        S_UNSUPP,
        T_DISCARD,
        T_FLUSH,
        T_GET_ID,
        T_IN,
        T_OUT,
        T_WRITE_ZEROES,
        Requests,
    )
    from xenvirtio.device.syscalls import discard, fallocate, fdatasync, preadv, pwrite, pwritev
    from xenvirtio.memory.raw import fill, store8

EINTR = errno.EINTR
EIO = errno.EIO
EOPNOTSUPP = errno.EOPNOTSUPP
IOV_MAX = 1024  # linux/uio.h UIO_MAXIOV
KEEP_SIZE = _KEEP_SIZE
PUNCH_HOLE = _PUNCH_HOLE
ZERO_RANGE = _ZERO_RANGE
ID_SIZE = spec.ID_SIZE
ZEROES = 64 << 10  # bytes written at once where a range cannot be zeroed


class Engine:
    """Serves batches from one open disk; counts what it did."""

    def __init__(self, fd: int, is_device: bool, serial: str) -> None:
        """`fd` stays the caller's; `serial` is at most 20 ASCII characters."""
        self.fd = fd
        self.is_device = is_device
        self.writeback = True
        self.lost = False
        self._zeroes = ctypes.create_string_buffer(64 << 10)
        self._zeroes_address = ctypes.addressof(self._zeroes)
        self._id = ctypes.create_string_buffer(serial.encode("ascii"), spec.ID_SIZE)
        self._id_address = ctypes.addressof(self._id)
        self._status = ctypes.create_string_buffer(1)
        self._status_address = ctypes.addressof(self._status)
        self.reads = self.writes = self.flushes = self.discards = self.zeroings = self.get_ids = 0
        self.unsupported = self.errors = self.syncs = self.bytes_read = self.bytes_written = 0

    def counters(self) -> dict[str, int]:
        """Requests that ended, by type; bytes of data; requests that ended in an error."""
        return {
            "reads": self.reads,
            "writes": self.writes,
            "flushes": self.flushes,
            "discards": self.discards,
            "write_zeroes": self.zeroings,
            "get_ids": self.get_ids,
            "unsupported": self.unsupported,
            "errors": self.errors,
            "syncs": self.syncs,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
        }

    def run(self, batch: Batch, requests: Requests) -> None:
        """Serve every chain of a parsed batch; each has its status byte and `written` on return."""
        with cython.nogil:
            self._submit(batch, requests)
            self._complete(batch, requests)

    def sync(self) -> bool:
        """Make all completed writes stable; False if they may be lost."""
        return self._sync() == 0

    def _submit(self, batch: Batch, requests: Requests) -> None:
        for i in range(batch.count):
            if requests.status[i] != S_PENDING:
                continue
            kind = requests.kind[i]
            if kind == T_IN:
                requests.status[i] = self._move(requests, i, True)
            elif kind == T_OUT:
                requests.status[i] = self._move(requests, i, False)
            elif kind == T_GET_ID:
                requests.status[i] = S_OK
            elif kind in (T_DISCARD, T_WRITE_ZEROES):
                requests.status[i] = self._punch(batch, requests, i)
            # a flush stays pending until all of the batch's writes are done

    def _complete(self, batch: Batch, requests: Requests) -> None:
        wanted = False
        stable = True
        for i in range(batch.count):
            if requests.status[i] == S_PENDING or (
                not self.writeback and requests.status[i] == S_OK and self._changes(requests.kind[i])
            ):
                wanted = True
        if wanted:
            stable = self._sync() == 0
        for i in range(batch.count):
            if requests.status[i] == S_PENDING:
                requests.status[i] = S_OK if stable else S_IOERR
            elif not stable and not self.writeback and self._changes(requests.kind[i]):
                requests.status[i] = S_IOERR
            self._count(requests, i)
            self._answer(batch, requests, i)

    def _changes(self, kind: int) -> bool:
        return kind in (T_OUT, T_WRITE_ZEROES)

    def _move(self, requests: Requests, i: int, into_guest: bool) -> int:
        """Read or write a row's data whole: short transfers go on where they ended."""
        row = requests.iov_first[i]
        left = requests.iov_count[i]
        offset = requests.offset[i]
        while left > 0:
            address = requests.iov_address + 16 * row
            if into_guest:
                moved = preadv(self.fd, address, left if left < IOV_MAX else IOV_MAX, offset)
            else:
                moved = pwritev(self.fd, address, left if left < IOV_MAX else IOV_MAX, offset)
            if moved == -EINTR:
                continue
            if moved <= 0:  # 0: the image became shorter
                return S_IOERR
            done = moved
            offset += done
            while left > 0 and done > 0:
                size = requests.iov[2 * row + 1]
                if size <= done:
                    done -= size
                    row += 1
                    left -= 1
                else:
                    requests.iov[2 * row] += done
                    requests.iov[2 * row + 1] = size - done
                    done = 0
        return S_OK

    def _punch(self, batch: Batch, requests: Requests, i: int) -> int:
        """Discard or zero a row's ranges, all of them checked before the first is touched."""
        count = requests.ranges(batch, i)
        if count < 0:
            return -count
        for row in range(count):
            if requests.range_length[row] == 0:
                continue
            if requests.kind[i] == T_DISCARD:
                result = self._discard(requests.range_offset[row], requests.range_length[row])
            else:
                result = self._zero(
                    requests.range_offset[row],
                    requests.range_length[row],
                    (requests.range_flags[row] & FLAG_UNMAP) != 0,
                )
            if result < 0:
                return S_UNSUPP if result == -EOPNOTSUPP else S_IOERR
        return S_OK

    def _discard(self, offset: int, length: int) -> int:
        result = -EINTR
        while result == -EINTR:
            if self.is_device:
                result = discard(self.fd, offset, length)
            else:
                result = fallocate(self.fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
        return result

    def _zero(self, offset: int, length: int, unmap: bool) -> int:
        """Zero a range, keeping its space unless `unmap`; by writing where the backing knows no other way."""
        result = -EINTR
        while result == -EINTR:
            result = fallocate(self.fd, (PUNCH_HOLE if unmap else ZERO_RANGE) | KEEP_SIZE, offset, length)
        if result != -EOPNOTSUPP:
            return result
        while length > 0:
            result = pwrite(self.fd, self._zeroes_address, length if length < ZEROES else ZEROES, offset)
            if result == -EINTR:
                continue
            if result <= 0:
                return result if result < 0 else -EIO
            offset += result
            length -= result
        return 0

    def _sync(self) -> int:
        """fdatasync. After one failure none is believed again: Linux reports lost pages only once."""
        result = -EIO
        if not self.lost:
            self.syncs += 1
            result = fdatasync(self.fd)
            while result == -EINTR:
                result = fdatasync(self.fd)
            self.lost = result < 0
        return result

    def _answer(self, batch: Batch, requests: Requests, i: int) -> None:
        """The status byte at the very end of what the device writes, and zeroes where no data was written."""
        covered = 0
        if batch.write_bytes[i] == 0:
            return  # nothing is known of a chain whose indirect table cannot be reached
        room = batch.write_bytes[i] - 1
        if requests.status[i] == S_OK and requests.kind[i] == T_IN:
            covered = requests.length[i]
        elif requests.status[i] == S_OK and requests.kind[i] == T_GET_ID:
            covered = room if room < ID_SIZE else ID_SIZE
            if not batch.scatter(i, 0, self._id_address, covered):
                covered = 0
        if batch.fault[i] == 0:
            self._clear(batch, i, covered, room)
        store8(self._status_address, requests.status[i])
        batch.written[i] = room + 1 if batch.scatter(i, room, self._status_address, 1) else 0

    def _clear(self, batch: Batch, i: int, begin: int, end: int) -> None:
        """Zero the bytes begin…end of the writable part: nothing uninitialised goes to the guest."""
        row = batch.iov_first[i] + batch.iov_read[i]
        at = 0
        while begin < end:
            size = batch.iov[2 * row + 1]
            if begin < at + size:
                first = begin - at
                size = (end if end < at + size else at + size) - begin
                fill(batch.iov[2 * row] + first, 0, size)
                begin += size
                size += first
            at += size
            row += 1

    def _count(self, requests: Requests, i: int) -> None:
        kind = requests.kind[i]
        if requests.status[i] == S_UNSUPP:
            self.unsupported += 1
        elif requests.status[i] != S_OK:
            self.errors += 1
        elif kind == T_IN:
            self.reads += 1
            self.bytes_read += requests.length[i]
        elif kind == T_OUT:
            self.writes += 1
            self.bytes_written += requests.length[i]
        elif kind == T_FLUSH:
            self.flushes += 1
        elif kind == T_DISCARD:
            self.discards += 1
        elif kind == T_WRITE_ZEROES:
            self.zeroings += 1
        else:
            self.get_ids += 1
