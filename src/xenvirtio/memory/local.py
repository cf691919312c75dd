"""Zeroed memory of this process, known by its address."""

from __future__ import annotations

import ctypes
import mmap

PAGE_SIZE = 4096


class LocalMemory:
    """Page-aligned, zeroed, and touched only where it is used; lives as long as the object."""

    def __init__(self, length: int) -> None:
        """`length` in bytes, rounded up to whole pages; at least one."""
        self.length = max(1, -(-length // PAGE_SIZE)) * PAGE_SIZE
        self._map = mmap.mmap(-1, self.length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = (ctypes.c_char * self.length).from_buffer(self._map)
        self.address = ctypes.addressof(self._view)

    def read(self, offset: int, length: int) -> bytes:
        return self._map[offset : offset + length]

    def write(self, offset: int, data: bytes) -> None:
        self._map[offset : offset + len(data)] = data


def view(address: int, length: int) -> memoryview:
    """A writable memoryview of bytes over local memory; the caller keeps that memory alive."""
    return memoryview((ctypes.c_char * length).from_address(address)).cast("B")
