"""The worker of one guest: started when it is first needed, again when it died, ended when nobody needs it.

    none ──start──► running ──end──► ending ──► none: `worker_ended`
     ▲                 │ dies
     └─ `worker_again`─┴─► `worker_given_up`, if it died too often

Between a death and the next start nothing starts a worker, so that a device which comes then waits like those
that were there, and all of them are ordered anew together.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from xenvirtio.errors import XenError
from xenvirtio.worker import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.worker.connection import Guest
    from xenvirtio.worker.limits import Limits
    from xenvirtio.worker.loop import Loop, Timer
    from xenvirtio.worker.spawn import WorkerProcess

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """Who needs the worker."""

    def answered(self, answer: messages.Done | messages.Failed) -> None:
        """The worker has carried out an order, or could not."""

    def worker_gone(self) -> None:
        """No answer comes any more to anything that was ordered."""

    def worker_again(self) -> None:
        """The worker had died: order again what it was there for."""

    def worker_given_up(self, words: str) -> None:
        """It died too often."""

    def worker_ended(self) -> None:
        """It has ended as it was told."""


class WorkerLife:
    """One guest's worker, if it runs."""

    def __init__(
        self,
        guest: Guest,
        loop: Loop,
        spawn: Callable[[Guest], WorkerProcess],
        limits: Limits,
        owner: Owner,
    ) -> None:
        self._guest, self._loop, self._spawn = guest, loop, spawn
        self._limits, self._owner = limits, owner
        self.process: WorkerProcess | None = None
        self.ending = False
        self.deaths: list[float] = []
        """within `Limits.restart_window`, by time.monotonic()"""
        self.report: messages.Reported | None = None
        self._waiting: list[Callable[[], None]] = []
        self._restart: Timer | None = None

    @property
    def awaited(self) -> bool:
        """Orders are of no use now: `worker_again` or `worker_ended` comes soon."""
        return self.ending or self._restart is not None

    def start(self) -> None:
        """Raises XenError if there can be no worker now."""
        try:
            self.process = self._spawn(self._guest)
        except OSError as error:
            raise XenError(f"no worker for {self._guest.name}: {error.strerror}", error.errno or 0) from error
        self._loop.add(self.process.control.fileno(), self._hear)
        self._loop.add(self.process.fileno(), self._ended)
        logger.info("guest %s (%d): worker %d", self._guest.name, self._guest.domid, self.process.pid)

    def send(self, order: messages.Order) -> None:
        """Does nothing if there is no worker; one that does not take it is killed."""
        if self.process is None:
            return
        try:
            messages.send(self.process.control, order)
        except OSError:
            logger.warning("worker of %s does not take orders; it is ended", self._guest.name)
            self.process.kill()

    def kill(self) -> None:
        """Ends it where it stands, if there is one: what it held comes back, as at any death."""
        if self.process is not None:
            self.process.kill()

    def end(self, seconds: float) -> None:
        """Stops it in an orderly way, by force after so many seconds."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        process = self.process
        if process is None:
            self._owner.worker_ended()
            return
        self.ending = True
        self.send(messages.Stop())

        def force() -> None:
            if self.process is process:
                logger.warning(
                    "guest %s: worker %d did not stop within %.0f s: killed, nothing is lost by that",
                    self._guest.name,
                    process.pid,
                    seconds,
                )
                process.kill()

        self._loop.later(seconds, force)

    # --- its answers ---

    def ask_report(self, ticket: int, call: Callable[[], None]) -> bool:
        """Asks how its devices are; `call` is called when `report` is there, or the worker gone.

        False if there is nobody to ask; `call` is never called then.
        """
        if self.process is None or self.ending:
            return False
        self._waiting.append(call)
        self.send(messages.Report(ticket))
        return True

    def forget_report(self, call: Callable[[], None]) -> None:
        """Who asked does not wait any longer."""
        if call in self._waiting:
            self._waiting.remove(call)

    def _reported(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def _hear(self) -> None:
        assert self.process is not None
        try:
            answer = messages.receive(self.process.control)
            if isinstance(answer, messages.Order):
                raise messages.MessageError(f"{type(answer).__name__} is no answer")
        except BlockingIOError:
            return
        except (messages.MessageError, OSError) as error:
            logger.error("worker of %s: %s; it is ended", self._guest.name, error)
            self.process.kill()
            answer = None
        if answer is None:
            self._loop.remove(self.process.control.fileno())
        elif isinstance(answer, messages.Reported):
            self.report = answer
            self._reported()
        else:
            self._owner.answered(answer)

    # --- its end ---

    def _ended(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        self._loop.remove(process.control.fileno())
        self._loop.remove(process.fileno())
        words = process.reap()
        self._reported()
        self._owner.worker_gone()
        name, domid = self._guest.name, self._guest.domid
        if self.ending:
            logger.info("guest %s (%d): worker %d ended", name, domid, process.pid)
            self.ending = False
            self._owner.worker_ended()
            return
        logger.error("guest %s (%d): worker %d: %s", name, domid, process.pid, words)
        now = time.monotonic()
        self.deaths = [at for at in self.deaths if now - at < self._limits.restart_window]
        if len(self.deaths) >= self._limits.restarts:
            self._owner.worker_given_up(f"the worker died {len(self.deaths) + 1} times")
            return
        self.deaths.append(now)
        delay = self._limits.restart_delay * 2 ** (len(self.deaths) - 1)
        self._restart = self._loop.later(delay, self._again)

    def _again(self) -> None:
        self._restart = None
        self._owner.worker_again()
