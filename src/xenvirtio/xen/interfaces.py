"""What the rest of xenvirtio sees of Xen, as protocols.

Two things stand behind each: Xen's own libraries (the other files of this room) and the in-process Xen of
`xenvirtio.testing.xen`. Grant tables and foreign memory have theirs in `memory/interfaces.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

#: longest value and longest list of names that is read or written, bytes (xen/include/public/io/xs_wire.h)
PAYLOAD_MAX = 4096


class View(Protocol):
    """XenStore, or one transaction on it. A missing node is None; every other failure is a XenError."""

    def read(self, path: str) -> str | None: ...

    def write(self, path: str, value: str) -> None: ...

    def names(self, path: str) -> list[str] | None:
        """The names directly below `path`; None if there is no such node."""
        ...

    def mkdir(self, path: str) -> None: ...

    def remove(self, path: str) -> bool:
        """Removes a node and all below it; False if it was not there."""
        ...

    def permissions(self, path: str) -> list[str] | None: ...

    def set_permissions(self, path: str, permissions: Sequence[str]) -> None:
        """`n5` owner is domain 5, nobody else; `r0` domain 0 may read (docs/misc/xenstore.txt, SET_PERMS)."""
        ...


class Store(View, Protocol):
    """One connection to XenStore."""

    def transact(self, body: Callable[[View], T], attempts: int = 16) -> T:
        """Runs `body` in a transaction; again, at most `attempts` times, if another came between (EAGAIN)."""
        ...

    def watch(self, path: str, token: str) -> None: ...

    def unwatch(self, path: str, token: str) -> None: ...

    def events(self, limit: int = 64) -> list[tuple[str, str]]:
        """Watch events that have come, (path, token), at most `limit`; never waits."""
        ...

    def fileno(self) -> int:
        """Readable while events are waiting."""
        ...

    def domain_exists(self, domid: int) -> bool:
        """Whether XenStore knows the domain. Raises XenError if it cannot be asked."""
        ...

    def introduce(self, domid: int, frame: int, port: int) -> None:
        """xenstored talks with the domain by the ring in this frame and this port of the domain's."""
        ...

    def forget(self) -> None:
        """In a forked child: drops the handle without a word to xenstored."""
        ...

    def close(self) -> None: ...


class EventChannels(Protocol):
    """One handle on the event channel device."""

    def bind(self, domid: int, remote_port: int) -> int:
        """Binds to a port that `domid` left unbound for us; returns the local port."""
        ...

    def notify(self, port: int) -> None: ...

    def pending(self) -> int | None:
        """A local port with an event, masked until `unmask`; None if there is none."""
        ...

    def unmask(self, port: int) -> None: ...

    def unbind(self, port: int) -> None: ...

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class DeviceModel(Protocol):
    """IOREQ servers, which Xen tells what HVM and PVH guests do (spec/ioreq.py). They outlive this object."""

    def create(self, domid: int) -> int:
        """A new server, which hears of nothing until it is enabled; its number. Raises XenError: EINVAL for
        a PV guest."""
        ...

    def map_page(self, domid: int, server: int) -> int:
        """The local address of the page with its requests. Raises XenError: ENOENT if there is no such
        server."""
        ...

    def unmap_page(self, address: int) -> None:
        """Undoes `map_page`."""
        ...

    def enable(self, domid: int, server: int, on: bool) -> None:
        """Whether it gets requests; no vCPU is on the way to one any more when this returns."""
        ...

    def destroy(self, domid: int, server: int) -> None:
        """A vCPU that waits for an answer from it is not woken by that: answer first."""
        ...

    def close(self) -> None: ...


class DomainControl(Protocol):
    """What only the toolstack may do to a domain, beside xl; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def soft_reset(self, domid: int) -> None:
        """A domain that has shut down goes on, without event channels, vCPUs' areas and shared info."""
        ...

    def offer(self, domid: int, remote: int) -> int:
        """A new port of the domain's which `remote` may bind."""
        ...

    def parameter(self, domid: int, index: int) -> int:
        """One of HVM_PARAM_*."""
        ...

    def set_parameter(self, domid: int, index: int, value: int) -> None: ...
