"""A guest's memory in this process, whose pages can be seen again elsewhere, in any order."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING, Self

from xenvirtio.memory.local import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROT_NONE, _MAP_FIXED = 0, 0x10  # asm-generic/mman-common.h; not in the mmap module
_FAILED = ctypes.c_void_p(-1).value


class GuestRam:
    """`pages` zeroed pages at the local address `address`, and an allocator over them. A context manager.

    Every place in it is named by its offset in bytes.
    """

    def __init__(self, pages: int = 1024) -> None:
        self.pages = pages
        self.length = pages * PAGE_SIZE
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,
        ]
        self._libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._fd = os.memfd_create("guest")
        os.ftruncate(self._fd, self.length)
        self.address = self._map(None, self.length, self._fd, 0, mmap.PROT_READ | mmap.PROT_WRITE)
        self._next = 0
        self._free: dict[tuple[int, int], list[int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _map(self, at: int | None, length: int, fd: int, offset: int, protection: int) -> int:
        flags = mmap.MAP_SHARED if fd >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        flags |= _MAP_FIXED if at is not None else 0
        address = self._libc.mmap(at, length, protection, flags, fd, offset)
        if address is None or address == _FAILED:
            raise OSError(ctypes.get_errno(), "mmap")
        return int(address)

    def see(self, pages: Sequence[int | None], writable: bool) -> int:
        """Map the pages with these numbers again, next to each other; None is a hole not to be touched.
        Returns the first one's local address."""
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        # one more page that nobody may touch: views are no neighbours, and overruns do not pass unseen
        address = self._map(None, (len(pages) + 1) * PAGE_SIZE, -1, 0, _PROT_NONE)
        for position, page in enumerate(pages):
            if page is not None:
                at = address + position * PAGE_SIZE
                self._map(at, PAGE_SIZE, self._fd, page * PAGE_SIZE, protection)
        return address

    def unsee(self, address: int, pages: int) -> None:
        """Undo `see`."""
        self._libc.munmap(address, (pages + 1) * PAGE_SIZE)

    def place(self, length: int, align: int = 16) -> int:
        """An unused place of `length` bytes, at a multiple of `align` bytes. Raises MemoryError."""
        free = self._free.get((length, align))
        if free:
            return free.pop()
        offset = -(-self._next // align) * align
        if offset + length > self.length:
            raise MemoryError(f"the guest's {self.pages} pages are used up")
        self._next = offset + length
        return offset

    def give_back(self, offset: int, length: int, align: int = 16) -> None:
        """The place may be used again for the same length and alignment."""
        self._free.setdefault((length, align), []).append(offset)

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self.length:
            raise IndexError(offset)
        return ctypes.string_at(self.address + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        if offset < 0 or offset + len(data) > self.length:
            raise IndexError(offset)
        ctypes.memmove(self.address + offset, data, len(data))

    def close(self) -> None:
        if self._fd >= 0:
            self._libc.munmap(self.address, self.length)
            os.close(self._fd)
            self._fd = -1
