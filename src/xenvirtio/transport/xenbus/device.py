"""One virtio device behind a device page: its life, its events, its kicks.

Commands are carried out by `transport.xenbus.commands`. Sources: docs/virtio-xenbus.md; virtio 1.3 §2.1,
§3.1.

    0 ──► ACKNOWLEDGE ──► DRIVER ──► FEATURES_OK ──► DRIVER_OK ──┐ kicks
    ▲        (bits are only added)       │ QUEUE_ENABLE          │ and pollers
    │                                    └───────────────────────┤ the guest breaks a rule
    └───────────── SET_STATUS 0, from everywhere ◄── NEEDS_RESET ┘ (one log line; the device stops)

A rule broken in a command is that command's Result and nothing more; one broken in a ring stops the device.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from xenvirtio.device.base import ignore_change
from xenvirtio.errors import GuestViolation, XenError, XenvirtioError
from xenvirtio.queue.config import QueueConfig
from xenvirtio.queue.split import SplitQueue
from xenvirtio.spec import virtio
from xenvirtio.spec.xenbus import DEV_CONFIG_MAX, Command, Result
from xenvirtio.transport.xenbus.commands import STOPPED, TRANSPORT_FEATURES, execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from xenvirtio.device.base import Device
    from xenvirtio.memory.base import GuestMemory
    from xenvirtio.transport.xenbus.page import DevicePage
    from xenvirtio.transport.xenbus.ports import Port
    from xenvirtio.transport.xenbus.saved import Saved, SavedQueue

    class Line(Protocol):
        """The device's event channels."""

        def notify(self) -> None:
            """An event on the device's port."""

        def bind(self, remote: int, handler: Callable[[], bool]) -> Port:
            """A queue's own port. Raises XenError."""


logger = logging.getLogger(__name__)


class XenbusDevice:
    """A device that a frontend is connected to, from its first Connected to its closing.

    `memory`, `page` and `line` are the caller's to close, after `close`. `save` is called before a command is
    answered.
    """

    def __init__(
        self,
        label: str,
        device: Device,
        memory: GuestMemory,
        page: DevicePage,
        line: Line,
        saved: Saved,
        save: Callable[[Saved], None],
    ) -> None:
        self.label, self.device, self.saved = label, device, saved
        self._memory, self._page, self._line, self._save = memory, page, line, save
        self.offered = device.features | TRANSPORT_FEATURES
        self._queues: dict[int, SplitQueue] = {}
        self._ports: dict[int, Port] = {}
        self._active = False
        self.violations = 0
        self.faults = 0
        self.kicks = 0
        self.ignored_kicks = 0
        device.config_changed = self._config_changed

    # --- life ---

    def start(self) -> None:
        """A new connection: fills the page."""
        self._page.clear()
        self._page.publish(self.device.device_id, self.device.queue_count, self.offered)
        self.show_config()
        self._save(self.saved)

    def resume(self) -> None:
        """A restarted worker's connection: goes on with what `saved` says, then wakes everybody.

        Raises GuestViolation or XenError if the guest's rings or ports cannot be had any more.
        """
        self._page.publish(self.device.device_id, self.device.queue_count, self.offered)
        self._page.continue_generation(self.saved.generation)
        self.show_config()
        if self._reset_is_due():
            # the driver may have given up and taken its rings back: not even one is opened (XB-60)
            self._command()
        saved = self.saved
        for queue in saved.queues:
            self.open_queue(queue, resume=True)
        self._page.set_status(saved.status)
        self._page.answer(saved.sequence, Result(saved.result), saved.value)
        if saved.status & virtio.STATUS_DRIVER_OK and not saved.status & STOPPED:
            self.activate()
            for index in list(self._queues):
                self._kick(index)
        self._line.notify()
        for port in list(self._ports.values()):
            port.notify()

    def close(self) -> None:
        """Stops the device and lets go of rings and queue ports; the device itself stays open."""
        self.device.config_changed = ignore_change
        self.stop()

    @property
    def status(self) -> int:
        """The device status field."""
        return self.saved.status

    @property
    def features(self) -> int:
        """The negotiated features."""
        return self.saved.features

    @property
    def enabled_queues(self) -> list[int]:
        """Indexes of the queues that the driver has set up."""
        return sorted(self._queues)

    @property
    def queue_channels(self) -> int:
        """How many queues have an event channel of their own (XB-67)."""
        return len(self._ports)

    # --- events ---

    def event(self) -> bool:
        """The frontend's event on the device's port: a command, a kick, or nothing; True if there was any."""
        before = self._active
        busy = self._command()
        started = self._active and not before  # kicks may have come before DRIVER_OK
        for index in list(self._queues):
            if started or index not in self._ports:
                busy |= self._kick(index)
        return busy

    def poll(self, call: Callable[[], None]) -> None:
        """Runs a poller of the device: what a guest breaks there stops the device just the same."""
        try:
            call()
        except (XenvirtioError, OSError) as error:
            self._break("-", error)

    def _kick(self, index: int) -> bool:
        """True if the driver had made chains available."""
        queue = self._queues.get(index)
        if queue is None or not self._active:
            self.ignored_kicks += 1
            return False
        self.kicks += 1
        try:
            busy = queue.available() != 0
            self.device.kick(index)
        except (XenvirtioError, OSError) as error:
            self._break(str(index), error)
            return True
        return busy

    def _break(self, queue: str, error: Exception) -> None:
        """Stops the device until the driver resets it."""
        self.violations += 1
        rule = error.rule if isinstance(error, GuestViolation) else str(error)
        logger.warning("%s queue %s: stopped, the guest must reset it: %s", self.label, queue, rule)
        self.stop()
        status = self.saved.status | virtio.STATUS_DEVICE_NEEDS_RESET
        self.saved = replace(self.saved, status=status, queues=())
        self._save(self.saved)
        self._page.set_status(status)
        self._line.notify()

    # --- the configuration space ---

    def config(self) -> bytes:
        """As much of it as the page can hold."""
        return self.device.config()[:DEV_CONFIG_MAX]

    def _config_changed(self) -> None:
        self.show_config()
        self._save(self.saved)
        self._line.notify()

    def show_config(self) -> None:
        """Brings it into the page, under the next generation."""
        self._page.set_config(self.config())
        self.saved = replace(self.saved, generation=self._page.generation)

    # --- queues ---

    def _interrupt(self, index: int) -> None:
        port = self._ports.get(index)
        if port is None:
            self._line.notify()
        else:
            port.notify()

    def activate(self) -> None:
        """DRIVER_OK: the device serves its queues. One that cannot needs a reset."""
        queues = [self._queues.get(index) for index in range(self.device.queue_count)]
        self._active = True
        try:
            self.device.activate(self.saved.features, queues, self._interrupt)
        except (XenvirtioError, OSError) as error:
            self._break("-", error)

    def stop(self) -> None:
        """Stops the device and lets go of all queues and their ports: each, whatever happens with another.

        Raises what the last of those raised that failed. The worker ends by it: what cannot be let go of must
        not be acknowledged, and does not outlive the process.
        """
        self._active = False
        ports, self._ports = self._ports, {}
        queues, self._queues = self._queues, {}
        with contextlib.ExitStack() as stack:  # from the last to the first
            for queue in queues.values():
                stack.callback(queue.close)
            for port in ports.values():
                stack.callback(port.close)
            stack.callback(self.device.deactivate)

    def open_queue(self, saved: SavedQueue, *, resume: bool) -> None:
        """Maps a queue's rings, binds its port. Raises GuestViolation or XenError; nothing stays then."""
        config = QueueConfig(saved.index, saved.size, saved.desc, saved.driver, saved.device)
        queue = SplitQueue(self._memory, config, self.saved.features, resume=resume)
        if saved.port:
            try:
                self._ports[saved.index] = self._line.bind(saved.port, lambda: self._kick(saved.index))
            except XenError:
                queue.close()
                raise
        self._queues[saved.index] = queue

    def close_queue(self, index: int) -> None:
        """Lets go of a queue and of its port; does nothing if it is not open."""
        queue, port = self._queues.pop(index, None), self._ports.pop(index, None)
        with contextlib.ExitStack() as stack:
            if queue is not None:
                stack.callback(queue.close)
            if port is not None:
                stack.callback(port.close)

    def _reset_is_due(self) -> bool:
        request = self._page.request(self.saved.sequence)
        return request is not None and request.command == Command.SET_STATUS and request.value == 0

    def _command(self) -> bool:
        request = self._page.request(self.saved.sequence)
        if request is None:
            return False
        result, value = execute(self, request)
        self.saved = replace(
            self.saved,
            sequence=request.sequence,
            result=int(result),
            value=value,
            queues=tuple(queue for queue in self.saved.queues if queue.index in self._queues),
        )
        self._save(self.saved)
        self._page.set_status(self.saved.status)
        self._page.answer(request.sequence, result, value)
        self._line.notify()
        return True
