"""Grants of guests by libxengnttab (xen/tools/include/xengnttab.h), copies by gntdev's own ioctl.

The copy goes straight to the kernel (Linux include/uapi/xen/gntdev.h) because the library offers only the
same array under another name: `memory/grant.py` fills it once and reads the status of each segment from it.
"""

from __future__ import annotations

import fcntl
import mmap
import struct
from typing import TYPE_CHECKING, Self

from xenvirtio.errors import XenError
from xenvirtio.xen.library import load

if TYPE_CHECKING:
    from collections.abc import Sequence

DECLARATIONS = """
typedef struct xengntdev_handle xengnttab_handle;
xengnttab_handle *xengnttab_open(void *logger, unsigned open_flags);
int xengnttab_close(xengnttab_handle *xgt);
int xengnttab_fd(xengnttab_handle *xgt);
void *xengnttab_map_domain_grant_refs(xengnttab_handle *xgt, uint32_t count, uint32_t domid,
                                      uint32_t *refs, int prot);
int xengnttab_unmap(xengnttab_handle *xgt, void *start_address, uint32_t count);
"""

#: _IOC(_IOC_NONE, 'G', 8, sizeof(struct ioctl_gntdev_grant_copy)) on x86 and Arm
IOCTL_GNTDEV_GRANT_COPY = 16 << 16 | ord("G") << 8 | 8


class XenGrantTable:
    """One handle on /dev/xen/gntdev, a `memory.interfaces.GrantTable`. A context manager."""

    def __init__(self) -> None:
        self._library = load("libxengnttab.so.1", DECLARATIONS)
        self._handle = self._library.calls.xengnttab_open(self._library.ffi.NULL, 0)
        if self._handle == self._library.ffi.NULL:
            raise self._library.open_error("grant table", "/dev/xen/gntdev")
        self._descriptor = int(self._library.calls.xengnttab_fd(self._handle))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def map(self, refs: Sequence[int], domid: int, writable: bool) -> int:
        """Maps the pages next to each other, all or none (XenError); returns the first one's address."""
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        array = self._library.ffi.new("uint32_t[]", list(refs))
        address = self._library.calls.xengnttab_map_domain_grant_refs(
            self._handle, len(refs), domid, array, protection
        )
        if address == self._library.ffi.NULL:
            raise self._library.error(f"cannot map {len(refs)} grants of domain {domid}")
        return int(self._library.ffi.cast("uintptr_t", address))

    def unmap(self, address: int, count: int) -> None:
        pointer = self._library.ffi.cast("void *", address)
        if self._library.calls.xengnttab_unmap(self._handle, pointer, count) < 0:
            raise self._library.error(f"cannot unmap {count} grants")

    def copy(self, segments: int, count: int) -> None:
        """Copies `count` segments, an array of struct gntdev_grant_copy_segment at the address `segments`.

        Each segment's own outcome is in its `status` (xen/include/public/grant_table.h, GNTST_*).
        XenError only if the kernel refused the array.
        """
        try:
            fcntl.ioctl(self._descriptor, IOCTL_GNTDEV_GRANT_COPY, struct.pack("=I4xQ", count, segments))
        except OSError as error:
            raise XenError(f"grant copy of {count} segments: {error.strerror}", error.errno or 0) from error

    def close(self) -> None:
        """Unmaps what is still mapped."""
        if self._handle != self._library.ffi.NULL:
            self._library.calls.xengnttab_close(self._handle)
            self._handle = self._library.ffi.NULL
