"""In-process event channels, as Xen has them and Linux's evtchn device shows them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from dataclasses import dataclass

from xenvirtio.errors import XenError


@dataclass
class Channel:
    """One end of an event channel."""

    domid: int
    remote: int
    """the domain that may bind it"""
    peer: Channel | None = None
    owner: FakeEventChannels | None = None
    port: int = 0


class Machine:
    """All ports of all domains, by (domid, port)."""

    def __init__(self) -> None:
        self.ports: dict[tuple[int, int], Channel] = {}

    def new_port(self, channel: Channel) -> int:
        """Gives the channel the lowest port that its domain has free."""
        port = 1
        while (channel.domid, port) in self.ports:
            port += 1
        self.ports[channel.domid, port] = channel
        channel.port = port
        return port

    def close_domain(self, domid: int) -> None:
        """The domain is gone, and its ends with it."""
        for (owner, port), channel in list(self.ports.items()):
            if owner == domid:
                if channel.peer is not None:
                    channel.peer.peer = None
                del self.ports[owner, port]


class FakeEventChannels:
    """A handle on a domain's event channels; an `EventChannels`. Closing it unbinds what it bound."""

    def __init__(self, machine: Machine, domid: int) -> None:
        self._machine, self.domid = machine, domid
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
        self._own.add(self._machine.new_port(channel))
        return channel.port

    def bind(self, domid: int, remote_port: int) -> int:
        peer = self._machine.ports.get((domid, remote_port))
        if peer is None or peer.remote != self.domid or peer.peer is not None:
            raise XenError(f"cannot bind port {remote_port} of domain {domid}", errno.EINVAL)
        channel = Channel(self.domid, domid, peer, self)
        peer.peer = channel
        self._own.add(self._machine.new_port(channel))
        self.raised(channel.port)  # Xen leaves a new port pending
        return channel.port

    def notify(self, port: int) -> None:
        if port not in self._own:
            raise XenError(f"cannot notify port {port}", errno.ENOTCONN)
        self.notified += 1
        channel = self._machine.ports.get((self.domid, port))
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
        channel = self._machine.ports.pop((self.domid, port), None)
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
