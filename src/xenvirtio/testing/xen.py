"""An in-process Xen: XenStore with watches, transactions and permissions, and event channels.

    xen = FakeXen()
    xen.start_domain(5, "guest")
    store, channels = xen.connect(0), xen.channels(0)

Grants and foreign frames are a guest's own: `testing.guest`. It behaves as oxenstored and Linux's evtchn
device do, as far as a backend can see.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

from xenvirtio.errors import XenError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenvirtio.xen.interfaces import View

T = TypeVar("T")


@dataclass
class Node:
    value: str
    permissions: list[str]


@dataclass
class Tree:
    """All nodes, by absolute path, and who watches them."""

    nodes: dict[str, Node] = field(default_factory=lambda: {"": Node("", ["n0", "r0"])})
    generation: int = 0
    connections: list[FakeStore] = field(default_factory=list)

    def fire(self, path: str, removed: bool = False) -> None:
        for connection in self.connections:
            connection.fired(path, removed)


class FakeView:
    """Nodes as one domain sees them: of a tree, or of a transaction's copy."""

    def __init__(self, nodes: dict[str, Node], domid: int) -> None:
        self._nodes, self.domid = nodes, domid
        self._changes: list[tuple[str, bool]] = []

    def _absolute(self, path: str) -> str:
        if (path != "/" and path.endswith("/")) or "//" in path or not path:
            raise XenError(f"XenStore: {path}: Invalid argument", errno.EINVAL)
        return path.rstrip("/") if path.startswith("/") else f"/local/domain/{self.domid}/{path}"

    def _may(self, node: Node, what: str) -> bool:
        if self.domid == 0 or node.permissions[0] == f"{node.permissions[0][0]}{self.domid}":
            return True
        for permission in node.permissions[1:]:
            if permission[1:] == str(self.domid):
                return permission[0] in ("b", what)
        return node.permissions[0][0] in ("b", what)

    def _check(self, path: str, what: str) -> Node:
        node = self._nodes[path]
        if not self._may(node, what):
            raise XenError(f"XenStore: {path}: Permission denied", errno.EACCES)
        return node

    def _changed(self, path: str, removed: bool = False) -> None:
        self._changes.append((path, removed))

    def read(self, path: str) -> str | None:
        path = self._absolute(path)
        return self._check(path, "r").value if path in self._nodes else None

    def names(self, path: str) -> list[str] | None:
        path = self._absolute(path)
        if path not in self._nodes:
            return None
        self._check(path, "r")
        start = f"{path}/"
        return sorted({each[len(start) :].split("/")[0] for each in self._nodes if each.startswith(start)})

    def write(self, path: str, value: str) -> None:
        path = self._absolute(path)
        if path in self._nodes:
            self._check(path, "w").value = value
        else:
            self._make(path).value = value
        self._changed(path)

    def mkdir(self, path: str) -> None:
        path = self._absolute(path)
        if path not in self._nodes:
            self._make(path)
            self._changed(path)

    def _make(self, path: str) -> Node:
        parent = path.rpartition("/")[0]
        if parent not in self._nodes:
            self._make(parent)
        permissions = list(self._check(parent, "w").permissions)
        if self.domid:
            permissions[0] = f"{permissions[0][0]}{self.domid}"
        node = self._nodes[path] = Node("", permissions)
        return node

    def remove(self, path: str) -> bool:
        path = self._absolute(path)
        if path not in self._nodes:
            return False
        self._check(path, "w")
        for each in [each for each in self._nodes if each == path or each.startswith(f"{path}/")]:
            del self._nodes[each]
        self._changed(path, removed=True)
        return True

    def permissions(self, path: str) -> list[str] | None:
        path = self._absolute(path)
        return list(self._check(path, "r").permissions) if path in self._nodes else None

    def set_permissions(self, path: str, permissions: Sequence[str]) -> None:
        path = self._absolute(path)
        node = self._nodes.get(path)
        if node is None:
            raise XenError(f"XenStore: {path}: No such file or directory", errno.ENOENT)
        if self.domid and node.permissions[0][1:] != str(self.domid):
            raise XenError(f"XenStore: {path}: Permission denied", errno.EACCES)
        node.permissions = list(permissions)
        self._changed(path)


class FakeStore(FakeView):
    """One domain's connection to XenStore; a `Store`."""

    def __init__(self, xen: FakeXen, domid: int) -> None:
        super().__init__(xen.tree.nodes, domid)
        self._xen = xen
        self._watches: list[tuple[str, str, str]] = []
        self._events: deque[tuple[str, str]] = deque()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.conflicts = 0
        """so many transactions to come meet another one (EAGAIN)"""
        xen.tree.connections.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _changed(self, path: str, removed: bool = False) -> None:
        self._xen.tree.generation += 1
        self._xen.tree.fire(path, removed)

    def transact(self, body: Callable[[View], T], attempts: int = 16) -> T:
        tree = self._xen.tree
        for _ in range(attempts):
            before = tree.generation
            copy = {path: Node(node.value, list(node.permissions)) for path, node in tree.nodes.items()}
            view = FakeView(copy, self.domid)
            result = body(view)
            if self.conflicts:
                self.conflicts -= 1
            elif tree.generation == before:
                tree.nodes.clear()
                tree.nodes.update(copy)
                for path, removed in view._changes:
                    self._changed(path, removed)
                return result
        raise XenError(f"XenStore: a transaction met others {attempts} times", errno.EAGAIN)

    def watch(self, path: str, token: str) -> None:
        special = path.startswith("@")
        self._watches.append((path if special else self._absolute(path), path, token))
        self._queue(path, token)

    def unwatch(self, path: str, token: str) -> None:
        self._watches = [each for each in self._watches if each[1:] != (path, token)]
        self._events = deque(each for each in self._events if each[1] != token)

    def fired(self, path: str, removed: bool) -> None:
        """A node has changed, or was removed with all below it."""
        for watched, name, token in self._watches:
            if path == watched or path.startswith(f"{watched}/"):
                self._queue(name + path[len(watched) :], token)
            elif removed and watched.startswith(f"{path}/"):
                self._queue(name, token)

    def _queue(self, path: str, token: str) -> None:
        self._events.append((path, token))
        os.eventfd_write(self._fd, 1)

    def events(self, limit: int = 64) -> list[tuple[str, str]]:
        found = [self._events.popleft() for _ in range(min(limit, len(self._events)))]
        if not self._events:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._fd)
        return found

    def fileno(self) -> int:
        return self._fd

    def domain_exists(self, domid: int) -> bool:
        return domid in self._xen.domains

    def forget(self) -> None:
        self.close()

    def close(self) -> None:
        if self in self._xen.tree.connections:
            self._xen.tree.connections.remove(self)
            os.close(self._fd)


@dataclass
class Channel:
    """One end of an event channel."""

    domid: int
    remote: int
    """the domain that may bind it"""
    peer: Channel | None = None
    owner: FakeEventChannels | None = None
    port: int = 0


class FakeXen:
    """A machine: its domains, XenStore, event channels."""

    def __init__(self) -> None:
        self.tree = Tree()
        self.domains: dict[int, str] = {}
        self.ports: dict[tuple[int, int], Channel] = {}
        self._control = FakeStore(self, 0)
        self.start_domain(0, "Domain-0")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        for connection in list(self.tree.connections):
            connection.close()

    def start_domain(self, domid: int, name: str, kind: str = "pv") -> None:
        """Makes a domain with the nodes that libxl gives it."""
        self.domains[domid] = name
        home = f"/local/domain/{domid}"
        self._control.write(f"{home}/name", name)
        self._control.write(f"{home}/domid", str(domid))
        self._control.write(f"{home}/vm", f"/vm/00000000-0000-4000-8000-{domid:012d}")
        self._control.write(f"/libxl/{domid}/type", kind)
        self._control.mkdir(f"{home}/device")
        self._control.set_permissions(f"{home}/device", [f"n{domid}", "r0"])

    def destroy_domain(self, domid: int) -> None:
        """As `xl destroy`: its home is removed, @releaseDomain fires, its ports are closed."""
        del self.domains[domid]
        self._control.remove(f"/local/domain/{domid}")
        for (owner, port), channel in list(self.ports.items()):
            if owner == domid:
                if channel.peer is not None:
                    channel.peer.peer = None
                del self.ports[owner, port]
        self.tree.fire("@releaseDomain")

    def connect(self, domid: int) -> FakeStore:
        return FakeStore(self, domid)

    def channels(self, domid: int) -> FakeEventChannels:
        return FakeEventChannels(self, domid)

    def new_port(self, channel: Channel) -> int:
        port = 1
        while (channel.domid, port) in self.ports:
            port += 1
        self.ports[channel.domid, port] = channel
        channel.port = port
        return port


class FakeEventChannels:
    """A handle on a domain's event channels; an `EventChannels`. Closing it unbinds what it bound."""

    def __init__(self, xen: FakeXen, domid: int) -> None:
        self._xen, self.domid = xen, domid
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ready: deque[int] = deque()
        self._masked: set[int] = set()
        self._pending: set[int] = set()
        self._own: set[int] = set()
        self.closed = False
        self.notified = 0

    def offer(self, remote: int) -> int:
        """A port that `remote` may bind."""
        channel = Channel(self.domid, remote, owner=self)
        self._own.add(self._xen.new_port(channel))
        return channel.port

    def bind(self, domid: int, remote_port: int) -> int:
        peer = self._xen.ports.get((domid, remote_port))
        if peer is None or peer.remote != self.domid or peer.peer is not None:
            raise XenError(f"cannot bind port {remote_port} of domain {domid}", errno.EINVAL)
        channel = Channel(self.domid, domid, peer, self)
        peer.peer = channel
        self._own.add(self._xen.new_port(channel))
        self.raised(channel.port)  # Xen leaves a new port pending
        return channel.port

    def notify(self, port: int) -> None:
        if port not in self._own:
            raise XenError(f"cannot notify port {port}", errno.ENOTCONN)
        self.notified += 1
        channel = self._xen.ports.get((self.domid, port))
        if channel is not None and channel.peer is not None and channel.peer.owner is not None:
            channel.peer.owner.raised(channel.peer.port)

    def raised(self, port: int) -> None:
        """An event for a port of this handle."""
        if port in self._masked:
            self._pending.add(port)
        elif not self.closed:
            self._masked.add(port)
            self._ready.append(port)
            os.eventfd_write(self._fd, 1)

    def pending(self) -> int | None:
        if not self._ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._fd)
            return None
        return self._ready.popleft()

    def unmask(self, port: int) -> None:
        self._masked.discard(port)
        if port in self._pending:
            self._pending.discard(port)
            self.raised(port)

    def unbind(self, port: int) -> None:
        self._own.discard(port)
        self._masked.discard(port)
        self._pending.discard(port)
        channel = self._xen.ports.pop((self.domid, port), None)
        if channel is not None and channel.peer is not None:
            channel.peer.peer = None  # the other end is unbound again, for the same domain

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for port in list(self._own):
                self.unbind(port)
            os.close(self._fd)
