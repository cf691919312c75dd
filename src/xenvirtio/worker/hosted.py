"""A device that a worker has open, and its place in the worker's loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from xenvirtio.worker.readings import Readings

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.device.base import Device
    from xenvirtio.worker.connection import Connection
    from xenvirtio.worker.loop import Loop


class Hosted:
    """A device that is open, connected or not."""

    def __init__(self, loop: Loop, devid: int, device: Device, label: str, cache_bytes: int) -> None:
        self.devid, self.device, self.label, self.cache_bytes = devid, device, label, cache_bytes
        self.connection: Connection | None = None
        self.readings = Readings(time.monotonic())
        self._loop = loop
        self._fds = list(device.pollers())
        for fd, call in device.pollers().items():
            self._loop.add(fd, self._guarded(call))

    def _guarded(self, call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            if self.connection is not None:
                self.connection.transport.poll(call)
            else:
                call()

        return run

    def report(self) -> dict[str, Any]:
        """How it is: what it is, its counters, its connection's if it has one."""
        entry = {"device_id": self.device.device_id, "counters": dict(self.device.counters)}
        return entry if self.connection is None else entry | self.connection.report()

    def disconnect(self) -> None:
        """Does nothing if it is not connected."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        self.disconnect()
        for fd in self._fds:
            self._loop.remove(fd)
        self.device.close()
