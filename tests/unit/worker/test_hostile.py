"""What a hostile frontend does to its device page, its rings, its event channel and its nodes; and what
follows."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest

from xenvirtio.spec import virtio, xenbus
from xenvirtio.spec.xenbus import Command, Result
from xenvirtio.testing.backend import InProcessBackend, plug
from xenvirtio.testing.driver import Driver
from xenvirtio.testing.echo import ECHO, EchoDevice
from xenvirtio.testing.frontend import Frontend
from xenvirtio.testing.guest import GrantGuest
from xenvirtio.testing.xen import FakeXen
from xenvirtio.transport.xenbus.nodes import DeviceKey
from xenvirtio.transport.xenbus.ports import SPURIOUS_FREE
from xenvirtio.transport.xenbus.states import XenbusState
from xenvirtio.worker.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACKNOWLEDGED = virtio.STATUS_ACKNOWLEDGE | virtio.STATUS_DRIVER
NEEDS_RESET = virtio.STATUS_DEVICE_NEEDS_RESET
LIMITS = Limits(restart_delay=0.001, steps_per_second=20, steps_burst=30)


class Guests:
    """Two guests with a device each; the second one is honest, and nothing may happen to it."""

    def __init__(self, directory: Path) -> None:
        self.xen = FakeXen()
        self.backend = InProcessBackend(self.xen, directory, lambda *_: EchoDevice(), LIMITS)
        self.memory = {domid: GrantGuest(domid=domid) for domid in (5, 6)}
        self.frontends = {}
        for domid, memory in self.memory.items():
            self.xen.start_domain(domid, f"guest{domid}")
            plug(self.xen, DeviceKey(domid, 0), ECHO)
            frontend = Frontend(self.xen, memory, domid, 0, self.backend.turn)
            self.backend.know(domid, frontend)
            self.frontends[domid] = frontend
        self.backend.__enter__()
        self.front = self.frontends[5]

    def ready(self, domid: int = 5) -> Driver:
        frontend = self.frontends[domid]
        if frontend.backend_state is not XenbusState.CONNECTED:
            frontend.connect()
        frontend.negotiate()
        driver = frontend.add_queue(0, 16)
        frontend.drive()
        return driver

    def echo(self, driver: Driver, domid: int = 5, data: bytes = b"data") -> None:
        driver.add([data], [len(data)])
        self.frontends[domid].kick(driver)
        (used,) = self.frontends[domid].wait_used(driver)
        assert used.data == [data]

    def turn(self, times: int) -> None:
        for _ in range(times):
            self.backend.turn()

    def close(self) -> None:
        self.backend.stop()
        for domid, frontend in self.frontends.items():
            frontend.close()
            self.memory[domid].close()
        self.xen.close()


@pytest.fixture
def guests(tmp_path: Path) -> Iterator[Guests]:
    guests = Guests(tmp_path)
    yield guests
    guests.close()


def test_a_broken_ring_stops_the_device_with_one_line_and_a_reset_repairs_it(
    guests: Guests, caplog: pytest.LogCaptureFixture
) -> None:
    honest = guests.ready(6)
    driver = guests.ready()
    with caplog.at_level(logging.WARNING):
        driver.set_avail_idx(1000)
        guests.front.notify()
        guests.front.wait(lambda: guests.front.status & NEEDS_RESET, "NEEDS_RESET")
        for _ in range(20):
            guests.front.notify()
            guests.turn(2)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("guest guest5 (5) device 0 queue 0: stopped, the guest must reset it: ")
    assert guests.front.set_status(guests.front.status | virtio.STATUS_DRIVER_OK) is Result.STATE
    guests.echo(honest, 6)
    guests.echo(guests.ready())
    guests.echo(honest, 6)


@pytest.mark.parametrize("command", [0, 6, 0xFFFF_FFFF])
def test_an_unknown_command_is_answered_unknown(guests: Guests, command: int) -> None:
    guests.front.connect()
    assert guests.front.command(command).result is Result.UNKNOWN


@pytest.mark.parametrize(
    ("features", "accepted"),
    [
        (virtio.F_VERSION_1 | virtio.F_ACCESS_PLATFORM, True),
        (virtio.F_VERSION_1, False),
        (virtio.F_ACCESS_PLATFORM, False),
        (0, False),
        (virtio.F_VERSION_1 | virtio.F_ACCESS_PLATFORM | virtio.F_RING_PACKED, False),
        (virtio.F_VERSION_1 | virtio.F_ACCESS_PLATFORM | 1 << 127, False),
    ],
)
def test_features_that_were_not_offered_or_are_missing_leave_features_ok_unset(
    guests: Guests, features: int, accepted: bool
) -> None:
    guests.front.connect()
    wanted = ACKNOWLEDGED | virtio.STATUS_FEATURES_OK
    assert guests.front.set_status(wanted, features) is Result.OK
    assert guests.front.status == (wanted if accepted else ACKNOWLEDGED)


def test_status_bits_are_added_never_taken_away(guests: Guests) -> None:
    guests.ready()
    before = guests.front.status
    assert guests.front.set_status(virtio.STATUS_ACKNOWLEDGE) is Result.INVALID
    assert guests.front.set_status(0x1_0000 | before) is Result.INVALID
    assert guests.front.set_status(0x10 | before) is Result.INVALID
    assert guests.front.set_status(before | NEEDS_RESET) is Result.INVALID
    assert guests.front.status == before
    assert guests.front.set_status(0) is Result.OK
    assert guests.front.set_status(ACKNOWLEDGED | virtio.STATUS_DRIVER_OK) is Result.STATE


def test_queues_are_checked_when_they_are_set_up(guests: Guests) -> None:
    front = guests.front
    front.connect()
    driver = Driver(front.guest, 16)
    assert front.enable_queue(driver) is Result.STATE  # before FEATURES_OK
    front.negotiate()
    assert front.command(Command.QUEUE_QUERY, queue=1).value == 256
    assert front.command(Command.QUEUE_QUERY, queue=2).value == 0
    assert front.enable_queue(driver, queue=2) is Result.INVALID
    for size in (0, 3, 512, 0x8000_0000):
        assert front.enable_queue(driver, value=size) is Result.INVALID
    assert front.enable_queue(driver, desc=driver.config.desc + 1) is Result.INVALID
    assert front.enable_queue(driver, driver=driver.config.device) is Result.INVALID  # overlap
    for address in (0, 0x1000, 1 << 63 | 0xFFFF << 12, (1 << 64) - 16):
        assert front.enable_queue(driver, desc=address) in (Result.FAULT, Result.INVALID)
    for port in (999, 1 << 31):
        assert front.enable_queue(driver, port=port) is Result.FAULT
    assert len(front.table.mapped) == 1  # the page: nothing of what failed stays
    assert front.enable_queue(driver) is Result.OK
    assert front.enable_queue(driver) is Result.STATE
    front.drive()
    other = Driver(front.guest, 16, index=1)
    assert front.enable_queue(other) is Result.STATE
    assert front.command(Command.QUEUE_RESET, queue=0).result is Result.STATE
    guests.echo(driver)


def test_a_read_only_granted_used_ring_is_refused(guests: Guests) -> None:
    front = guests.front
    front.connect()
    front.negotiate()
    driver = Driver(front.guest, 16)
    ring = front.guest.ram.place(4096, 4096)
    assert front.enable_queue(driver, device=front.guest.share(ring, 4096, False)) is Result.FAULT


def test_configuration_writes_stay_in_the_configuration(guests: Guests) -> None:
    front = guests.front
    front.connect()
    generation = front.load32(xenbus.DEV_CONFIG_GENERATION)
    assert front.write_config(4, b"XY") is Result.OK
    assert front.config() == b"confXY!!"
    now = front.load32(xenbus.DEV_CONFIG_GENERATION)
    assert now % 2 == 0
    assert now != generation
    assert front.write_config(7, b"ab") is Result.INVALID
    assert front.command(Command.CONFIG_WRITE, offset=0xFFFF_FFFF, value=1).result is Result.INVALID
    assert front.command(Command.CONFIG_WRITE, offset=0, value=65).result is Result.INVALID
    assert front.config() == b"confXY!!"


def test_a_queue_may_have_a_port_of_its_own(guests: Guests) -> None:
    front = guests.front
    front.connect()
    front.negotiate()
    port = front.channels.offer(0)
    driver = front.add_queue(0, 16, port=port)
    front.drive()
    driver.add([b"own"], [3])
    driver.kick()
    front.notify()  # the device's port is not this queue's
    guests.turn(20)
    assert not list(driver.used())
    front.notify(port)
    (used,) = front.wait_used(driver)
    assert used.data == [b"own"]
    front.disconnect()
    front.channels.unbind(port)


def test_a_kick_before_driver_ok_is_not_lost(guests: Guests) -> None:
    front = guests.front
    front.connect()
    front.negotiate()
    port = front.channels.offer(0)
    drivers = [front.add_queue(0, 16), front.add_queue(1, 16, port=port)]
    for driver in drivers:
        driver.add([b"early"], [5])
        driver.kick()
    front.notify(port)
    guests.turn(20)
    assert [driver.used_idx for driver in drivers] == [0, 0]
    front.drive()
    for driver in drivers:
        (used,) = front.wait_used(driver)
        assert used.data == [b"early"]


def test_a_reset_shows_the_configuration_as_it_is_then(guests: Guests) -> None:
    guests.ready()
    (device,) = guests.backend.workers[5].worker.hosted
    assert isinstance(device.device, EchoDevice)
    device.device.space[:] = b"original"
    assert guests.front.set_status(0) is Result.OK
    assert guests.front.config() == b"original"


def test_the_device_s_own_part_of_the_page_is_never_believed(guests: Guests) -> None:
    driver = guests.ready()
    guests.front.poke(xenbus.DEV_STATUS, "<I", 0)
    guests.front.poke(xenbus.DEV_ACK_SEQ, "<I", 77)
    guests.front.poke(xenbus.DEV_FEATURES, "<QQ", 0, 0)
    guests.front.poke(xenbus.DEV_NUM_QUEUES, "<I", 0xFFFF_FFFF)
    guests.echo(driver)
    assert guests.front.set_status(15) is Result.OK
    assert guests.front.status == 15


def test_an_event_storm_is_slowed_down_and_others_are_served(guests: Guests) -> None:
    honest = guests.ready(6)
    driver = guests.ready()
    worker = guests.backend.workers[5]
    ports = worker.worker.handles.ports
    for _ in range(20 * SPURIOUS_FREE):
        guests.front.notify()
        worker.turn()
    assert ports.penalties > 0
    assert ports.events < 10 * SPURIOUS_FREE  # the port was masked most of the time
    guests.echo(honest, 6)
    guests.echo(driver)  # late, but served


@pytest.mark.parametrize("state", ["", "99", "4" * 4000, "-1", "four"])
def test_a_nonsense_state_closes_the_device_cleanly(guests: Guests, state: str) -> None:
    guests.ready()
    guests.front.store.write(f"{guests.front.key.frontend}/state", state)
    guests.front.wait_backend(XenbusState.CLOSED)
    assert len(guests.front.table.mapped) == 0
    guests.front.set_state(XenbusState.INITIALISING)
    guests.echo(guests.ready())


@pytest.mark.parametrize(
    "nodes",
    [
        {"device_page": "4294967296"},
        {"device_page": "12345"},
        {"event_channel": "131071"},
        {"event_channel": "junk"},
        {"version": ""},
    ],
)
def test_a_wrong_offer_is_refused_with_words_and_may_be_repaired(
    guests: Guests, nodes: dict[str, str]
) -> None:
    front = guests.front
    front.wait_backend(XenbusState.INIT_WAIT)
    front.offer(**nodes)
    front.set_state(XenbusState.INITIALISED)
    front.wait_backend(XenbusState.CLOSED)
    assert guests.backend.store.read(f"{front.key.backend(0)}/error")
    assert not front.table.mapped
    front.set_state(XenbusState.INITIALISING)
    guests.echo(guests.ready())


def test_a_frontend_that_removes_its_nodes_is_closed(guests: Guests) -> None:
    guests.ready()
    backend = guests.front.backend_path
    guests.front.store.remove(guests.front.key.frontend)
    guests.front.wait(lambda: guests.backend.store.read(f"{backend}/state") == "6", "Closed")
    assert not guests.front.table.mapped


def test_a_guest_that_flaps_pays_itself(guests: Guests) -> None:
    """Its own walks are rationed; the other guest's are not, and its last word is heard."""
    start = time.monotonic()
    guests.ready()
    waiting = []
    for _ in range(300):
        for state in ("6", "1") * 250:
            guests.front.store.write(f"{guests.front.key.frontend}/state", state)
        guests.backend.turn()
        waiting.append(guests.backend.store.waiting)
    looks = guests.backend.supervisor.guests[5].attention.looks
    elapsed = time.monotonic() - start
    assert LIMITS.steps_burst <= looks <= LIMITS.steps_burst + LIMITS.steps_per_second * elapsed
    # XSA-349: no more than came between two looks, though 150 000 events were to come
    assert max(waiting) <= 500 * LIMITS.steps_burst
    assert waiting[-1] <= 2000
    guests.echo(guests.ready(6), 6)
    guests.front.set_state(XenbusState.INITIALISING)
    guests.front.wait_backend(XenbusState.INIT_WAIT)
    looks = guests.backend.supervisor.guests[5].attention.looks
    guests.turn(100)
    time.sleep(0.3)
    guests.turn(100)
    # a guest that has become quiet is left alone
    assert guests.backend.supervisor.guests[5].attention.looks <= looks + 3


def test_state_writes_on_nodes_of_the_backend_are_refused_by_xenstore(guests: Guests) -> None:
    with pytest.raises(Exception, match="Permission denied"):
        guests.front.store.write(f"{guests.front.key.backend(0)}/state", "4")
    with pytest.raises(Exception, match="Permission denied"):
        guests.front.store.read(f"{guests.front.key.backend(0)}/host/memory-access")


def test_a_random_page_does_no_harm(guests: Guests) -> None:
    import random

    chance = random.Random(7)
    guests.ready()
    ram, page = guests.memory[5].ram, guests.front.page
    for _ in range(500):
        ram.write(page + 0x800, chance.randbytes(0x800))
        guests.front.poke(xenbus.DRV_CMD, "<I", chance.randrange(7))
        if chance.random() < 0.5:
            guests.front.poke(xenbus.DRV_VALUE, "<I", chance.choice([0, 1, 3, 11, 15, 16, 64, 128]))
        guests.front.notify()
        guests.turn(1)
    guests.front.sequence = guests.front.load32(xenbus.DRV_CMD_SEQ)
    guests.echo(guests.ready())
    assert guests.backend.started == 2  # no worker died of it
