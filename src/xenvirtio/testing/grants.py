"""An in-process grant table: a `memory.interfaces.GrantTable` over a `GuestRam`.

Behaves as gntdev does (Linux drivers/xen/gntdev.c, xen/include/public/grant_table.h): mapping is all or
nothing, a copy that crosses a granted page's end is refused whole, every other failure is one segment's own.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.errors import XenError
from xenvirtio.memory import raw
from xenvirtio.memory.local import PAGE_SIZE
from xenvirtio.spec import grants as spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.testing.ram import GuestRam


@dataclass(frozen=True)
class Grant:
    page: int  # number in the guest's memory
    writable: bool


class FakeGrantTable:
    """One guest's grants to us."""

    def __init__(self, ram: GuestRam, domid: int) -> None:
        self.ram = ram
        self.domid = domid
        self.entries: dict[int, Grant] = {}
        self.mapped: dict[int, list[int]] = {}
        self.copies = 0
        self._next = 8  # as Linux: the first ones are reserved

    def grant(self, pages: Sequence[int], writable: bool = True) -> int:
        """Grant pages; returns the first of the consecutive references."""
        first = self._next
        self._next += len(pages)
        for k, page in enumerate(pages):
            self.entries[first + k] = Grant(page, writable)
        return first

    def revoke(self, ref: int) -> None:
        """End a grant. AssertionError if it is still mapped: a guest could never use that page again."""
        assert not any(ref in refs for refs in self.mapped.values()), f"grant {ref} is still mapped"
        del self.entries[ref]

    def map(self, refs: Sequence[int], domid: int, writable: bool) -> int:
        for ref in refs:
            grant = self.entries.get(ref)
            if domid != self.domid or grant is None or (writable and not grant.writable):
                raise XenError(f"cannot map grant {ref} of domain {domid}", errno.EINVAL)
        address = self.ram.see([self.entries[ref].page for ref in refs], writable)
        self.mapped[address] = list(refs)
        return address

    def unmap(self, address: int, count: int) -> None:
        refs = self.mapped.pop(address)
        assert len(refs) == count, f"{len(refs)} pages were mapped, {count} are unmapped"
        self.ram.unsee(address, count)

    def copy(self, segments: int, count: int) -> None:
        self.copies += 1
        places = [segments + k * spec.COPY_SIZE for k in range(count)]
        for at in places:
            flags, length = raw.load16(at + spec.COPY_FLAGS), raw.load16(at + spec.COPY_LEN)
            side = spec.COPY_SOURCE if flags & spec.GNTCOPY_SOURCE_GREF else spec.COPY_DEST
            both = spec.GNTCOPY_SOURCE_GREF | spec.GNTCOPY_DEST_GREF
            if flags & both in (0, both) or raw.load16(at + side + 4) + length > PAGE_SIZE:
                raise XenError("grant copy: Invalid argument", errno.EINVAL)
        for at in places:
            raw.store16(at + spec.COPY_STATUS, self._copy(at) & 0xFFFF)

    def _copy(self, at: int) -> int:
        """One segment; its status."""
        from_guest = raw.load16(at + spec.COPY_FLAGS) == spec.GNTCOPY_SOURCE_GREF
        side = at + (spec.COPY_SOURCE if from_guest else spec.COPY_DEST)
        local = raw.load64(at + (spec.COPY_DEST if from_guest else spec.COPY_SOURCE))
        grant = self.entries.get(raw.load32(side))
        if raw.load16(side + 6) != self.domid:
            return spec.GNTST_BAD_DOMAIN
        if grant is None:
            return spec.GNTST_BAD_GNTREF
        if not from_guest and not grant.writable:
            return spec.GNTST_PERMISSION_DENIED
        guest = self.ram.address + grant.page * PAGE_SIZE + raw.load16(side + 4)
        length = raw.load16(at + spec.COPY_LEN)
        raw.copy(local if from_guest else guest, guest if from_guest else local, length)
        return spec.GNTST_OKAY
