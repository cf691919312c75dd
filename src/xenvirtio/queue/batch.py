# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""Requests as they come from a queue: columns, see `memory.segments`, and ways to their bytes."""

from __future__ import annotations

import cython

from xenvirtio.memory.local import view
from xenvirtio.memory.segments import Segments

if not cython.compiled:
    from xenvirtio.memory.raw import copy

COMPILED = cython.compiled


class Batch(Segments):
    """The chains taken from one queue and not yet given back."""

    def gather(self, i: int, offset: int, destination: int, length: int) -> bool:
        """Copy `length` bytes at `offset` of chain `i`'s readable part to the local address `destination`.

        False, and nothing to rely on copied, if they are not all there.
        """
        return self._move(self.iov_first[i], self.iov_read[i], offset, destination, length, False)

    def scatter(self, i: int, offset: int, source: int, length: int) -> bool:
        """Copy `length` bytes at the local address `source` to `offset` of chain `i`'s writable part.

        False if they do not all fit. `written` is the device's to set.
        """
        return self._move(
            self.iov_first[i] + self.iov_read[i], self.iov_write[i], offset, source, length, True
        )

    def readable(self, i: int) -> list[memoryview]:
        """The parts of chain `i` that the device reads; valid until the chain is given back."""
        return self._views(self.iov_first[i], self.iov_read[i])

    def writable(self, i: int) -> list[memoryview]:
        """The parts of chain `i` that the device writes; valid until the chain is given back."""
        return self._views(self.iov_first[i] + self.iov_read[i], self.iov_write[i])

    def _views(self, row: int, rows: int) -> list[memoryview]:
        return [view(self.iov[2 * k], self.iov[2 * k + 1]) for k in range(row, row + rows) if self.iov[2 * k]]

    def _move(self, row: int, rows: int, offset: int, local: int, length: int, out: bool) -> bool:
        for k in range(row, row + rows):
            if length == 0:
                break
            base = self.iov[2 * k]
            size = self.iov[2 * k + 1]
            if offset >= size:
                offset -= size
                continue
            if base == 0:
                return False
            base += offset
            size -= offset
            offset = 0
            if size > length:
                size = length
            if out:
                copy(base, local, size)
            else:
                copy(local, base, size)
            local += size
            length -= size
        return length == 0
