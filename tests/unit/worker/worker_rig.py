"""A daemon in this process, on a Xen in this process, with two guests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xenvirtio.errors import XenError
from xenvirtio.testing.backend import InProcessBackend, plug
from xenvirtio.testing.echo import ECHO, EchoDevice
from xenvirtio.testing.frontend import Frontend
from xenvirtio.testing.guest import GrantGuest
from xenvirtio.testing.xen import FakeXen
from xenvirtio.transport.xenbus.nodes import DeviceKey
from xenvirtio.worker.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from xenvirtio.testing.driver import Driver

ROOT = "/local/domain/0/backend/virtio"
LIMITS = Limits(restart_delay=0.1, retry_seconds=0.02, gone_seconds=0.1, report_seconds=0.1)


class House:
    """A daemon, guest 5 with a device that is connected, guest 6 with nothing yet."""

    def __init__(self, directory: Path) -> None:
        self.xen, self.directory = FakeXen(), directory
        self.guests = {domid: GrantGuest(domid=domid) for domid in (5, 6)}
        self.fronts: list[Frontend] = []
        for domid in self.guests:
            self.xen.start_domain(domid, f"guest{domid}")
        self.backend = self.daemon()
        self.front = self.plug(5, 0)
        self.driver = self.drive(self.front)

    def daemon(self) -> InProcessBackend:
        backend = InProcessBackend(self.xen, self.directory, lambda *_: EchoDevice(), LIMITS)
        for front in self.fronts:
            backend.know(front.key.domid, front)
        return backend.__enter__()

    def plug(self, domid: int, devid: int) -> Frontend:
        front = Frontend(self.xen, self.guests[domid], domid, devid, lambda: self.backend.turn())
        self.fronts.append(front)
        self.backend.know(domid, front)
        plug(self.xen, DeviceKey(domid, devid), ECHO)
        return front

    def drive(self, front: Frontend) -> Driver:
        front.connect()
        front.negotiate()
        driver = front.add_queue(0, 16)
        front.drive()
        return driver

    def echo(self, front: Frontend, driver: Driver) -> None:
        driver.add([b"data"], [4])
        front.kick(driver)
        (used,) = front.wait_used(driver)
        assert used.data == [b"data"]

    def turn(self, seconds: float = 0.0) -> None:
        end = time.monotonic() + seconds
        for _ in range(30):
            self.backend.turn()
        while time.monotonic() < end:
            self.backend.turn()

    def close(self) -> None:
        self.backend.stop()
        for front in self.fronts:
            front.close()
        for guest in self.guests.values():
            guest.close()
        self.xen.close()


def served(house: House) -> list[int]:
    return sorted(house.backend.supervisor.guests)


def fail_reads(
    house: House, monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], bool], number: int
) -> None:
    read = house.backend.store.read

    def reading(path: str) -> str | None:
        if fails(path):
            raise XenError(f"XenStore: {path}", number)
        return read(path)

    monkeypatch.setattr(house.backend.store, "read", reading)
