"""When the nodes of a guest's devices are looked at: as often as its share of the supervisor allows.

Once the share (`Limits.steps_per_second`) is used up, those `state` nodes of the guest that change are not
watched until there is a share again. libxenstore keeps every event of a watch until it is read: a guest that
writes faster than we look would fill our memory (XSA-349), and unwatching drops what has come.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.errors import XenError
from xenvirtio.worker.limits import Bucket, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.transport.xenbus.nodes import DeviceKey
    from xenvirtio.worker.loop import Loop, Timer
    from xenvirtio.xen.interfaces import Store

logger = logging.getLogger(__name__)


@dataclass
class Subject:
    """A device's F/state."""

    key: DeviceKey
    watched: bool = False
    paid: bool = False
    """the look that the first event of a new watch asks for is paid for"""

    @property
    def watch(self) -> tuple[str, str]:
        """Path and token."""
        return f"{self.key.frontend}/state", f"F/{self.key}"


class Attention:
    """What has changed of one guest, until it is looked at: `look(devid)`, which may raise XenError."""

    def __init__(self, store: Store, loop: Loop, limits: Limits, look: Callable[[int], None]) -> None:
        self._store, self._loop, self._limits, self._look = store, loop, limits, look
        self._subjects: dict[int, Subject] = {}
        self._touched: dict[int, None] = {}
        self._bucket = Bucket(limits.steps_per_second, limits.steps_burst)
        self._dry = False
        self._timer: Timer | None = None
        self.looks = 0

    def add(self, key: DeviceKey) -> None:
        """Watches a device's frontend. Raises XenError."""
        subject = Subject(key)
        self._watch(subject)
        self._subjects[key.devid] = subject

    def drop(self, devid: int) -> None:
        """The device is nobody's business any more."""
        subject = self._subjects.pop(devid, None)
        if subject is not None:
            self._unwatch(subject)

    def close(self) -> None:
        """Drops all."""
        for devid in list(self._subjects):
            self.drop(devid)

    def touch(self, devid: int) -> None:
        """The device's nodes may have changed."""
        subject = self._subjects.get(devid)
        if subject is None:
            return
        self._touched[devid] = None
        if self._dry:
            self._unwatch(subject)
        elif self._timer is None:
            self._timer = self._loop.later(0, self._work)

    def _work(self) -> None:
        self._timer, self._dry = None, False
        while self._touched:
            devid = next(iter(self._touched))
            subject = self._subjects.get(devid)
            if subject is not None and not subject.paid and not self._bucket.take():
                self._run_dry()
                return
            del self._touched[devid]
            if subject is not None:
                self._attend(subject)

    def _attend(self, subject: Subject) -> None:
        devid = subject.key.devid
        try:
            if not subject.watched:
                self._watch(subject)  # its first event comes at once, and asks for the look
                subject.paid = True
                return
            subject.paid = False
            self.looks += 1
            self._look(devid)
        except XenError as error:  # this guest's trouble, nobody else's
            logger.warning("device %s: %s", subject.key, error.message)
            self._loop.later(self._limits.retry_seconds, lambda: self.touch(devid))

    def _run_dry(self) -> None:
        self._dry = True
        for devid in self._touched:
            if (subject := self._subjects.get(devid)) is not None:
                self._unwatch(subject)
        self._timer = self._loop.later(self._bucket.wait, self._work)

    def _watch(self, subject: Subject) -> None:
        self._store.watch(*subject.watch)
        subject.watched = True

    def _unwatch(self, subject: Subject) -> None:
        if not subject.watched:
            return
        try:
            self._store.unwatch(*subject.watch)
            subject.watched = False
        except XenError as error:
            logger.warning("device %s: %s", subject.key, error.message)
