"""An in-process foreign mapper: a `memory.interfaces.ForeignMapper` over a `GuestRam`."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from xenvirtio.errors import XenError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.testing.ram import GuestRam


class FakeForeignMapper:
    """Frames from `base` on are the guest's pages, in order. As Xen does, it maps what it can and returns an
    address even if every page failed (touching such a page, or writing to one that is mapped read-only, is a
    segmentation fault here). Frames in `page_tables` are a PV guest's: they cannot be mapped writable, and a
    frame that is mapped writable cannot become one (xen/arch/x86/mm.c, get_page_type)."""

    def __init__(self, ram: GuestRam, domid: int, base: int) -> None:
        self.ram = ram
        self.domid = domid
        self.base = base
        self.holes: set[int] = set()
        self.page_tables: set[int] = set()
        self._written: dict[int, list[int]] = {}
        self.mapped: dict[int, int] = {}
        self.calls = 0

    def map(self, frames: Sequence[int], domid: int, writable: bool) -> tuple[int, list[int]]:
        if domid != self.domid or not frames:
            raise XenError(f"cannot map {len(frames)} frames of domain {domid}", errno.ESRCH)
        self.calls += 1
        refused = self.holes | self.page_tables if writable else self.holes
        pages = [
            frame - self.base if 0 <= frame - self.base < self.ram.pages and frame not in refused else None
            for frame in frames
        ]
        address = self.ram.see(pages, writable)
        self.mapped[address] = len(pages)
        self._written[address] = list(frames) if writable else []
        return address, [0 if page is not None else -errno.EBUSY for page in pages]

    def unmap(self, address: int, pages: int) -> None:
        assert self.mapped.pop(address) == pages
        del self._written[address]
        self.ram.unsee(address, pages)

    def make_page_table(self, frame: int) -> None:
        """As a PV guest does. AssertionError if that kills it: the frame is mapped writable."""
        assert all(frame not in frames for frames in self._written.values()), f"{frame:#x} is mapped writable"
        self.page_tables.add(frame)
