"""One guest as the supervisor serves it: its devices' walks, and the worker that does the work."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import XenError, XenvirtioError
from xenvirtio.transport.xenbus import backend, nodes
from xenvirtio.transport.xenbus.backend import Walk
from xenvirtio.transport.xenbus.nodes import DeviceKey, NodeError, Settings
from xenvirtio.worker import messages
from xenvirtio.worker.connection import Guest
from xenvirtio.worker.limits import Bucket, Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xenvirtio.worker.loop import Loop, Timer
    from xenvirtio.worker.spawn import WorkerProcess
    from xenvirtio.xen.interfaces import Store

logger = logging.getLogger(__name__)


class ServedDevice:
    """A device's walk, and the order to the worker whose answer it waits for."""

    def __init__(self, key: DeviceKey) -> None:
        self.key = key
        self.walk = Walk()
        self.settings: Settings | None = None
        self.ticket = 0
        self.order: type[messages.Message] | None = None
        self.deadline: Timer | None = None

    def expect(self, ticket: int, order: type[messages.Message], deadline: Timer) -> None:
        self.settle()
        self.ticket, self.order, self.deadline = ticket, order, deadline

    def settle(self) -> type[messages.Message] | None:
        """No answer is awaited any more; which one was."""
        if self.deadline is not None:
            self.deadline.cancel()
        order, self.order, self.deadline = self.order, None, None
        return order


class ServedGuest:
    """All virtio devices of one guest, and its worker.

    `touch` says that a device's nodes may have changed; `work` looks at what was touched, as much as the
    guest's share allows. `done` is called when the guest needs nothing any more.
    """

    def __init__(
        self,
        store: Store,
        own: int,
        domid: int,
        loop: Loop,
        spawn: Callable[[Guest], WorkerProcess],
        run_directory: Path,
        limits: Limits,
        done: Callable[[ServedGuest], None],
    ) -> None:
        self._store, self._own, self._loop, self._spawn = store, own, loop, spawn
        self._limits, self._done = limits, done
        self.guest = Guest(
            domid,
            nodes.guest_name(store, domid),
            nodes.guest_uuid(store, domid),
            run_directory,
        )
        self.devices: dict[int, ServedDevice] = {}
        self.worker: WorkerProcess | None = None
        self.restarts: list[float] = []
        self.gone = False
        self.report: messages.Reported | None = None
        self.on_report: list[Callable[[ServedGuest], None]] = []
        self._touched: dict[int, None] = {}
        self._bucket = Bucket(limits.steps_per_second, limits.steps_burst)
        self._work_timer: Timer | None = None
        self._ticket = 0
        self._ending = False
        self._stopping = False

    # --- the nodes ---

    def touch(self, devid: int) -> None:
        """A node of this device, or of its frontend, has changed."""
        if (
            self.gone
            or self._stopping
            or (devid not in self.devices and len(self.devices) >= self._limits.devices_per_guest)
        ):
            return
        if devid not in self.devices:
            device = self.devices[devid] = ServedDevice(DeviceKey(self.guest.domid, devid))
            self._store.watch(f"{device.key.frontend}/state", f"F/{device.key}")
        self._touched[devid] = None
        if self._work_timer is None:
            self._work_timer = self._loop.later(0, self._work)

    def _work(self) -> None:
        self._work_timer = None
        while self._touched and not self.gone and not self._stopping:
            if not self._bucket.take():
                self._work_timer = self._loop.later(self._bucket.wait, self._work)
                return
            devid = next(iter(self._touched))
            del self._touched[devid]
            device = self.devices.get(devid)
            if device is not None:
                now = self._snapshot(device)
                self._act(device, device.walk.step(now))
                if not now.exists:
                    self._forget(device)

    def _snapshot(self, device: ServedDevice) -> nodes.Snapshot:
        return nodes.snapshot(self._store, device.key, self._own)

    def _forget(self, device: ServedDevice) -> None:
        device.settle()
        self._store.unwatch(f"{device.key.frontend}/state", f"F/{device.key}")
        self.devices.pop(device.key.devid, None)
        if not self.devices:
            self.end()

    # --- what the walk wants ---

    def _act(self, device: ServedDevice, actions: list[backend.Action]) -> None:
        for action in actions:
            try:
                self._do(device, action)
            except XenvirtioError as error:
                words = f"{error.message} ({error.hint})" if error.hint else error.message
                logger.warning("guest %s device %s: %s", self.guest.name, device.key, words)
                self._act(device, device.walk.failed(words))

    def _do(self, device: ServedDevice, action: backend.Action) -> None:
        key = device.key
        match action:
            case backend.Prepare():
                device.settings = nodes.read_settings(self._store, key, self._own)
                self._order(
                    device,
                    messages.Prepare(
                        self._next(), key.devid, device.settings.device_id, dict(device.settings.host)
                    ),
                )
            case backend.Attach(resume):
                if device.settings is None:
                    raise NodeError(f"{key} was never prepared")
                offer = nodes.read_offer(self._store, key, device.settings.access)
                self._order(
                    device,
                    messages.Attach(self._next(), key.devid, offer.access, offer.page, offer.port, resume),
                )
            case backend.Detach():
                self._order(device, messages.Detach(self._next(), key.devid))
            case backend.Discard():
                self._order(device, messages.Discard(self._next(), key.devid))
            case backend.Publish(state, error):
                access = device.settings.access if device.settings is not None else ()
                self._store.transact(lambda view: nodes.publish(view, key, self._own, state, access, error))

    # --- the worker ---

    def _next(self) -> int:
        self._ticket += 1
        return self._ticket

    def _order(self, device: ServedDevice, order: messages.Order) -> None:
        if self.worker is None:
            if not isinstance(order, messages.Prepare):
                device.settle()
                return  # its worker has died, and with it all that the order is about
            self._start_worker()
        elif self._ending:
            return  # the next worker gets it, when this one has ended
        limit = self._limits.order_seconds
        deadline = self._loop.later(limit, lambda: self._late(device, type(order).__name__))
        device.expect(order.ticket, type(order), deadline)
        self._send(order)

    def _send(self, message: messages.Order) -> None:
        if self.worker is None:
            return
        try:
            messages.send(self.worker.control, message)
        except OSError:
            logger.warning("worker of %s does not take orders; it is ended", self.guest.name)
            self.worker.kill()

    def _late(self, device: ServedDevice, order: str) -> None:
        logger.error(
            "worker of %s did not %s device %s within %.0f s; it is ended",
            self.guest.name,
            order.lower(),
            device.key,
            self._limits.order_seconds,
        )
        device.settle()
        if self.worker is not None:
            self.worker.kill()

    def _start_worker(self) -> None:
        self._ending = False
        try:
            self.worker = self._spawn(self.guest)
        except OSError as error:
            raise XenError(f"no worker for {self.guest.name}: {error.strerror}", error.errno or 0) from error
        self._loop.add(self.worker.control.fileno(), self._hear)
        self._loop.add(self.worker.fileno(), self._ended)
        logger.info("guest %s (%d): worker %d", self.guest.name, self.guest.domid, self.worker.pid)

    def _hear(self) -> None:
        assert self.worker is not None
        try:
            answer = messages.receive(self.worker.control)
        except BlockingIOError:
            return
        except (messages.MessageError, OSError) as error:
            logger.error("worker of %s: %s; it is ended", self.guest.name, error)
            self.worker.kill()
            answer = None
        if answer is None:
            self._loop.remove(self.worker.control.fileno())
            return
        self._answered(answer)

    def _answered(self, answer: messages.Message) -> None:
        if isinstance(answer, messages.Reported):
            self.report = answer
            waiting, self.on_report = self.on_report, []
            for call in waiting:
                call(self)
            return
        if not isinstance(answer, messages.Done | messages.Failed):
            return
        device = self.devices.get(answer.devid)
        if device is None or device.ticket != answer.ticket:
            return  # about an order that a later one has overtaken
        order = device.settle()
        walk, now = device.walk, self._snapshot(device)
        if isinstance(answer, messages.Failed):
            actions = walk.failed(answer.words)
            if order is messages.Detach:
                actions = walk.detached(now)
        elif order is messages.Prepare:
            actions = walk.prepared(now)
        elif order is messages.Attach:
            actions = walk.attached(now)
        elif order is messages.Detach:
            actions = walk.detached(now)
        else:
            actions = []
        self._act(device, actions)
        self.touch(answer.devid)  # what changed while the answer was awaited

    def _ended(self) -> None:
        worker, self.worker = self.worker, None
        if worker is None:
            return
        self._loop.remove(worker.control.fileno())
        self._loop.remove(worker.fileno())
        words = worker.reap()
        for device in self.devices.values():
            device.settle()
        if self._ending:
            logger.info("guest %s (%d): worker %d ended", self.guest.name, self.guest.domid, worker.pid)
            self._ending = False
            if self.devices and not self.gone and not self._stopping:
                self._restart()  # a device has come meanwhile
            else:
                self._finish()
            return
        logger.error("worker %d of %s (%d): %s", worker.pid, self.guest.name, self.guest.domid, words)
        now = time.monotonic()
        self.restarts = [at for at in self.restarts if now - at < self._limits.restart_window]
        if len(self.restarts) >= self._limits.restarts:
            for device in list(self.devices.values()):
                self._act(device, device.walk.gave_up(f"the worker died {len(self.restarts) + 1} times"))
            return
        self.restarts.append(now)
        self._loop.later(self._limits.restart_delay * 2 ** (len(self.restarts) - 1), self._restart)

    def _restart(self) -> None:
        if self.gone or self._stopping or self.worker is not None:
            return
        for device in list(self.devices.values()):
            self._act(device, device.walk.restart(self._snapshot(device)))
            self.touch(device.key.devid)

    # --- the end ---

    def ask_report(self) -> bool:
        """Asks the worker how its devices are; all of `on_report` is called once it answers."""
        if self.worker is None or self._ending:
            return False
        self._send(messages.Report(self._next()))
        return True

    def end(self, seconds: float | None = None) -> None:
        """Stops the worker in an orderly way, by force after `seconds` (default: `gone_seconds`)."""
        self._ending = True
        for device in self.devices.values():
            device.settle()
        worker = self.worker
        if worker is None:
            self._finish()
            return
        self._send(messages.Stop())

        def force() -> None:
            if self.worker is worker:
                logger.warning("worker %d of %s did not stop; killed", worker.pid, self.guest.name)
                worker.kill()

        self._loop.later(self._limits.gone_seconds if seconds is None else seconds, force)

    def stop(self) -> None:
        """The daemon ends: nodes and state files stay as they are, for the next one to go on."""
        self._stopping = True
        self.end(self._limits.stop_seconds)

    def lose(self) -> None:
        """The domain is gone: everything of it is let go of, and its nodes are removed."""
        if not self.gone:
            self.gone = True
            logger.info("guest %s (%d) is gone", self.guest.name, self.guest.domid)
            self.end()

    def _finish(self) -> None:
        if self.gone:
            for device in list(self.devices.values()):
                device.settle()
                with contextlib.suppress(XenError):
                    self._store.unwatch(f"{device.key.frontend}/state", f"F/{device.key}")
            self.devices.clear()
            with contextlib.suppress(XenError):
                self._store.remove(f"{nodes.backend_root(self._own)}/{self.guest.domid}")
            for file in self.guest.run_directory.glob(f"{self.guest.domid}-*"):
                file.unlink(missing_ok=True)
        self._done(self)

    def describe(self) -> dict[str, Any]:
        """For the status: what the supervisor knows, with the worker's last report."""
        report = self.report
        return {
            "domid": self.guest.domid,
            "name": self.guest.name,
            "worker": self.worker.pid if self.worker is not None else None,
            "restarts": len(self.restarts),
            "events": report.worker if report is not None else {},
            "devices": [
                {
                    "devid": devid,
                    "phase": device.walk.phase.name.lower(),
                    **(report.devices.get(str(devid), {}) if report is not None else {}),
                }
                for devid, device in sorted(self.devices.items())
            ],
        }
