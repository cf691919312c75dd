"""A worker's life: it serves all devices of one guest, does what the supervisor orders, and ends with it.

    Prepare ──► prepared ──Attach──► connected ──Detach──► prepared ──Discard──► (nothing)
                  Update, in both

When the supervisor goes away, orderly or not, the worker stops its devices (nothing is in flight then), keeps
their state files and ends: the guest's requests wait in their rings. A new supervisor's worker goes on from
the files. `kill -9` of a worker is the same but for the orderly stop: see `transport/xenbus/saved.py` for
what that leaves to issue 6.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import time
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import MissingDependency, TimeLimit, XenError, XenvirtioError
from xenvirtio.transport.xenbus.ports import Ports
from xenvirtio.transport.xenbus.saved import Saved, StateFile
from xenvirtio.worker import messages
from xenvirtio.worker.connection import Connection, Guest, Handles, ResumeError
from xenvirtio.worker.hosted import Hosted
from xenvirtio.worker.invalidation import Invalidation, cache_setting, server_file
from xenvirtio.worker.loop import Loop
from xenvirtio.worker.readings import READING_SECONDS
from xenvirtio.xen.devicemodel import XenDeviceModel
from xenvirtio.xen.evtchn import XenEventChannels
from xenvirtio.xen.foreign import XenForeignMemory
from xenvirtio.xen.gnttab import XenGrantTable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from xenvirtio.device.base import Device

    MakeDevice = Callable[[int, dict[str, str]], Device]

logger = logging.getLogger(__name__)

#: for an earlier worker of the same guest to end
PREDECESSOR_SECONDS = 10.0
#: orders handled before the loop turns to the guest
ORDERS_AT_ONCE = 8


class Worker:
    """All devices of one guest.

    `open_handles` is called when the first device is prepared, so that a missing library is that device's
    error.
    """

    def __init__(
        self,
        guest: Guest,
        loop: Loop,
        control: socket.socket,
        open_handles: Callable[[Loop], Handles],
        make_device: MakeDevice,
    ) -> None:
        self.guest, self.loop, self._control = guest, loop, control
        self._open_handles, self._make_device = open_handles, make_device
        self._handles: Handles | None = None
        self._invalidation: Invalidation | None = None
        self._hosted: dict[int, Hosted] = {}
        loop.add(control.fileno(), self._orders)
        loop.later(READING_SECONDS, self._read)
        if server_file(guest).exists():  # a vCPU may wait for what a killed worker owes it
            self.invalidation.take_over()

    @property
    def handles(self) -> Handles:
        if self._handles is None:
            self._handles = self._open_handles(self.loop)
        return self._handles

    @property
    def invalidation(self) -> Invalidation:
        if self._invalidation is None:
            self._invalidation = Invalidation(self.guest, self.handles)
        return self._invalidation

    @property
    def hosted(self) -> list[Hosted]:
        """The devices that are open."""
        return list(self._hosted.values())

    def _orders(self) -> None:
        for _ in range(ORDERS_AT_ONCE):
            try:
                order = messages.receive(self._control)
            except BlockingIOError:
                return
            if order is None or isinstance(order, messages.Stop):
                self.loop.stop()
                return
            self._obey(order)

    def _obey(self, order: messages.Message) -> None:
        try:
            match order:
                case messages.Prepare():
                    self._prepare(order)
                case messages.Attach():
                    self._attach(order)
                case messages.Detach():
                    self._detach(order.devid)
                case messages.Update():
                    self._update(order)
                case messages.Discard():
                    self._discard(order.devid)
                case messages.Report():
                    self._answer(messages.Reported(order.ticket, self._report(), self._counters()))
                    return
                case _:
                    raise messages.MessageError(f"not an order: {type(order).__name__}")
        except (XenvirtioError, OSError, ValueError) as error:
            devid = getattr(order, "devid", -1)
            words = str(error)
            if isinstance(error, XenvirtioError) and error.hint:
                words = f"{error.message} ({error.hint})"
            logger.warning("%s: %s: %s", self._label(devid), type(order).__name__.lower(), words)
            for_good = isinstance(error, ResumeError)
            self._answer(messages.Failed(order.ticket, devid, words[:1024], for_good))
        else:
            self._answer(messages.Done(order.ticket, order.devid))

    def _answer(self, answer: messages.Answer) -> None:
        try:
            try:
                messages.send(self._control, answer)
            except messages.MessageError:  # too many devices for one message
                messages.send(self._control, messages.Reported(answer.ticket))
        except OSError:
            self.loop.stop()  # the supervisor is gone, or has not read for 200 KiB

    def _label(self, devid: int) -> str:
        return f"guest {self.guest.name} ({self.guest.domid}) device {devid}"

    def _state_file(self, devid: int) -> StateFile:
        return StateFile(self.guest.run_directory, self.guest.domid, devid)

    def _prepare(self, order: messages.Prepare) -> None:
        self.handles  # noqa: B018 (opens them: what is missing shows now)
        self._close_hosted(order.devid)
        cache_bytes = cache_setting(order.host)
        device = self._make_device(order.device_id, order.host)
        hosted = Hosted(self.loop, order.devid, device, self._label(order.devid), cache_bytes)
        self._hosted[order.devid] = hosted

    def _attach(self, order: messages.Attach) -> None:
        hosted = self._hosted.get(order.devid)
        if hosted is None:
            raise messages.MessageError("to be attached before it was prepared")
        hosted.disconnect()
        fresh = Saved(self.guest.uuid, order.access, order.page, order.port)
        hosted.connection = Connection(
            self.guest,
            self.handles,
            hosted.device,
            hosted.label,
            fresh,
            self._state_file(order.devid),
            self.invalidation,
            hosted.cache_bytes,
            resume=order.resume,
        )
        logger.info("%s: %s", hosted.label, "connected again" if order.resume else "connected")

    def _detach(self, devid: int) -> None:
        hosted = self._hosted.get(devid)
        if hosted is not None and hosted.connection is not None:
            hosted.disconnect()
            logger.info("%s: closed", hosted.label)
        self._state_file(devid).remove()

    def _update(self, order: messages.Update) -> None:
        hosted = self._hosted.get(order.devid)
        if hosted is None:
            raise messages.MessageError("to be updated before it was prepared")
        hosted.device.update(order.host)
        logger.info("%s: its settings have changed", hosted.label)

    def _discard(self, devid: int) -> None:
        self._close_hosted(devid)
        self._state_file(devid).remove()

    def _close_hosted(self, devid: int) -> None:
        hosted = self._hosted.pop(devid, None)
        if hosted is not None:
            hosted.close()

    def _report(self) -> dict[str, dict[str, Any]]:
        report: dict[str, dict[str, Any]] = {}
        for devid, hosted in self._hosted.items():
            entry = hosted.report()
            report[str(devid)] = entry | hosted.readings.report(time.monotonic(), entry)
        return report

    def _read(self) -> None:
        for hosted in self.hosted:
            hosted.readings.take(time.monotonic(), hosted.report())
        self.loop.later(READING_SECONDS, self._read)

    def _counters(self) -> dict[str, int]:
        if self._handles is None:
            return {}
        ports = self._handles.ports
        heard = self._invalidation.answered if self._invalidation is not None else 0
        return {"events": ports.events, "penalties": ports.penalties, "invalidations": heard}

    def close(self) -> None:
        """Stops and closes every device; the state files stay."""
        for devid in list(self._hosted):
            with contextlib.suppress(XenError, OSError):
                self._close_hosted(devid)
        if self._invalidation is not None:
            self._invalidation.close()
        self.loop.remove(self._control.fileno())


def open_xen(loop: Loop) -> Handles:
    """Handles on the Xen that this domain runs under. Raises MissingDependency or XenError."""
    grants = XenGrantTable()
    try:
        channels = XenEventChannels()
    except (XenError, MissingDependency):
        grants.close()
        raise
    ports = Ports(channels, loop.later)
    loop.add(channels.fileno(), ports.ready)
    return Handles(ports, grants, functools.cache(XenForeignMemory), functools.cache(XenDeviceModel))


@contextlib.contextmanager
def only_worker(guest: Guest, seconds: float = PREDECESSOR_SECONDS) -> Iterator[None]:
    """Waits until an earlier worker of this guest has ended: its ports and grants are free then.

    A daemon that was killed leaves workers which are still stopping when the next one starts. TimeLimit.
    """
    path = guest.run_directory / f"{guest.domid}-worker.lock"
    end = time.monotonic() + seconds
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeLimit(
                        f"an earlier worker of {guest.name} did not end within {seconds:.0f} s ({path})"
                    ) from None
                time.sleep(0.05)
        yield


def serve(guest: Guest, control: socket.socket, make_device: MakeDevice) -> None:
    """The whole life of a worker process, after `worker.spawn` has cleaned it."""
    with only_worker(guest), Loop() as loop:
        worker = Worker(guest, loop, control, open_xen, make_device)
        try:
            loop.run()
        finally:
            worker.close()
