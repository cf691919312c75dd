"""Event channels of one worker: which port calls what, when a port is heard again, and what a storm costs.

A port stays masked while its event is handled and is unmasked afterwards (late EOI, XSA-332). A port whose
events lead to nothing, one after another, stays masked for a while: 1 ms at first, doubled up to 128 ms.
One event that has work clears its record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.xen.interfaces import EventChannels

#: events without work, in a row, that cost nothing: an honest driver's kick may come when its chain is done
SPURIOUS_FREE = 64
PENALTY_FIRST = 0.001  # seconds
PENALTY_DOUBLINGS = 7
#: events handled before the loop turns to other descriptors: an order to stop among them, which has a second
EVENTS_AT_ONCE = 8


@dataclass
class EventCounters:
    """Events of one device, on all its ports.

    To send one is a hypercall (EVTCHNOP_send). To hear a port again is one only where the next event has come
    meanwhile, which the kernel does not tell.
    """

    received: int = 0
    spurious: int = 0
    """received for nothing"""
    sent: int = 0


class Port:
    """A bound port. `close` unbinds it."""

    def __init__(
        self, ports: Ports, local: int, remote: int, handler: Callable[[], bool], counters: EventCounters
    ) -> None:
        self._ports, self.local, self.remote, self.handler = ports, local, remote, handler
        self.counters = counters
        self.spurious = 0

    def notify(self) -> None:
        """Sends the guest an event."""
        self.counters.sent += 1
        self._ports.channels.notify(self.local)

    def handle(self) -> None:
        """An event has come."""
        self.counters.received += 1
        if self.handler():
            self.spurious = 0
        else:
            self.spurious += 1
            self.counters.spurious += 1

    def unmask(self) -> None:
        """The port is heard again."""
        self._ports.channels.unmask(self.local)

    def close(self) -> None:
        """Unbinds the port; does nothing the second time."""
        self._ports.release(self)


class Ports:
    """All ports of one handle on the event channel device.

    `later(seconds, call)` runs something later: the event loop's.
    """

    def __init__(self, channels: EventChannels, later: Callable[[float, Callable[[], None]], object]) -> None:
        self.channels = channels
        self._later = later
        self._bound: dict[int, Port] = {}
        self.events = 0
        self.penalties = 0

    def bind(
        self, domid: int, remote: int, handler: Callable[[], bool], counters: EventCounters | None = None
    ) -> Port:
        """Binds the guest's port `remote`; `handler` tells whether there was anything to do. Raises
        XenError."""
        local = self.channels.bind(domid, remote)
        port = Port(self, local, remote, handler, counters or EventCounters())
        self._bound[port.local] = port
        return port

    def release(self, port: Port) -> None:
        """Unbinds a port."""
        if self._bound.pop(port.local, None) is port:
            self.channels.unbind(port.local)

    def ready(self) -> None:
        """Handles events that have come: the event channel device is readable."""
        for _ in range(EVENTS_AT_ONCE):
            number = self.channels.pending()
            if number is None:
                return
            self.events += 1
            port = self._bound.get(number)
            if port is None:  # released while its event was on the way
                continue
            port.handle()
            if self._bound.get(number) is not port:  # its own event closed it
                continue
            if port.spurious <= SPURIOUS_FREE:
                port.unmask()
            else:
                self._punish(port)

    def _punish(self, port: Port) -> None:
        self.penalties += 1
        doublings = min(port.spurious - SPURIOUS_FREE - 1, PENALTY_DOUBLINGS)

        def unmask() -> None:
            if self._bound.get(port.local) is port:
                port.unmask()

        self._later(PENALTY_FIRST * 2**doublings, unmask)
