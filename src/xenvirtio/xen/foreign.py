"""Frames of guests by libxenforeignmemory (xen/tools/include/xenforeignmemory.h)."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Self

from xenvirtio.xen.library import load

if TYPE_CHECKING:
    from collections.abc import Sequence

DECLARATIONS = """
typedef struct xenforeignmemory_handle xenforeignmemory_handle;
typedef unsigned long xen_pfn_t;
xenforeignmemory_handle *xenforeignmemory_open(void *logger, unsigned open_flags);
int xenforeignmemory_close(xenforeignmemory_handle *fmem);
void *xenforeignmemory_map(xenforeignmemory_handle *fmem, uint32_t dom, int prot, size_t pages,
                           const xen_pfn_t arr[], int err[]);
int xenforeignmemory_unmap(xenforeignmemory_handle *fmem, void *addr, size_t pages);
"""


class XenForeignMemory:
    """One handle on /dev/xen/privcmd, a `memory.interfaces.ForeignMapper`. A context manager."""

    def __init__(self) -> None:
        self._library = load("libxenforeignmemory.so.1", DECLARATIONS)
        self._handle = self._library.calls.xenforeignmemory_open(self._library.ffi.NULL, 0)
        if self._handle == self._library.ffi.NULL:
            raise self._library.open_error("foreign memory", "/dev/xen/privcmd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def map(self, frames: Sequence[int], domid: int, writable: bool) -> tuple[int, list[int]]:
        """Maps frames next to each other: the first one's address, and 0 or a negative errno for each.

        The address is valid even where every page failed: a page whose error is not 0 must not be touched.
        XenError if nothing could be mapped at all.
        """
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        array = self._library.ffi.new("xen_pfn_t[]", list(frames))
        errors = self._library.ffi.new("int[]", len(frames))
        address = self._library.calls.xenforeignmemory_map(
            self._handle, domid, protection, len(frames), array, errors
        )
        if address == self._library.ffi.NULL:
            raise self._library.error(f"cannot map {len(frames)} frames of domain {domid}")
        return int(self._library.ffi.cast("uintptr_t", address)), list(errors)

    def unmap(self, address: int, pages: int) -> None:
        pointer = self._library.ffi.cast("void *", address)
        if self._library.calls.xenforeignmemory_unmap(self._handle, pointer, pages) < 0:
            raise self._library.error(f"cannot unmap {pages} frames")

    def close(self) -> None:
        if self._handle != self._library.ffi.NULL:
            self._library.calls.xenforeignmemory_close(self._handle)
            self._handle = self._library.ffi.NULL
