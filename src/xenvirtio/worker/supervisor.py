"""The supervisor: the only holder of XenStore. It watches, walks devices through their states, minds workers.

What the guests do reaches it only as watch events, which are read a bounded number at a time and only mark a
device as touched: a guest that writes its nodes in a loop costs its own share (`worker.attention`), not the
others'. XenStore's trouble with one guest's nodes is that guest's. Nodes of other transports are other
people's: they are never written nor removed. `@releaseDomain` tells of guests that are gone; nodes which they
left are removed, at the start too.

When the daemon stops or dies, its workers stop their devices and end; the guests wait. States in XenStore
stay Connected, and the next daemon's workers go on from the state files in the run directory. What this
cannot survive: a lost run directory, and (until issue 6) a worker killed between finishing a request and
telling so, whose request is then done twice.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import XenError
from xenvirtio.transport.xenbus.nodes import (
    DEVID_LIMIT,
    DOMID_LIMIT,
    DeviceKey,
    backend_root,
    is_ours,
    parse_key,
    parse_number,
    remove_devices,
)
from xenvirtio.worker.guests import ServedGuest
from xenvirtio.worker.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xenvirtio.worker.connection import Guest
    from xenvirtio.worker.loop import Loop, Timer
    from xenvirtio.worker.spawn import WorkerProcess
    from xenvirtio.xen.interfaces import Store

logger = logging.getLogger(__name__)

#: watch events read before the loop turns to anything else
EVENTS_AT_ONCE = 256

BACKENDS = "B"
RELEASE = "R"


class Supervisor:
    """All guests that this domain serves."""

    def __init__(
        self,
        store: Store,
        loop: Loop,
        spawn: Callable[[Guest], WorkerProcess],
        run_directory: Path,
        limits: Limits | None = None,
    ) -> None:
        self._store, self._loop, self._spawn = store, loop, spawn
        self._run_directory = run_directory
        self._limits = limits or Limits()
        own = parse_number(store.read("domid"), DOMID_LIMIT)
        self.own = own if own is not None else 0
        self.guests: dict[int, ServedGuest] = {}
        self.watch_events = 0
        self._again: Timer | None = None
        self._stopping = False

    def start(self) -> None:
        """Cleans up after guests that are gone, then serves what is there and what comes."""
        self._clean()
        self._store.watch(backend_root(self.own), BACKENDS)  # fires at once: the first look
        self._store.watch("@releaseDomain", RELEASE)
        self._loop.add(self._store.fileno(), self._events)
        self._events()

    def stop(self) -> None:
        """Stops all workers, in `Limits.stop_seconds`, then the loop; nodes stay for the next daemon."""
        if self._stopping:
            return
        self._stopping = True
        self._loop.remove(self._store.fileno())
        if not self.guests:
            self._loop.stop()
        for guest in list(self.guests.values()):
            guest.stop()

    def _clean(self) -> None:
        root = backend_root(self.own)
        for name in self._store.names(root) or []:
            domid = parse_number(name, DOMID_LIMIT)
            if domid is not None and not self._there(domid):
                logger.info("domain %d is gone: its nodes are removed", domid)
                self._remove(domid)
        for file in self._run_directory.glob("*-*"):
            domid = parse_number(file.name.split("-")[0], DOMID_LIMIT)
            if domid is not None and not self._there(domid):
                file.unlink(missing_ok=True)

    def _remove(self, domid: int) -> None:
        try:
            self._store.transact(lambda view: remove_devices(view, domid, self.own))
        except XenError as error:
            logger.warning("domain %d: %s", domid, error.message)

    # --- watches ---

    def _events(self) -> None:
        touched: dict[tuple[int | None, int | None], None] = {}
        released = False
        for path, token in self._store.events(EVENTS_AT_ONCE):
            self.watch_events += 1
            if token == RELEASE:
                released = True
            elif token == BACKENDS:
                touched[parse_key(path, self.own)] = None
            elif token.startswith("F/"):
                numbers = token.split("/")
                touched[int(numbers[1]), int(numbers[2])] = None
        for domid, devid in touched:
            self._touch_all(domid, devid)
        if released:
            self._release()

    def _touch_all(self, domid: int | None, devid: int | None) -> None:
        domids = [domid]
        if domid is None:
            names = self._store.names(backend_root(self.own)) or []
            domids = [parse_number(name, DOMID_LIMIT) for name in names]
        for found in domids:
            if found is not None:
                try:
                    self._touch(found, devid)
                except XenError as error:  # that guest's trouble, nobody else's
                    logger.warning("domain %d: %s", found, error.message)

    def _touch(self, domid: int, devid: int | None) -> None:
        guest = self.guests.get(domid)
        served = set(guest.devices) if guest is not None else set()
        devids = {devid}
        if devid is None:
            names = self._store.names(f"{backend_root(self.own)}/{domid}") or []
            devids = {parse_number(name, DEVID_LIMIT) for name in names} | served  # those that are gone, too
        found = sorted(
            each
            for each in devids
            if each is not None and (each in served or is_ours(self._store, DeviceKey(domid, each), self.own))
        )
        if guest is None:
            if not found or not self._store.domain_exists(domid):
                return
            guest = self.guests[domid] = ServedGuest(
                self._store,
                self.own,
                domid,
                self._loop,
                self._spawn,
                self._run_directory,
                self._limits,
                self._done,
            )
        for each in found:
            guest.touch(each)

    def _release(self) -> None:
        for domid, guest in list(self.guests.items()):
            if not self._there(domid):
                guest.lose()

    def _there(self, domid: int) -> bool:
        """Whether a domain is there; while XenStore cannot say it is, and all are looked at again later."""
        try:
            return self._store.domain_exists(domid)
        except XenError as error:
            logger.warning("domain %d: %s", domid, error.message)
            if self._again is None and not self._stopping:
                self._again = self._loop.later(self._limits.retry_seconds, self._look_again)
            return True

    def _look_again(self) -> None:
        self._again = None
        self._release()

    def _done(self, guest: ServedGuest) -> None:
        domid = guest.guest.domid
        if self.guests.get(domid) is guest:
            del self.guests[domid]
        if self._stopping:
            if not self.guests:
                self._loop.stop()
        elif guest.missed and self._there(domid):
            self._touch_all(domid, None)  # another domain has its domid, and devices

    # --- status ---

    def collect(self, answer: Callable[[dict[str, Any]], None]) -> None:
        """Calls `answer` with the state of everything, after each worker has reported or its time is over."""
        waiting: dict[ServedGuest, Callable[[], None]] = {}

        def finish() -> None:
            timer.cancel()
            for guest, call in waiting.items():
                guest.life.forget_report(call)
            answer(self._describe())

        def reported(guest: ServedGuest) -> None:
            del waiting[guest]
            if not waiting:
                finish()

        timer = self._loop.later(self._limits.report_seconds, finish)
        for guest in list(self.guests.values()):
            call = functools.partial(reported, guest)
            if guest.ask_report(call):
                waiting[guest] = call
        if not waiting:
            finish()

    def _describe(self) -> dict[str, Any]:
        return {
            "domid": self.own,
            "watch_events": self.watch_events,
            "guests": [guest.describe() for _, guest in sorted(self.guests.items())],
        }
