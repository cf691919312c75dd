"""One virtio device behind a device page: status, commands, kicks.

Sources: docs/virtio-xenbus.md; virtio 1.3 §2.1, §3.1.

    0 ──► ACKNOWLEDGE ──► DRIVER ──► FEATURES_OK ──► DRIVER_OK ──┐ kicks
    ▲        (bits are only added)       │ QUEUE_ENABLE          │ and pollers
    │                                    └───────────────────────┤ the guest breaks a rule
    └───────────── SET_STATUS 0, from everywhere ◄── NEEDS_RESET ┘ (one log line; the device stops)

A rule broken in a command is that command's Result and nothing more; one broken in a ring stops the device.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from xenvirtio.errors import GuestViolation, MemoryViolation, XenError, XenvirtioError
from xenvirtio.queue.config import QueueConfig
from xenvirtio.queue.split import SplitQueue
from xenvirtio.spec import virtio
from xenvirtio.spec.xenbus import DEV_CONFIG_MAX, DRV_DATA_MAX, Command, Result
from xenvirtio.transport.xenbus.saved import Saved, SavedQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from xenvirtio.device.base import Device
    from xenvirtio.memory.base import GuestMemory
    from xenvirtio.transport.xenbus.page import DevicePage, Request
    from xenvirtio.transport.xenbus.ports import Port

    class Line(Protocol):
        """The device's event channels."""

        def notify(self) -> None:
            """An event on the device's port."""

        def bind(self, remote: int, handler: Callable[[], bool]) -> Port:
            """A queue's own port. Raises XenError."""


logger = logging.getLogger(__name__)

#: bits that the transport offers for every device
REQUIRED_FEATURES = virtio.F_VERSION_1 | virtio.F_ACCESS_PLATFORM
TRANSPORT_FEATURES = REQUIRED_FEATURES | virtio.F_INDIRECT_DESC | virtio.F_EVENT_IDX
#: status bits that a driver may set
SETTABLE = (
    virtio.STATUS_ACKNOWLEDGE
    | virtio.STATUS_DRIVER
    | virtio.STATUS_DRIVER_OK
    | virtio.STATUS_FEATURES_OK
    | virtio.STATUS_FAILED
)
#: status bits after which only a reset helps
STOPPED = virtio.STATUS_DEVICE_NEEDS_RESET | virtio.STATUS_FAILED


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
        self._label, self._device, self._memory, self._page = label, device, memory, page
        self._line, self._saved, self._save = line, saved, save
        self._offered = device.features | TRANSPORT_FEATURES
        self._queues: dict[int, SplitQueue] = {}
        self._ports: dict[int, Port] = {}
        self._active = False
        self.violations = 0
        self.kicks = 0
        self.ignored_kicks = 0
        device.config_changed = self._config_changed

    # --- life ---

    def start(self) -> None:
        """A new connection: fills the page."""
        self._page.clear()
        self._page.publish(self._device.device_id, self._device.queue_count, self._offered)
        self._show_config()
        self._save(self._saved)

    def resume(self) -> None:
        """A restarted worker's connection: goes on with what `saved` says, then wakes everybody.

        Raises MemoryViolation or XenError if the guest's rings or ports cannot be had any more.
        """
        saved = self._saved
        self._page.publish(self._device.device_id, self._device.queue_count, self._offered)
        self._page.continue_generation(saved.generation)
        self._show_config()
        for queue in saved.queues:
            self._open_queue(queue, resume=True)
        self._page.set_status(saved.status)
        self._page.answer(saved.sequence, Result(saved.result), saved.value)
        if saved.status & virtio.STATUS_DRIVER_OK and not saved.status & STOPPED:
            self._activate()
            for index in list(self._queues):
                self._kick(index)
        self._line.notify()
        for port in list(self._ports.values()):
            port.notify()

    def close(self) -> None:
        """Stops the device and lets go of rings and queue ports; the device itself stays open."""
        self._stop()
        self._device.config_changed = _nobody

    @property
    def status(self) -> int:
        """The device status field."""
        return self._saved.status

    @property
    def features(self) -> int:
        """The negotiated features."""
        return self._saved.features

    @property
    def enabled_queues(self) -> list[int]:
        """Indexes of the queues that the driver has set up."""
        return sorted(self._queues)

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
            self._device.kick(index)
        except (XenvirtioError, OSError) as error:
            self._break(str(index), error)
            return True
        return busy

    def _break(self, queue: str, error: Exception) -> None:
        """Stops the device until the driver resets it."""
        self.violations += 1
        rule = error.rule if isinstance(error, GuestViolation) else str(error)
        logger.warning("%s queue %s: stopped, the guest must reset it: %s", self._label, queue, rule)
        self._stop()
        status = self._saved.status | virtio.STATUS_DEVICE_NEEDS_RESET
        self._saved = replace(self._saved, status=status, queues=())
        self._save(self._saved)
        self._page.set_status(status)
        self._line.notify()

    def _config(self) -> bytes:
        return self._device.config()[:DEV_CONFIG_MAX]

    def _config_changed(self) -> None:
        self._show_config()
        self._save(self._saved)
        self._line.notify()

    def _show_config(self) -> None:
        self._page.set_config(self._config())
        self._saved = replace(self._saved, generation=self._page.generation)

    def _interrupt(self, index: int) -> None:
        port = self._ports.get(index)
        if port is None:
            self._line.notify()
        else:
            port.notify()

    def _activate(self) -> None:
        queues = [self._queues.get(index) for index in range(self._device.queue_count)]
        self._active = True
        self._device.activate(self._saved.features, queues, self._interrupt)

    def _stop(self) -> None:
        self._active = False
        self._device.deactivate()
        for port in self._ports.values():
            port.close()
        self._ports.clear()
        for queue in self._queues.values():
            queue.close()
        self._queues.clear()

    # --- commands ---

    def _command(self) -> bool:
        request = self._page.request(self._saved.sequence)
        if request is None:
            return False
        try:
            result, value = self._execute(request)
        except MemoryViolation as violation:
            logger.info("%s: command %d: %s", self._label, request.command, violation.rule)
            result, value = Result.FAULT, 0
        except GuestViolation as violation:
            logger.info("%s: command %d: %s", self._label, request.command, violation.rule)
            result, value = Result.INVALID, 0
        self._saved = replace(
            self._saved,
            sequence=request.sequence,
            result=int(result),
            value=value,
            queues=tuple(q for q in self._saved.queues if q.index in self._queues),
        )
        self._save(self._saved)
        self._page.set_status(self._saved.status)
        self._page.answer(request.sequence, result, value)
        self._line.notify()
        return True

    def _execute(self, request: Request) -> tuple[Result, int]:
        match request.command:
            case Command.SET_STATUS:
                return self._set_status(request), 0
            case Command.QUEUE_QUERY:
                there = request.queue < self._device.queue_count
                return Result.OK, self._device.queue_size_max if there else 0
            case Command.QUEUE_ENABLE:
                return self._queue_enable(request), 0
            case Command.QUEUE_RESET:
                return self._queue_reset(request), 0
            case Command.CONFIG_WRITE:
                return self._config_write(request), 0
        return Result.UNKNOWN, 0

    def _set_status(self, request: Request) -> Result:
        """virtio 1.3 §2.1.1, §3.1.1."""
        old, new = self._saved.status, request.value
        if new == 0:
            self._stop()
            self._saved = replace(self._saved, status=0, features=0)
            self._show_config()  # as at the start
            return Result.OK
        if old & STOPPED:
            return Result.STATE
        if new & ~SETTABLE or old & ~new:
            return Result.INVALID  # bits are never cleared but by a reset; NEEDS_RESET is the device's
        added = new & ~old
        if added & virtio.STATUS_FAILED:
            self._stop()
            self._saved = replace(self._saved, status=new)
            return Result.OK
        if added & virtio.STATUS_FEATURES_OK:
            if not self._acceptable(request.features):
                # the driver sees FEATURES_OK missing (virtio 1.3 §3.1.1, step 6)
                new &= ~(virtio.STATUS_FEATURES_OK | virtio.STATUS_DRIVER_OK)
                self._saved = replace(self._saved, status=new)
                return Result.OK
            self._saved = replace(self._saved, features=request.features)
        if added & virtio.STATUS_DRIVER_OK and not new & virtio.STATUS_FEATURES_OK:
            return Result.STATE
        self._saved = replace(self._saved, status=new)
        if added & virtio.STATUS_DRIVER_OK:
            try:
                self._activate()
            except (XenvirtioError, OSError) as error:
                self._break("-", error)
        return Result.OK

    def _acceptable(self, features: int) -> bool:
        return not features & ~self._offered and features & REQUIRED_FEATURES == REQUIRED_FEATURES

    def _queue_enable(self, request: Request) -> Result:
        status = self._saved.status
        if not status & virtio.STATUS_FEATURES_OK or status & (virtio.STATUS_DRIVER_OK | STOPPED):
            return Result.STATE
        if request.queue >= self._device.queue_count:
            return Result.INVALID
        if request.queue in self._queues:
            return Result.STATE
        if not 1 <= request.value <= self._device.queue_size_max:
            return Result.INVALID
        queue = SavedQueue(
            request.queue, request.value, request.desc, request.driver, request.device, request.port
        )
        try:
            self._open_queue(queue, resume=False)
        except XenError as error:
            logger.info("%s queue %d: %s", self._label, request.queue, error.message)
            return Result.FAULT
        self._saved = replace(self._saved, queues=(*self._saved.queues, queue))
        return Result.OK

    def _open_queue(self, saved: SavedQueue, *, resume: bool) -> None:
        config = QueueConfig(saved.index, saved.size, saved.desc, saved.driver, saved.device)
        queue = SplitQueue(self._memory, config, self._saved.features, resume=resume)
        if saved.port:
            try:
                self._ports[saved.index] = self._line.bind(saved.port, lambda: self._kick(saved.index))
            except XenError:
                queue.close()
                raise
        self._queues[saved.index] = queue

    def _queue_reset(self, request: Request) -> Result:
        """Only while the queue is not in use: VIRTIO_F_RING_RESET is not offered."""
        if request.queue >= self._device.queue_count:
            return Result.INVALID
        if self._saved.status & virtio.STATUS_DRIVER_OK:
            return Result.STATE
        queue = self._queues.pop(request.queue, None)
        if queue is not None:
            queue.close()
        port = self._ports.pop(request.queue, None)
        if port is not None:
            port.close()
        return Result.OK

    def _config_write(self, request: Request) -> Result:
        length = request.value
        if length > DRV_DATA_MAX or request.offset + length > len(self._config()):
            return Result.INVALID
        if not self._device.write_config(request.offset, request.data[:length]):
            return Result.INVALID
        self._show_config()
        return Result.OK


def _nobody() -> None:
    """Nobody listens for configuration changes."""
