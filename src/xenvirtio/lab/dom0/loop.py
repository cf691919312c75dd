"""The agent's event loop."""

from __future__ import annotations

import select
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """An epoll loop: one callback a file descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}

    def add(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        if fd in self._callbacks:
            self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run(self) -> None:
        while True:
            for fd, events in self._epoll.poll():
                callback = self._callbacks.get(fd)
                try:
                    if callback is not None:
                        callback(events)
                except Exception:
                    # One session's trouble: the others, and the lab, go on.
                    traceback.print_exc()
