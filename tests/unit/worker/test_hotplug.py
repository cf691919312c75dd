"""Devices that come, change and go, whatever happens to their worker meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xenvirtio.testing.backend import InProcessBackend, plug, remove, unplug
from xenvirtio.testing.echo import ECHO, EchoDevice
from xenvirtio.testing.frontend import Frontend
from xenvirtio.testing.guest import GrantGuest
from xenvirtio.testing.xen import FakeXen
from xenvirtio.transport.xenbus.nodes import DeviceKey
from xenvirtio.transport.xenbus.states import XenbusState
from xenvirtio.worker.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DOMID = 5
QUICK = Limits(restart_delay=0.001, gone_seconds=0.5, order_seconds=2.0, restarts=50)


class House:
    """A guest with one device that stays (0), and another that comes and goes (1)."""

    def __init__(self, directory: Path) -> None:
        self.xen, self.directory = FakeXen(), directory
        self.xen.start_domain(DOMID, "guest")
        self.guest = GrantGuest()
        self.devices: list[EchoDevice] = []
        self.backend = InProcessBackend(self.xen, directory, self.make, QUICK)
        self.store = self.xen.connect(0)
        self.fronts = [self.front(devid) for devid in (0, 1)]
        self.backend.__enter__()
        plug(self.xen, self.fronts[0].key, ECHO)
        self.driver = self.connect(self.fronts[0])

    def make(self, *_: object) -> EchoDevice:
        self.devices.append(EchoDevice())
        return self.devices[-1]

    def front(self, devid: int) -> Frontend:
        front = Frontend(self.xen, self.guest, DOMID, devid, self.turn)
        self.backend.know(DOMID, front)
        return front

    def turn(self) -> None:
        self.backend.turn()

    def restart(self) -> None:
        self.backend = InProcessBackend(self.xen, self.directory, self.make, QUICK)
        self.backend.know(DOMID, self.fronts[0])
        self.backend.__enter__()

    def crash(self) -> None:
        """kill -9 of the worker, if there is one."""
        worker = self.backend.workers.get(DOMID)
        if worker is not None:
            worker.crash()

    def connect(self, front: Frontend) -> object:
        front.connect()
        front.negotiate()
        driver = front.add_queue(0, 16)
        front.drive()
        return driver

    def host(self, front: Frontend, **settings: str) -> None:
        """Changes settings, as the toolstack does."""
        for key, value in settings.items():
            self.store.write(f"{front.key.backend(0)}/host/{key}", value)

    def answer(self, front: Frontend) -> str | None:
        return self.store.read(f"{front.key.backend(0)}/host/updated")

    def open(self) -> int:
        return sum(device.open for device in self.devices)

    def works(self) -> None:
        """The device that stays serves its guest."""
        front = self.fronts[0]
        front.wait_backend(XenbusState.CONNECTED)
        answer = front.write_config(0, b"alive")
        assert answer.name == "OK"

    def close(self) -> None:
        self.backend.stop()
        for front in self.fronts:
            front.close()
        self.store.close()
        self.guest.close()
        self.xen.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


def wait_answer(house: House, front: Frontend, wanted: str) -> None:
    front.wait(lambda: house.answer(front) == wanted, f"the answer {wanted!r} to an update")


# --- settings that change ---


def test_new_settings_reach_the_driver_as_a_configuration_change(house: House) -> None:
    front = house.fronts[0]
    before = front.load32(0x01C), front.interrupts
    house.host(front, space="new", update="1")
    wait_answer(house, front, "1")
    front.wait(lambda: front.interrupts > before[1], "the interrupt of XB-56")
    assert front.config() == b"new     "
    assert front.load32(0x01C) == before[0] + 2
    assert house.store.permissions(f"{front.key.backend(0)}/host/updated") == ["n0"]
    house.works()


def test_settings_count_when_the_toolstack_says_so(house: House) -> None:
    front = house.fronts[0]
    house.host(front, space="half")
    for _ in range(30):
        house.turn()
    assert front.config() == b"config!!"
    assert house.answer(front) is None


def test_settings_that_the_device_refuses_are_answered_with_its_words(house: House) -> None:
    front = house.fronts[0]
    house.host(front, refuse="no, thanks", update="7")
    wait_answer(house, front, "7 no, thanks")
    assert front.config() == b"config!!"
    house.works()
    house.store.remove(f"{front.key.backend(0)}/host/refuse")
    house.host(front, space="yes", update="8")
    wait_answer(house, front, "8")
    assert front.config() == b"yes     "


def test_each_of_many_updates_is_carried_out_or_overtaken(house: House) -> None:
    front = house.fronts[0]
    for number in range(1, 20):
        house.host(front, space=str(number), update=str(number))
        house.turn()
    wait_answer(house, front, "19")
    assert front.config() == b"19      "


def test_an_update_that_nobody_answered_is_answered_by_the_next_worker(house: House) -> None:
    front = house.fronts[0]
    house.host(front, space="new", update="1")
    house.crash()
    wait_answer(house, front, "1")
    house.works()
    assert len(house.devices) == 2


def test_an_update_while_no_daemon_runs_waits_for_it(house: House) -> None:
    front = house.fronts[0]
    house.backend.stop()
    house.host(front, space="new", update="1")
    house.restart()
    wait_answer(house, front, "1")
    house.works()


def test_an_update_of_a_device_that_nobody_uses_yet(house: House) -> None:
    front = house.fronts[1]
    plug(house.xen, front.key, ECHO)
    front.wait_backend(XenbusState.INIT_WAIT)
    house.host(front, space="early", update="1")
    wait_answer(house, front, "1")
    house.connect(front)
    assert front.config() == b"early   "


# --- devices that come and go ---


def detach(house: House, front: Frontend) -> None:
    unplug(house.xen, front.key)
    front.wait_backend(XenbusState.CLOSING)
    front.set_state(XenbusState.CLOSED)
    front.wait_backend(XenbusState.CLOSED)
    front.take_back()
    remove(house.xen, front.key)


def test_twenty_rounds_leave_nothing(house: House) -> None:
    front = house.fronts[1]
    seen = set()
    for _ in range(20):
        plug(house.xen, front.key, ECHO)
        house.connect(front)
        assert house.open() == 2
        detach(house, front)
        assert house.open() == 1, "what was served is free when the backend says Closed"
        seen.add(
            (
                len(front.table.mapped),
                len(house.backend.workers[DOMID].worker.hosted),
                len(list(house.directory.iterdir())),
            )
        )
    assert len(seen) == 1
    assert house.backend.started == 1
    house.works()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8])
def test_a_worker_killed_while_a_device_comes_ends_well(house: House, turns: int) -> None:
    front = house.fronts[1]
    plug(house.xen, front.key, ECHO)
    for _ in range(turns):
        house.turn()
        if front.backend_state is XenbusState.INIT_WAIT and not front.page_ref:
            front.offer()
            front.set_state(XenbusState.INITIALISED)
    house.crash()
    if not front.page_ref:
        front.wait_backend(XenbusState.INIT_WAIT)
        front.offer()
        front.set_state(XenbusState.INITIALISED)
    front.wait_backend(XenbusState.CONNECTED)
    front.set_state(XenbusState.CONNECTED)
    front.negotiate()
    detach(house, front)
    house.works()
    assert house.open() == 1


def leave(front: Frontend) -> None:
    """What the guest does when it is asked to let a device go; the worker may die at any moment of it."""
    front.wait_backend(XenbusState.CLOSING)
    front.set_state(XenbusState.CLOSED)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("daemon", [False, True])
def test_a_worker_or_daemon_killed_while_a_device_goes_ends_well(
    house: House, before: bool, turns: int, daemon: bool
) -> None:
    front = house.fronts[1]
    plug(house.xen, front.key, ECHO)
    house.connect(front)

    def kill() -> None:
        for _ in range(turns):
            house.turn()
        if daemon:
            house.backend.crash()
            house.restart()
        else:
            house.crash()

    steps: list[Callable[[], None]] = [kill, lambda: leave(front)]
    unplug(house.xen, front.key)
    for step in steps if before else reversed(steps):
        step()
    front.wait_backend(XenbusState.CLOSED)
    house.works()
    assert house.open() == 1
    front.take_back()
    remove(house.xen, front.key)
    files = house.directory.glob
    front.wait(lambda: [path.name for path in files("*.state")] == [f"{DOMID}-0.state"], "its file's end")


def test_nodes_that_are_pulled_out_from_under_a_device_end_it(house: House) -> None:
    """Forced removal (XB-22): the guest did not follow."""
    front = house.fronts[1]
    plug(house.xen, front.key, ECHO)
    house.connect(front)
    house.store.remove(DeviceKey(DOMID, 1).backend(0))
    front.wait(lambda: house.open() == 1, "the device's end")
    front.take_back()
    house.works()
