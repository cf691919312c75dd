"""What guest memory needs of Xen, as protocols; `xenvirtio.xen` and `xenvirtio.testing` have each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class GrantTable(Protocol):
    """Pages that a guest granted to this domain."""

    def map(self, refs: Sequence[int], domid: int, writable: bool) -> int:
        """Map the pages next to each other, all or none (XenError); returns the first one's address."""
        ...

    def unmap(self, address: int, count: int) -> None:
        """Unmap what `map` mapped: `count` pages."""
        ...

    def copy(self, segments: int, count: int) -> None:
        """Do `count` copies, an array of struct gntdev_grant_copy_segment at the local address `segments`
        (Linux include/uapi/xen/gntdev.h). Each has its outcome in its own status; XenError only if the
        array as a whole was refused."""
        ...


class ForeignMapper(Protocol):
    """Frames of a guest, mapped by privilege."""

    def map(self, frames: Sequence[int], domid: int, writable: bool) -> tuple[int, list[int]]:
        """Map frames next to each other: the first one's address, and 0 or a negative errno for each.
        A page with an error must not be touched. XenError if nothing could be mapped at all."""
        ...

    def unmap(self, address: int, pages: int) -> None:
        """Unmap what `map` mapped."""
        ...
