"""Guests without a machine: their memory, and how they tell a device its addresses.

One for each kind of guest memory: regions, grants, foreign frames. A driver (`xenvirtio.testing.driver`) uses
any of them alike.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, Self

from xenvirtio.memory.arena import STAGING_BYTES
from xenvirtio.memory.foreign import ForeignMemory
from xenvirtio.memory.grant import GrantMemory
from xenvirtio.memory.local import PAGE_SIZE
from xenvirtio.memory.regions import Region, RegionMemory
from xenvirtio.spec.xenbus import GRANT_ADDRESS
from xenvirtio.testing.foreign import FakeForeignMapper
from xenvirtio.testing.grants import FakeGrantTable
from xenvirtio.testing.ram import GuestRam

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenvirtio.memory.base import GuestMemory


class Guest(Protocol):
    """What a driver needs of its guest."""

    ram: GuestRam

    def share(self, offset: int, length: int, writable: bool) -> int:
        """The address that the driver gives the device for a place in `ram`."""
        ...

    def unshare(self, address: int, length: int) -> None:
        """The device is done with an address."""
        ...

    def memory(self) -> GuestMemory:
        """The device's way to this guest's memory."""
        ...


class _Base:
    def __init__(self, pages: int) -> None:
        self.ram = GuestRam(pages)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def share(self, offset: int, length: int, writable: bool) -> int:
        raise NotImplementedError

    def unshare(self, address: int, length: int) -> None:
        """Nothing was set up for it."""

    def memory(self) -> GuestMemory:
        raise NotImplementedError

    def close(self) -> None:
        self.ram.close()


class RegionGuest(_Base):
    """Memory in one region, or in several that are neighbours for the guest but not for the device."""

    def __init__(self, pages: int = 1024, base: int = 0x1_0000_0000, split: Sequence[int] = ()) -> None:
        """`base`: guest address of the first byte. `split`: page numbers at which another region starts,
        elsewhere for the device."""
        super().__init__(pages)
        self.base = base
        self._views: list[tuple[int, int]] = []
        edges = [0, *split, pages]
        self.regions = []
        for first, last in pairwise(edges):
            local = self.ram.see(range(first, last), True)
            self._views.append((local, last - first))
            self.regions.append(Region(base + first * PAGE_SIZE, (last - first) * PAGE_SIZE, local))

    def share(self, offset: int, length: int, writable: bool) -> int:  # noqa: ARG002
        return self.base + offset

    def memory(self) -> RegionMemory:
        return RegionMemory(self.regions)

    def close(self) -> None:
        for view in self._views:
            self.ram.unsee(*view)
        self._views.clear()
        super().close()


class GrantGuest(_Base):
    """Grants exactly the pages of each buffer, read-only where the device only reads, references in a row."""

    def __init__(self, pages: int = 1024, domid: int = 5, staging: int = STAGING_BYTES) -> None:
        super().__init__(pages)
        self.domid = domid
        self.staging = staging
        self.table = FakeGrantTable(self.ram, domid)

    def share(self, offset: int, length: int, writable: bool) -> int:
        first, last = offset // PAGE_SIZE, (offset + max(length, 1) - 1) // PAGE_SIZE
        ref = self.table.grant(range(first, last + 1), writable)
        return GRANT_ADDRESS | ref << 12 | offset % PAGE_SIZE

    def unshare(self, address: int, length: int) -> None:
        count = (address % PAGE_SIZE + max(length, 1) - 1) // PAGE_SIZE + 1
        ref = (address >> 12) & 0xFFFFFFFF
        for k in range(count):
            self.table.revoke(ref + k)

    def memory(self) -> GrantMemory:
        return GrantMemory(self.table, self.domid, self.staging)


class ForeignGuest(_Base):
    """Frames from `base` on are its memory, in order; no others are."""

    def __init__(self, pages: int = 1024, domid: int = 5, base: int = 0x40000) -> None:
        super().__init__(pages)
        self.domid = domid
        self.base = base
        self.mapper = FakeForeignMapper(self.ram, domid, base)
        self.table = FakeGrantTable(self.ram, domid)  # its device pages are granted

    def share(self, offset: int, length: int, writable: bool) -> int:  # noqa: ARG002
        return (self.base << 12) + offset

    def memory(self, cache_bytes: int = 0) -> ForeignMemory:
        return ForeignMemory(self.mapper, self.domid, cache_bytes)


#: every kind, for tests that hold for all
KINDS: dict[str, Callable[[], RegionGuest | GrantGuest | ForeignGuest]] = {
    "regions": RegionGuest,
    "grant": GrantGuest,
    "foreign": ForeignGuest,
}
