"""An event loop on epoll: descriptors, and calls that are due later. Supervisor and worker each have one."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import select
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

#: descriptors handled before timers get their turn
EVENTS_AT_ONCE = 64


class Timer:
    """A call that is due at a time; `cancel` before then."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """Level-triggered: whoever leaves work behind is called again, after all others had their turn.

    A context manager. What a callback raises ends `run`.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self.stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """Calls `call` whenever `fd` is readable or hung up."""
        self._epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = call

    def remove(self, fd: int) -> None:
        """Forgets a descriptor; it may be closed already."""
        if self._calls.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Calls `call` once, in so many seconds."""
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def stop(self) -> None:
        """`run` returns after the callback that runs now."""
        self.stopped = True

    def run(self) -> None:
        """Until `stop`."""
        while not self.stopped:
            self.turn(None)

    def turn(self, limit: float | None) -> None:
        """Waits for events, at most `limit` seconds (None: until there are some), and handles them."""
        wait = self._until_next_timer()
        if limit is not None and (wait < 0 or wait > limit):
            wait = limit
        ready = [(fd, self._calls.get(fd)) for fd, _ in self._epoll.poll(wait, EVENTS_AT_ONCE)]
        for fd, call in ready:
            # an earlier call of this turn may have removed it, and its number may be another one's by now
            if call is not None and self._calls.get(fd) is call:
                call()
            if self.stopped:
                return
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now and not self.stopped:
            timer = heapq.heappop(self._timers)[2]
            if timer.call is not None:
                timer.call()

    def _until_next_timer(self) -> float:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1
        return max(0.0, self._timers[0][0] - time.monotonic())

    def close(self) -> None:
        self._epoll.close()
        self._calls.clear()
        self._timers.clear()
