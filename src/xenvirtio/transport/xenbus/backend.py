"""The states of one device as the supervisor sees them (docs/virtio-xenbus.md).

    NEW ──Prepare──► PREPARING ──prepared──► WAITING (B: InitWait)
                         │ failed               │ F: Initialised → Attach
                         ▼                      ▼
                      FAILED ◄──────────── ATTACHING ──attached──► CONNECTED (B: Connected)
                      (B: error,               │ failed                │ F: Closing, Closed, gone,
                       Closed)                 ▼                       ▼    starts again
                                  CLOSED ◄──── CLOSING ◄──detached── DETACHING
                               (B: Closed)    (B: Closing, until F is Closed)
                                    └─ F: Initialising ──► WAITING

    a device that was connected when its worker or the daemon went: PREPARING or ATTACHING ──failed──►
    RETRYING ──► PREPARING, and so on; B stays Connected, and requests wait. When F lets go of it: CLOSED

    at any time: B gone → Discard → OFF;  online=0 and no frontend connected → Discard → LEAVING
                                          ──discarded──► OFF (B: Closed: what it served is free for others)

`Walk` holds no XenStore and no worker: nodes and answers go in, actions come out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from xenvirtio.transport.xenbus.states import XenbusState

if TYPE_CHECKING:
    from xenvirtio.transport.xenbus.nodes import Snapshot


class Phase(Enum):
    """Where the walk stands."""

    NEW = auto()
    PREPARING = auto()
    WAITING = auto()
    ATTACHING = auto()
    CONNECTED = auto()
    DETACHING = auto()
    CLOSING = auto()
    CLOSED = auto()
    RETRYING = auto()
    FAILED = auto()
    LEAVING = auto()
    OFF = auto()


@dataclass(frozen=True)
class Prepare:
    """The worker opens what the device serves."""


@dataclass(frozen=True)
class Attach:
    """The worker maps the page and binds the port; `resume`: goes on where an earlier worker stood."""

    resume: bool


@dataclass(frozen=True)
class Detach:
    """The worker lets go of the page, the rings and the port."""


@dataclass(frozen=True)
class Discard:
    """The worker closes the device."""


@dataclass(frozen=True)
class Retry:
    """Going on failed, perhaps for a moment, under a guest that uses the device: `again` is for later, or
    for much later."""

    words: str
    much: bool = False


@dataclass(frozen=True)
class Publish:
    """Write B/state, with B/error if there are words."""

    state: XenbusState
    error: str | None = None


Action = Prepare | Attach | Detach | Discard | Retry | Publish

#: the frontend offers a page and a port, or uses them
OFFERING = (XenbusState.INITIALISED, XenbusState.CONNECTED)


class Walk:
    """One device's way through the states."""

    def __init__(self) -> None:
        self.phase = Phase.NEW
        self._resume = False
        self._hosted = False  # the worker holds the device
        self._frontend = XenbusState.UNKNOWN

    @property
    def hosted(self) -> bool:
        """The worker holds the device, or is told to."""
        return self._hosted

    def step(self, now: Snapshot) -> list[Action]:
        """What to do about the nodes as they are now. Does nothing while an answer is awaited."""
        before, self._frontend = self._frontend, now.frontend
        starts = now.frontend is XenbusState.INITIALISING and before is not XenbusState.INITIALISING
        if not now.exists:
            return self._discard(Phase.OFF)
        match self.phase:
            case Phase.NEW:
                return self._start(now)
            case Phase.WAITING:
                if not now.online:
                    return self._off(now)
                if now.frontend in OFFERING:
                    return self._attach(resume=False)
                if now.frontend in (XenbusState.CLOSING, XenbusState.CLOSED):
                    return self._close(now)
            case Phase.CONNECTED:
                if now.frontend not in OFFERING:
                    self.phase = Phase.DETACHING
                    return [Detach()]
            case Phase.CLOSING:
                if now.frontend is not XenbusState.CLOSING:
                    return self._close(now)
            case Phase.CLOSED:
                if not now.online:
                    return self._off(now)
                if now.frontend is XenbusState.INITIALISING:
                    if not self._hosted:
                        return self._prepare(resume=False)
                    self.phase = Phase.WAITING
                    return [Publish(XenbusState.INIT_WAIT)]
            case Phase.RETRYING:
                if now.frontend not in OFFERING:
                    return self._close(now)
            case Phase.FAILED | Phase.OFF:
                if not now.online:
                    return self._off(now)
                # a frontend that stays in Initialising does not start: it waits for what could not be opened
                starts = starts and self.phase is Phase.FAILED
                if starts or now.backend is XenbusState.INITIALISING:
                    return self._prepare(resume=False)
            case Phase.PREPARING | Phase.ATTACHING | Phase.DETACHING | Phase.LEAVING:
                pass
        return []

    def prepared(self, now: Snapshot) -> list[Action]:
        """The worker holds the device."""
        if self.phase is not Phase.PREPARING:
            return []
        if self._resume and now.frontend in OFFERING:
            return self._attach(resume=True)
        if self._resume:  # it was connected before: the frontend must start from Initialising
            return self._close(now)
        self.phase = Phase.WAITING
        return [Publish(XenbusState.INIT_WAIT), *self.step(now)]

    def attached(self, now: Snapshot) -> list[Action]:
        """The worker has filled the device page and listens on the port."""
        if self.phase is not Phase.ATTACHING:
            return []
        self.phase, self._resume = Phase.CONNECTED, False
        publish: list[Action] = [] if not now.online else [Publish(XenbusState.CONNECTED)]
        return [*publish, *self.step(now)]

    def detached(self, now: Snapshot) -> list[Action]:
        """The worker has let go of page, rings and port."""
        if self.phase is not Phase.DETACHING:
            return []
        return self._close(now)

    def discarded(self, now: Snapshot) -> list[Action]:
        """The worker has closed the device, or is gone."""
        if self.phase is not Phase.LEAVING:
            return []
        self.phase = Phase.OFF
        return self.step(now) if now.online else [Publish(XenbusState.CLOSED)]

    def failed(self, words: str, *, for_good: bool = False) -> list[Action]:
        """Opening failed (the host's problem: stays until the toolstack or the guest starts it again), or
        attaching did (the guest's: it may start again from Initialising).

        Where the guest was using the device it is tried again, unless it is known that this fails `for_good`.
        """
        if self.phase not in (Phase.PREPARING, Phase.ATTACHING):
            return []
        opening = self.phase is Phase.PREPARING
        if opening:
            self._hosted = False
        if self._resume and self._frontend in OFFERING and not for_good:
            self.phase = Phase.RETRYING
            return [Retry(words)]
        self.phase = Phase.FAILED if opening else Phase.CLOSED
        return [Publish(XenbusState.CLOSED, words)]

    def again(self) -> list[Action]:
        """Time has passed since `Retry`."""
        return self._prepare(resume=True) if self.phase is Phase.RETRYING else []

    def gave_up(self, words: str) -> list[Action]:
        """The worker died too often: the next one comes much later, for devices that the guest uses."""
        in_use = self.phase is Phase.CONNECTED or self._resume
        self._hosted = False
        if self.phase is Phase.LEAVING:
            self.phase = Phase.OFF
            return [Publish(XenbusState.CLOSED)]
        if self.phase in (Phase.RETRYING, Phase.FAILED, Phase.OFF):
            return []
        if in_use and self._frontend in OFFERING:
            self.phase = Phase.RETRYING
            return [Retry(words, much=True)]
        self.phase = Phase.FAILED
        return [Publish(XenbusState.CLOSED, words)]

    def restart(self, now: Snapshot) -> list[Action]:
        """A new worker stands in for one that died."""
        if not self._hosted or not now.exists:
            return self.discarded(now)
        connected = self.phase is Phase.CONNECTED or self._resume
        if self.phase is Phase.ATTACHING and now.backend is not XenbusState.INIT_WAIT:
            connected = True  # else the frontend waits for Connected, and has not begun
        if self.phase in (Phase.DETACHING, Phase.CLOSING, Phase.CLOSED):
            connected = True  # B has been Connected: a frontend comes back only through Initialising
        return self._prepare(resume=connected)

    def _start(self, now: Snapshot) -> list[Action]:
        if now.backend in (XenbusState.CLOSING, XenbusState.CLOSED) and (not now.online or now.error):
            self.phase = Phase.FAILED
            if not now.online and now.backend is XenbusState.CLOSING and now.frontend in OFFERING:
                return self._prepare(resume=True)  # the frontend is about to remove it, and needs its answers
            if not now.online:
                return self._off(now)
            # whose fault it was is not known any more: one attempt does no harm
            return self._prepare(resume=False) if now.frontend is XenbusState.INITIALISING else []
        fresh = now.backend in (XenbusState.UNKNOWN, XenbusState.INITIALISING, XenbusState.INIT_WAIT)
        return self._prepare(resume=not fresh)

    def _prepare(self, *, resume: bool) -> list[Action]:
        self.phase, self._resume, self._hosted = Phase.PREPARING, resume, True
        return [Prepare()]

    def _attach(self, *, resume: bool) -> list[Action]:
        self.phase, self._resume = Phase.ATTACHING, resume
        return [Attach(resume)]

    def _close(self, now: Snapshot) -> list[Action]:
        """The usual handshake: Linux at shutdown and kexec waits for Closing before it says Closed."""
        if now.frontend is XenbusState.CLOSING:
            self.phase = Phase.CLOSING
            return [Publish(XenbusState.CLOSING)]
        if not now.online:
            return self._off(now)
        self.phase = Phase.CLOSED
        return [Publish(XenbusState.CLOSED), *self.step(now)]

    def _discard(self, phase: Phase) -> list[Action]:
        hosted, self._hosted, self.phase = self._hosted, False, phase
        return [Discard()] if hosted else []

    def _off(self, now: Snapshot) -> list[Action]:
        if self._hosted:
            return self._discard(Phase.LEAVING)
        self.phase = Phase.OFF
        return [] if now.backend is XenbusState.CLOSED else [Publish(XenbusState.CLOSED)]
