# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""Where granted buffers are staged: a ring, because chains are given back in the order they were taken."""

from __future__ import annotations

import cython

from xenvirtio.memory.local import LocalMemory

COMPILED = cython.compiled

STAGING_BYTES = 4 << 20  # of each batch; also bounds what a device may promise to take in one request
#: bytes: a segment at least as long keeps its offset in the page; below, headers lie close together
MIRRORED = 512


class Arena:
    """Staging memory of one batch: a ring of bytes, used from `head` to `tail`, both free-running."""

    def __init__(self, length: int) -> None:
        self._memory = LocalMemory(length)
        self.address = self._memory.address
        self.length = self._memory.length
        self.head = self.tail = 0

    def place(self, length: int, offset: int) -> int:
        """The local address of `length` bytes in a row, 0 if there is no room; `offset`: in its page."""
        pos = self.tail
        if length >= MIRRORED:
            pos += (offset - pos) & 4095
        else:
            pos = (pos + 15) & ~15
            offset = 0
        room = self.length - pos % self.length
        if room < length:
            pos += room + offset
        if pos - self.head + length > self.length or pos % self.length + length > self.length:
            return 0
        self.tail = pos + length
        return self.address + pos % self.length
