"""One guest as the supervisor serves it: its devices' walks, and the orders to its worker."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import XenError, XenvirtioError
from xenvirtio.transport.xenbus import backend, nodes
from xenvirtio.transport.xenbus.backend import Phase
from xenvirtio.transport.xenbus.nodes import DeviceKey, NodeError
from xenvirtio.transport.xenbus.saved import StateFile
from xenvirtio.worker import messages
from xenvirtio.worker.attention import Attention
from xenvirtio.worker.connection import Guest
from xenvirtio.worker.invalidation import server_file
from xenvirtio.worker.life import WorkerLife
from xenvirtio.worker.served import ServedDevice

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xenvirtio.worker.limits import Limits
    from xenvirtio.worker.loop import Loop
    from xenvirtio.worker.spawn import WorkerProcess
    from xenvirtio.xen.interfaces import Store

logger = logging.getLogger(__name__)


class ServedGuest:
    """All virtio devices of one guest; the `Owner` of its worker.

    `touch` says that a device's nodes may have changed; `done` is called when the guest needs nothing more.
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
        self._store, self._own, self._loop = store, own, loop
        self._limits, self._done = limits, done
        self.guest = Guest(
            domid, nodes.guest_name(store, domid), nodes.guest_uuid(store, domid), run_directory
        )
        self.life = WorkerLife(self.guest, loop, spawn, limits, self)
        self.devices: dict[int, ServedDevice] = {}
        self.attention = Attention(store, loop, limits, self._look)
        self.gone = False
        self.missed = False
        """touched when it was gone: another domain has its domid by now"""
        self._ticket = 0
        self._stopping = False

    # --- the nodes ---

    def touch(self, devid: int) -> None:
        """A node of this device, or of its frontend, has changed. Raises XenError."""
        if self.gone:
            self.missed = True
            return
        if self._stopping:
            return
        if devid not in self.devices:
            if len(self.devices) >= self._limits.devices_per_guest:
                return
            key = DeviceKey(self.guest.domid, devid)
            self.attention.add(key)
            self.devices[devid] = ServedDevice(key)
        self.attention.touch(devid)

    def _look(self, devid: int) -> None:
        device = self.devices.get(devid)
        if device is None or self.gone or self._stopping:
            return
        now = nodes.snapshot(self._store, device.key, self._own)
        before = device.walk.phase
        self._act(device, device.walk.step(now))
        if before is Phase.WAITING and device.walk.phase in (Phase.CLOSING, Phase.CLOSED):
            why = nodes.guest_error(self._store, device.key) or "it does not say why"
            logger.warning("guest %s device %s: not taken: %s", self.guest.name, device.key, why)
        if not now.exists:
            device.settle()
            self.attention.drop(devid)
            del self.devices[devid]
            # a worker that died before it was told to discard the device has left it
            StateFile(self.guest.run_directory, self.guest.domid, devid).remove()
            if not self.devices:
                self.end(self._limits.gone_seconds)
            return
        if device.order is None and device.changed(self._store, self._own):  # else `answered` looks again
            host = dict(device.settings.host) if device.settings is not None else {}
            try:
                self._order(device, messages.Update(self._next(), devid, host))
            except messages.MessageError as error:
                device.confirm(self._store, self._own, error.message)

    # --- what the walk wants ---

    def _act(self, device: ServedDevice, actions: list[backend.Action]) -> None:
        for action in actions:
            try:
                self._do(device, action)
            except XenvirtioError as error:
                words = f"{error.message} ({error.hint})" if error.hint else error.message
                logger.warning("guest %s device %s: %s", self.guest.name, device.key, words)
                if isinstance(action, backend.Publish):
                    self._loop.later(self._limits.retry_seconds, partial(self._publish_again, device, action))
                else:
                    for_good = isinstance(error, NodeError)  # the guest's own
                    self._act(device, device.walk.failed(words, for_good=for_good))

    def _publish_again(self, device: ServedDevice, action: backend.Publish) -> None:
        if device.published is action and self._serves(device):
            self._act(device, [action])

    def _prepare_again(self, device: ServedDevice) -> None:
        if self._serves(device):
            self._act(device, device.walk.again())

    def _serves(self, device: ServedDevice) -> bool:
        return self.devices.get(device.key.devid) is device and not self.gone and not self._stopping

    def _do(self, device: ServedDevice, action: backend.Action) -> None:
        key = device.key
        match action:
            case backend.Prepare():
                device.settings = nodes.read_settings(self._store, key, self._own)
                settings = device.settings
                self._order(
                    device,
                    messages.Prepare(self._next(), key.devid, settings.device_id, dict(settings.host)),
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
            case backend.Retry(words, much):
                seconds = self._limits.retry_seconds_max if much else device.next_try(self._limits)
                logger.warning(
                    "guest %s device %s: %s; tried again in %.0f s", self.guest.name, key, words, seconds
                )
                if device.retry is not None:
                    device.retry.cancel()
                device.retry = self._loop.later(seconds, partial(self._prepare_again, device))
                self._store.transact(lambda view: nodes.note_error(view, key, self._own, words))
            case backend.Publish(state, error):
                device.published = action
                access = device.settings.access if device.settings is not None else ()
                self._store.transact(lambda view: nodes.publish(view, key, self._own, state, access, error))

    def _next(self) -> int:
        self._ticket += 1
        return self._ticket

    def _order(self, device: ServedDevice, order: messages.Order) -> None:
        if self.life.awaited:
            return  # `worker_again` orders all that is wanted then
        if self.life.process is None:
            if not isinstance(order, messages.Prepare):
                device.settle()
                return  # its worker has died, and with it all that the order is about
            self.life.start()
        deadline = self._loop.later(
            self._limits.order_seconds, lambda: self._late(device, type(order).__name__)
        )
        device.expect(order.ticket, type(order), deadline)
        try:
            self.life.send(order)
        except messages.MessageError:
            device.settle()
            raise

    def _late(self, device: ServedDevice, order: str) -> None:
        logger.error(
            "worker of %s did not %s device %s within %.0f s; it is ended",
            self.guest.name,
            order.lower(),
            device.key,
            self._limits.order_seconds,
        )
        device.settle()
        self.life.kill()

    # --- what the worker says ---

    def answered(self, answer: messages.Done | messages.Failed) -> None:
        device = self.devices.get(answer.devid)
        if device is None or device.ticket != answer.ticket or device.order is None:
            return  # about an order that a later one has overtaken
        try:
            now = nodes.snapshot(self._store, device.key, self._own)
        except XenError as error:
            logger.warning("guest %s device %s: %s", self.guest.name, device.key, error.message)
            self._loop.later(self._limits.retry_seconds, lambda: self.answered(answer))
            return
        failed = answer if isinstance(answer, messages.Failed) else None
        order = device.settle()
        if order in (messages.Prepare, messages.Update):
            try:
                device.confirm(self._store, self._own, None if failed is None else failed.words)
            except XenError as error:  # the toolstack waits for it, no longer than its limit
                logger.warning("guest %s device %s: %s", self.guest.name, device.key, error.message)
        self._act(device, device.follow(order, failed, now))
        self.attention.touch(answer.devid)  # what changed while the answer was awaited

    def worker_gone(self) -> None:
        for device in self.devices.values():
            device.settle()

    def worker_again(self) -> None:
        for device in list(self.devices.values()):
            self._restart(device)

    def _restart(self, device: ServedDevice) -> None:
        if not self._serves(device):
            return
        try:
            now = nodes.snapshot(self._store, device.key, self._own)
        except XenError as error:
            logger.warning("guest %s device %s: %s", self.guest.name, device.key, error.message)
            self._loop.later(self._limits.retry_seconds, partial(self._restart, device))
            return
        self._act(device, device.walk.restart(now))
        self.attention.touch(device.key.devid)

    def worker_given_up(self, words: str) -> None:
        for device in list(self.devices.values()):
            self._act(device, device.walk.gave_up(words))
        if server_file(self.guest).exists():  # the guest may wait for it: one more, only to end that
            try:
                self.life.start()
            except XenError as error:
                logger.warning("guest %s (%d): %s", self.guest.name, self.guest.domid, error.message)
            else:
                self.life.end(self._limits.stop_seconds)

    def worker_ended(self) -> None:
        if self.devices and not self.gone and not self._stopping:
            self.worker_again()  # a device has come meanwhile
        else:
            self._finish()

    # --- the end ---

    def ask_report(self, call: Callable[[], None]) -> bool:
        """Asks the worker how its devices are; see `WorkerLife.ask_report`."""
        return self.life.ask_report(self._next(), call)

    def end(self, seconds: float) -> None:
        """Ends the worker, by force after so many seconds."""
        for device in self.devices.values():
            device.settle()
        self.life.end(seconds)

    def stop(self) -> None:
        """The daemon ends: nodes and state files stay as they are, for the next one to go on."""
        self._stopping = True
        self.end(self._limits.stop_seconds)

    def lose(self) -> None:
        """The domain is gone: everything of it is let go of, and its nodes are removed."""
        if not self.gone:
            self.gone = True
            logger.info("guest %s (%d) is gone", self.guest.name, self.guest.domid)
            self.end(self._limits.gone_seconds)

    def _finish(self) -> None:
        if self.gone:
            self.attention.close()
            self.devices.clear()
            domid = self.guest.domid
            try:
                if not self._store.domain_exists(domid):  # else the nodes are the next domain's
                    self._store.transact(lambda view: nodes.remove_devices(view, domid, self._own))
            except XenError as error:
                logger.warning("guest %s (%d): %s", self.guest.name, domid, error.message)
                if not self._stopping:
                    self._loop.later(self._limits.retry_seconds, self._finish)
                    return
            for file in self.guest.run_directory.glob(f"{domid}-*"):
                file.unlink(missing_ok=True)
        self._done(self)

    def describe(self) -> dict[str, Any]:
        """For the status: what the supervisor knows, with the worker's last report."""
        life, report = self.life, self.life.report
        return {
            "domid": self.guest.domid,
            "name": self.guest.name,
            "worker": life.process.pid if life.process is not None else None,
            "restarts": len(life.deaths),
            "walks": self.attention.looks,
            "events": report.worker if report is not None else {},
            "devices": [
                {
                    **(report.devices.get(str(devid), {}) if report is not None else {}),
                    "devid": devid,
                    "phase": device.walk.phase.name.lower(),
                }
                for devid, device in sorted(self.devices.items())
            ],
        }
