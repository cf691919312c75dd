"""An in-process XenStore: watches, transactions, permissions; what a backend can see of oxenstored's."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

from xenvirtio.errors import XenError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

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

    def __init__(self, tree: Tree, domid: int, domains: Container[int]) -> None:
        super().__init__(tree.nodes, domid)
        self._tree, self._domains = tree, domains
        self._watches: list[tuple[str, str, str]] = []
        self._events: deque[tuple[str, str]] = deque()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.conflicts = 0
        """so many transactions to come meet another one (EAGAIN)"""
        tree.connections.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _changed(self, path: str, removed: bool = False) -> None:
        self._tree.generation += 1
        self._tree.fire(path, removed)

    def transact(self, body: Callable[[View], T], attempts: int = 16) -> T:
        tree = self._tree
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
        if any(each[1:] == (path, token) for each in self._watches):
            raise XenError(f"XenStore: cannot watch {path}: {os.strerror(errno.EEXIST)}", errno.EEXIST)
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

    @property
    def waiting(self) -> int:
        """Watch events that nobody has read yet."""
        return len(self._events)

    def fileno(self) -> int:
        return self._fd

    def domain_exists(self, domid: int) -> bool:
        return domid in self._domains

    def introduce(self, domid: int, frame: int, port: int) -> None:
        raise NotImplementedError("no ring is modelled")

    def forget(self) -> None:
        self.close()

    def close(self) -> None:
        if self in self._tree.connections:
            self._tree.connections.remove(self)
            os.close(self._fd)
