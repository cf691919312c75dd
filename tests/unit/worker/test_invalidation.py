"""A map cache hears of frames that change through an IOREQ server, and no vCPU waits for it for good."""

from __future__ import annotations

import itertools
import json
import logging
from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import UsageError
from xenvirtio.spec import ioreq
from xenvirtio.spec.xenbus import KEY_MAP_CACHE, MemoryAccess
from xenvirtio.testing.backend import InProcessBackend, plug, remove
from xenvirtio.testing.echo import ECHO, EchoDevice
from xenvirtio.testing.frontend import Frontend
from xenvirtio.testing.guest import ForeignGuest
from xenvirtio.testing.xen import FakeXen
from xenvirtio.transport.xenbus.nodes import DeviceKey
from xenvirtio.transport.xenbus.states import XenbusState
from xenvirtio.worker.invalidation import CACHE_DEFAULT, cache_setting
from xenvirtio.worker.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xenvirtio.memory.base import MemoryCounters
    from xenvirtio.testing.devicemodel import FakeDeviceModel, Server

LIMITS = Limits(restart_delay=0.01, restarts=2, gone_seconds=0.1, report_seconds=0.1)


class House:
    """A daemon and guest 5, with as many echo devices as were plugged, each in mode foreign."""

    def __init__(self, directory: Path, kind: str = "pvh") -> None:
        self.xen, self.directory = FakeXen(), directory
        self.xen.start_domain(5, "guest", kind)
        self.guest = ForeignGuest(domid=5)
        self.fronts: list[Frontend] = []
        self.backend = self.daemon()

    @property
    def model(self) -> FakeDeviceModel:
        return self.xen.device_model

    @property
    def servers(self) -> list[Server]:
        return self.model.servers_of(5)

    def daemon(self) -> InProcessBackend:
        backend = InProcessBackend(self.xen, self.directory, lambda *_: EchoDevice(), LIMITS)
        for front in self.fronts:
            backend.know(5, front)
        return backend.__enter__()

    def plug(self, devid: int = 0, **host: str) -> Frontend:
        front = Frontend(
            self.xen, self.guest, 5, devid, lambda: self.backend.turn(), access=MemoryAccess.FOREIGN
        )
        self.fronts.append(front)
        self.backend.know(5, front)
        settings = {name.replace("_", "-"): value for name, value in host.items()}
        plug(self.xen, DeviceKey(5, devid), ECHO, settings, MemoryAccess.FOREIGN)
        front.connect()
        front.negotiate()
        return front

    def turn(self, times: int = 30) -> None:
        for _ in range(times):
            self.backend.turn()

    def until_it_goes_on(self, vcpu: int = 0) -> list[int]:
        for _ in range(2000):
            self.backend.turn()
            answers = self.model.go_on(5, vcpu)
            if answers is not None:
                return answers
        raise AssertionError("the vCPU waits")

    def counters(self, devid: int = 0) -> MemoryCounters:
        for hosted in self.backend.workers[5].worker.hosted:
            if hosted.devid == devid and hosted.connection is not None:
                return hosted.connection.memory.counters
        raise AssertionError(f"device {devid} is not connected")

    def close(self) -> None:
        self.backend.stop()
        for front in self.fronts:
            front.close()
        self.guest.close()
        self.xen.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


def serve(front: Frontend) -> Iterator[None]:
    """Each step is a request, answered right."""
    driver = front.add_queue(0, 16)
    front.drive()
    for number in itertools.count():
        data = b"%d" % number * 900
        driver.add([data], [len(data)])
        front.kick(driver)
        assert [used.data for used in front.wait_used(driver)] == [[data]]
        yield


def test_an_invalidation_drops_the_cache_of_every_device_before_it_is_answered(house: House) -> None:
    requests = [serve(house.plug(devid)) for devid in (0, 1)]
    for request in requests * 2:
        next(request)
    assert [server.enabled for server in house.servers] == [True]
    assert all(house.counters(devid).cache_hits for devid in (0, 1))
    mapped = len(house.guest.mapper.mapped)
    for vcpu in (0, 1):
        house.model.ask(5, vcpu)
    assert len(house.guest.mapper.mapped) == mapped
    for vcpu in (0, 1):
        house.until_it_goes_on(vcpu)
    assert len(house.guest.mapper.mapped) < mapped
    for devid, request in enumerate(requests):
        assert house.counters(devid).invalidations == 2
        missed = house.counters(devid).cache_misses
        next(request)
        assert house.counters(devid).cache_misses > missed
    assert house.backend.report()["guests"][0]["events"]["invalidations"] == 2


def test_a_frame_that_comes_back_elsewhere_is_seen(house: House) -> None:
    request = serve(house.plug())
    next(request)
    next(request)
    # the guest's pages change places, as far as anybody who maps them from now on can tell
    house.guest.mapper.holes = set(range(house.guest.base, house.guest.base + house.guest.ram.pages))
    house.model.ask(5)
    house.until_it_goes_on()
    house.guest.mapper.holes = set()
    next(request)


def test_what_is_no_invalidation_is_answered_as_if_nothing_were_there(house: House) -> None:
    house.plug()
    house.model.ask(5, 0, ioreq.TYPE_COPY, ioreq.FLAG_READ)
    house.model.ask(5, 1, ioreq.TYPE_PIO)
    assert house.until_it_goes_on(0) == [(1 << 64) - 1]
    assert house.until_it_goes_on(1) == [0]


def test_the_server_goes_with_the_last_device_that_needs_it(house: House) -> None:
    fronts = [house.plug(devid) for devid in (0, 1)]
    assert len(house.servers) == 1
    house.model.ask(5)
    fronts[0].disconnect()
    assert len(house.servers) == 1
    house.until_it_goes_on()
    house.model.ask(5)
    fronts[1].disconnect()
    assert house.servers == []
    assert not house.model.mapped
    assert not list(house.directory.glob("*ioreq*"))


def test_a_daemon_that_stops_leaves_no_server_and_the_next_one_makes_its_own(house: House) -> None:
    request = serve(house.plug())
    next(request)
    house.backend.stop()
    assert house.servers == []
    house.model.ask(5)  # nobody is asked
    house.backend = house.daemon()
    house.turn()
    next(request)
    assert [server.enabled for server in house.servers] == [True]


def test_a_killed_worker_s_server_is_taken_over_and_what_waits_for_it_answered(house: House) -> None:
    request = serve(house.plug())
    next(request)
    (server,) = house.servers
    house.backend.workers[5].crash()
    house.model.ask(5, 1)
    house.until_it_goes_on(1)
    assert house.servers == [server]
    next(request)
    house.model.ask(5)
    house.until_it_goes_on()
    assert house.counters().invalidations == 1


def test_a_request_that_a_killed_worker_had_begun_is_answered_by_the_next(house: House) -> None:
    house.plug()
    house.backend.workers[5].crash()
    house.model.ask(5)
    (server,) = house.servers
    server.memory.write(ioreq.FLAGS, bytes([ioreq.STATE_IN_PROCESS]))
    house.until_it_goes_on()


def test_a_worker_that_is_given_up_leaves_no_server(house: House) -> None:
    house.plug()
    for _ in range(LIMITS.restarts + 1):
        process = house.backend.workers[5]
        process.crash()
        house.model.ask(5, 1)
        house.until_it_goes_on(1)
        for _ in range(2000):
            house.backend.turn()
            if not house.servers or house.backend.workers[5] is not process:
                break
    house.turn(100)
    assert house.servers == []
    assert house.backend.report()["guests"][0]["devices"][0]["phase"] == "retrying"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"guest": "other", "server": 0}', '{"server": "0"}'])
def test_a_file_that_is_not_this_guest_s_is_not_followed(house: House, content: str) -> None:
    front = house.plug()
    file = house.directory / "5-ioreq.json"
    server = json.loads(file.read_text())["server"]
    house.backend.workers[5].crash()
    file.write_text(content)
    house.turn(100)
    assert (5, server) in house.model.servers
    request = serve(front)
    next(request)
    # nobody knows the old one: this is what the file is there to prevent
    assert len(house.servers) == 2


def test_a_server_that_is_gone_is_made_anew(house: House) -> None:
    request = serve(house.plug())
    next(request)
    house.backend.workers[5].crash()
    house.model.servers.clear()
    house.turn(100)
    next(request)
    house.model.ask(5)
    house.until_it_goes_on()


def test_a_server_that_somebody_has_ended_is_made_anew_before_more_is_cached(house: House) -> None:
    fronts = [house.plug(devid) for devid in (0, 1)]
    for front in fronts:
        next(serve(front))
    house.model.servers.clear()
    fronts[0].disconnect()
    fronts[0].set_state(XenbusState.INITIALISING)
    fronts[0].connect()
    assert [server.enabled for server in house.servers] == [True]
    assert house.counters(1).invalidations == 1
    house.model.ask(5)
    house.until_it_goes_on()
    assert (house.counters(0).invalidations, house.counters(1).invalidations) == (1, 2)


def test_a_guest_that_is_destroyed_is_let_go_of(house: House) -> None:
    request = serve(house.plug())
    next(request)
    house.model.ask(5)
    house.xen.destroy_domain(5)
    house.turn(200)
    assert not house.backend.supervisor.guests
    assert not house.guest.mapper.mapped
    assert not house.model.mapped
    assert not list(house.directory.glob("5-*"))


def test_a_pv_guest_has_no_cache_and_that_is_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path, "pv")
    try:
        request = serve(house.plug())
        next(request)
        next(request)
        assert (house.counters().cache_hits, house.counters().cache_misses) == (0, 0)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    finally:
        house.close()


def test_without_a_server_to_be_had_the_guest_is_served_without_cache(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(8):
        house.model.create(5)
    request = serve(house.plug())
    next(request)
    assert house.counters().cache_misses == 0
    assert "no map cache" in caplog.text


def test_the_cache_can_be_switched_off(house: House) -> None:
    request = serve(house.plug(map_cache="0"))
    next(request)
    assert house.counters().cache_misses == 0
    assert house.servers == []


def test_the_setting_is_in_mib() -> None:
    assert cache_setting({}) == CACHE_DEFAULT
    assert cache_setting({KEY_MAP_CACHE: "3"}) == 3 << 20
    for wrong in ("", "-1", "1.5", "x", "65537", "²", "1" * 99):
        with pytest.raises(UsageError, match="map-cache is"):
            cache_setting({KEY_MAP_CACHE: wrong})


def test_a_device_that_is_removed_takes_its_server_along(house: House) -> None:
    front = house.plug()
    remove(house.xen, front.key)
    house.turn(100)
    assert house.servers == []
