"""A NIC: virtio-net on a tap (virtio 1.3 §5.1)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from xenvirtio.device.base import Notify, Wakeups, ignore_change, serve
from xenvirtio.device.net import space
from xenvirtio.device.net.config import link_setting
from xenvirtio.device.net.control import Control
from xenvirtio.device.net.engine import End, Engine
from xenvirtio.device.net.requests import Offloads, ReceiveFilter
from xenvirtio.device.net.tap import Tap
from xenvirtio.errors import GuestViolation
from xenvirtio.queue.batch import Batch
from xenvirtio.spec import net as spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xenvirtio.device.net.config import NetConfig
    from xenvirtio.queue.split import SplitQueue

RECEIVE_MAX = 128  # packets received at once…
RECEIVE_ROUNDS = 4  # …and how often in one wake-up, while there are buffers


class Link(Protocol):
    """What a NIC needs of a tap; tests bring a pair of sockets."""

    fd: int
    mtu: int

    def set_offloads(self, guest_features: int) -> None: ...

    def set_carrier(self, up: bool) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Inactive:
    """No driver: there are no queues, and packets from the host are left to the tap's own queue."""


@dataclass(frozen=True)
class Port:
    """One queue and the batch that goes round with it."""

    queue: SplitQueue
    batch: Batch

    @classmethod
    def on(cls, queue: SplitQueue | None) -> Port | None:
        return None if queue is None else cls(queue, Batch(queue.size))


@dataclass(frozen=True)
class Active:
    """A driver is there; a port is None if it did not set up that queue."""

    rx: Port | None
    tx: Port | None
    ctrl: Port | None
    control: Control
    notify: Notify


class NetDevice:
    """See xenvirtio.device.base.Device."""

    device_id = spec.DEVICE_ID
    queue_count = space.QUEUE_COUNT
    queue_size_max = space.QUEUE_SIZE_MAX
    features = space.FEATURES

    def __init__(self, config: NetConfig, link: Link | None = None) -> None:
        """Make the tap, unless a link is given, which then belongs to the device. Raises UsageError."""
        self.config_changed: Callable[[], None] = ignore_change
        self._config = config
        self._mac = config.mac
        self._plugged = config.link_up
        self._gone = False
        with contextlib.ExitStack() as stack:
            self._link: Link = Tap(config) if link is None else link
            stack.callback(self._link.close)
            if not self._plugged:
                self._link.set_carrier(False)
            self._wakeups = stack.enter_context(contextlib.closing(Wakeups()))
            self._stack = stack.pop_all()
        self._engine = Engine(self._link.fd)
        self._filter = ReceiveFilter(config.mac, False)
        self._refused = 0
        self._ignored_kicks = 0
        self._state: Inactive | Active = Inactive()

    @property
    def _link_up(self) -> bool:
        return self._plugged and not self._gone

    @property
    def counters(self) -> Mapping[str, int]:
        refused = self._state.control.refused if isinstance(self._state, Active) else 0
        return {
            **self._engine.counters(),
            "control_refused": self._refused + refused,
            "ignored_kicks": self._ignored_kicks,
        }

    def config(self) -> bytes:
        return space.config(self._mac, self._link_up, self._link.mtu)

    def write_config(self, offset: int, data: bytes) -> bool:  # noqa: ARG002
        """Nothing in it can be written (§5.1.4); the address is set by the control queue."""
        return False

    def update(self, settings: Mapping[str, str]) -> None:
        """The link can go up and down (§5.1.4.2): nothing is sent or received while it is down."""
        plugged = link_setting(settings, self._config.vifname)
        if plugged == self._plugged:
            return
        self._link.set_carrier(plugged)
        self._plugged = plugged
        if plugged:
            self._engine.drain()  # what came in between
        self.config_changed()
        self._wakeups.again()

    def activate(self, features: int, queues: Sequence[SplitQueue | None], notify: Notify) -> None:
        self.deactivate()
        self._filter = ReceiveFilter(self._mac, bool(features & spec.F_CTRL_VLAN))
        control = Control(features, self._filter, self._set_mac, self._set_offloads)
        self._engine.configure(features, self._filter)
        self._engine.drain()
        self._link.set_offloads(features & spec.GUEST_OFFLOADS)
        rx, tx, ctrl = (Port.on(queue) for queue in queues)
        self._state = Active(rx, tx, ctrl if features & spec.F_CTRL_VQ else None, control, notify)
        self._wakeups.again()

    def deactivate(self) -> None:
        if isinstance(self._state, Active):
            self._refused += self._state.control.refused
            # what comes from now on is finished by the host, and good for any driver
            self._link.set_offloads(0)
        self._state = Inactive()
        self._wakeups.watch(self._link.fd, False)
        self._mac = self._config.mac

    def kick(self, queue: int) -> None:
        state = self._state
        if isinstance(state, Active):
            if queue == spec.QUEUE_RX and state.rx is not None:
                return self._receive(state)
            if queue == spec.QUEUE_TX and state.tx is not None:
                return self._transmit(state)
            if queue == spec.QUEUE_CTRL and state.ctrl is not None:
                return self._command(state)
        self._ignored_kicks += 1
        return None

    def _transmit(self, active: Active) -> None:
        run = self._engine.transmit if self._link_up else self._engine.discard
        if active.tx is not None:
            serve(active.tx.queue, active.tx.batch, run, active.notify, self._wakeups)

    def _command(self, active: Active) -> None:
        if active.ctrl is not None:
            serve(active.ctrl.queue, active.ctrl.batch, active.control.run, active.notify, self._wakeups)

    def _receive(self, active: Active) -> None:
        """Hand packets to the guest while there are packets and buffers; the tap is watched only then."""
        port = active.rx
        if port is None or not self._link_up:
            self._wakeups.watch(self._link.fd, False)
            return
        self._refill(port)
        full = False
        for _ in range(RECEIVE_ROUNDS):
            used = self._engine.receive(port.batch, full or self._is_full(port), RECEIVE_MAX)
            if used:
                port.queue.give_some(port.batch, used)
            if self._engine.end != End.STARVED:
                break
            if self._refill(port) or used:
                continue
            if not port.queue.wants_kicks(True):
                break
            # Buffers are there: if they cannot be taken, then those at hand are all there will be.
            full = not self._refill(port)
        else:
            self._wakeups.again()
        if port.queue.should_notify():
            active.notify(spec.QUEUE_RX)
        if self._engine.end == End.GONE:
            self._wakeups.watch(self._link.fd, False)
            self._gone = True
            self.config_changed()
        else:
            self._wakeups.watch(self._link.fd, self._engine.end != End.STARVED)

    def _refill(self, port: Port) -> bool:
        """Hold all buffers that the driver made available; whether there were any. Raises GuestViolation."""
        before = port.batch.count
        port.queue.wants_kicks(False)
        port.queue.take(port.batch)
        for i in range(before, port.batch.count):
            if port.batch.write_bytes[i] < spec.HEADER_SIZE and not port.batch.fault[i]:
                raise GuestViolation("virtio 1.3 §5.1.6.3.1: a receive buffer holds a packet header at least")
        return port.batch.count > before

    def _is_full(self, port: Port) -> bool:
        """Whether the driver has hardly a way to add buffers: half of the ring's descriptors, or half of its
        entries, are held here. However long its chains, it can always get there."""
        batch = port.batch
        return 2 * max(batch.count, sum(batch.depth[: batch.count])) >= port.queue.size

    def pollers(self) -> Mapping[int, Callable[[], None]]:
        return {self._wakeups.fileno(): self._wake}

    def _wake(self) -> None:
        for fd in self._wakeups.ready():
            state = self._state
            if not isinstance(state, Active):
                continue
            self._receive(state)
            if fd < 0:
                self._transmit(state)
                self._command(state)

    def _set_mac(self, mac: bytes) -> None:
        self._mac = mac
        self._filter.set_station(mac)
        self.config_changed()

    def _set_offloads(self, offloads: int) -> None:
        self._engine.offloads = Offloads(offloads)
        self._link.set_offloads(offloads)

    def close(self) -> None:
        self.deactivate()
        self._stack.close()
