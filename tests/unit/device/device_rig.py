"""A device with a driver on each of its queues, as the tests of every device need it."""

from __future__ import annotations

import contextlib
import select
from typing import TYPE_CHECKING, Self

from xenvirtio.queue.split import SplitQueue
from xenvirtio.spec import virtio
from xenvirtio.testing.driver import Driver
from xenvirtio.testing.guest import RegionGuest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.device.base import Device
    from xenvirtio.testing.driver import Used
    from xenvirtio.testing.guest import ForeignGuest, GrantGuest

TRANSPORT = virtio.F_VERSION_1 | virtio.F_INDIRECT_DESC | virtio.F_EVENT_IDX


class Rig:
    """Owns guest, queues and device; active from `activate` on. A context manager."""

    def __init__(
        self, device: Device, guest: RegionGuest | GrantGuest | ForeignGuest | None = None, size: int = 64
    ) -> None:
        self.device = device
        self.guest = guest or RegionGuest(2048)
        self.memory = self.guest.memory()
        self.size = size
        self.notified: list[int] = []
        self.changes = 0
        self.drivers: list[Driver] = []
        self.queues: list[SplitQueue] = []
        device.config_changed = self._changed

    def _changed(self) -> None:
        self.changes += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.reset()
        self.device.close()
        self.memory.close()
        self.guest.close()

    def activate(self, features: int | None = None, without: Sequence[int] = ()) -> Self:
        """DRIVER_OK with these device features (all by default); `without`: queues not enabled."""
        negotiated = (self.device.features if features is None else features) | TRANSPORT
        queues: list[SplitQueue | None] = []
        for index in range(self.device.queue_count):
            driver = Driver(self.guest, self.size, negotiated, index)
            queue = SplitQueue(self.memory, driver.config, negotiated)
            self.drivers.append(driver)
            self.queues.append(queue)
            queues.append(None if index in without else queue)
        self.device.activate(negotiated, queues, self.notified.append)
        return self

    def reset(self) -> None:
        """The driver resets the device and takes everything back."""
        self.device.deactivate()
        for queue in self.queues:
            queue.close()
        for driver in self.drivers:
            driver.close()
        self.queues.clear()
        self.drivers.clear()
        self.notified.clear()

    def poll(self) -> None:
        """Call pollers until none has anything to do; at most 100 times."""
        pollers = self.device.pollers()
        with contextlib.closing(select.epoll()) as epoll:
            for fd in pollers:
                epoll.register(fd, select.EPOLLIN)
            for _ in range(100):
                ready = epoll.poll(0)
                if not ready:
                    return
                for fd, _ in ready:
                    pollers[fd]()
        raise AssertionError("the device's pollers do not come to rest")

    def run(self, queue: int = 0) -> list[Used]:
        """Show what was added, kick if the device asks for it, and collect what comes back."""
        if self.drivers[queue].kick():
            self.device.kick(queue)
        self.poll()
        return self.drivers[queue].used()

    def request(self, readable: Sequence[bytes], writable: Sequence[int], queue: int = 0) -> Used:
        """One chain there and back."""
        self.drivers[queue].add(readable, writable)
        answers = self.run(queue)
        assert len(answers) == 1
        return answers[0]
