"""A frontend, the real supervisor and the real worker, on the in-process Xen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xenvirtio.spec import virtio, xenbus
from xenvirtio.spec.xenbus import Result
from xenvirtio.testing.backend import InProcessBackend, plug, remove, unplug
from xenvirtio.testing.driver import Driver
from xenvirtio.testing.echo import ECHO, EchoDevice
from xenvirtio.testing.frontend import Frontend
from xenvirtio.testing.guest import ForeignGuest, GrantGuest
from xenvirtio.testing.xen import FakeXen
from xenvirtio.transport.xenbus.nodes import DeviceKey
from xenvirtio.transport.xenbus.states import XenbusState
from xenvirtio.worker.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOMID = 5
KEY = DeviceKey(DOMID, 0)
QUICK = Limits(restart_delay=0.001, gone_seconds=0.5, order_seconds=2.0, restarts=3, retry_seconds_max=0.3)


class World:
    """One guest with an echo device."""

    def __init__(self, directory: Path, access: str) -> None:
        self.xen = FakeXen()
        self.directory = directory
        self.xen.start_domain(DOMID, "guest")
        self.guest = GrantGuest() if access == "grant" else ForeignGuest()
        self.devices: list[EchoDevice] = []
        plug(self.xen, KEY, ECHO, access=access)
        self.backend = self.daemon()
        self.frontend = Frontend(self.xen, self.guest, DOMID, 0, self.turn, access)
        self.backend.know(DOMID, self.frontend)
        self.backend.__enter__()

    def daemon(self) -> InProcessBackend:
        return InProcessBackend(self.xen, self.directory, self.make_device, QUICK)

    def restart(self) -> None:
        self.backend = self.daemon()
        self.backend.know(DOMID, self.frontend)
        self.backend.__enter__()

    def make_device(self, device_id: int, host: dict[str, str]) -> EchoDevice:
        if "broken" in host:
            raise OSError(f"cannot open {host['broken']}")
        assert device_id == ECHO
        self.devices.append(EchoDevice())
        return self.devices[-1]

    def turn(self) -> None:
        self.backend.turn()

    def until(self, condition: object, what: str) -> None:
        assert callable(condition)
        self.frontend.wait(condition, what)

    def ready(self, features: int = virtio.F_EVENT_IDX | virtio.F_INDIRECT_DESC) -> None:
        self.frontend.connect()
        self.frontend.negotiate(features)
        self.driver = self.frontend.add_queue(0, 64)
        self.frontend.drive()

    def echo(self, data: bytes) -> bytes:
        self.driver.add([data], [len(data)])
        self.frontend.kick(self.driver)
        (used,) = self.frontend.wait_used(self.driver)
        assert used.length == len(data)
        return b"".join(used.data)

    def close(self) -> None:
        self.backend.stop()
        self.frontend.close()
        self.guest.close()
        self.xen.close()


@pytest.fixture(params=["grant", "foreign"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, request.param)
    yield world
    world.close()


def test_a_frontend_connects_negotiates_and_is_served(world: World) -> None:
    world.ready()
    for number in range(200):
        data = f"request {number}".encode() * 50
        assert world.echo(data) == data
    assert world.frontend.interrupts > 0


def test_the_frontend_closes_and_comes_back(world: World) -> None:
    world.ready()
    assert world.echo(b"once") == b"once"
    world.frontend.disconnect()
    world.frontend.set_state(XenbusState.INITIALISING)
    world.ready()
    assert world.echo(b"twice") == b"twice"
    assert len(world.devices) == 1


def test_a_detach_ends_in_closed_and_an_open_device_no_more(world: World) -> None:
    world.ready()
    unplug(world.xen, KEY)
    world.frontend.wait_backend(XenbusState.CLOSING)
    world.frontend.disconnect()
    world.until(lambda: not world.devices[0].open, "the device's end")
    remove(world.xen, KEY)
    world.until(lambda: not world.backend.supervisor.guests, "the guest's end")
    assert not list(world.directory.iterdir())


def test_a_destroyed_guest_is_let_go_of_and_its_nodes_are_removed(world: World) -> None:
    world.ready()
    world.driver.add([b"x"], [1])
    world.xen.destroy_domain(DOMID)
    for _ in range(100):
        world.turn()
        if not world.backend.supervisor.guests:
            break
    assert not world.backend.supervisor.guests
    assert not world.frontend.table.mapped
    assert world.backend.store.names("/local/domain/0/backend/virtio/5") is None
    assert not list(world.directory.iterdir())
    assert not world.devices[0].open


def test_the_next_daemon_cleans_up_after_guests_that_went_meanwhile(world: World) -> None:
    world.ready()
    world.backend.stop()
    (world.directory / "notes-of-others").touch()
    assert list(world.directory.glob("5-*"))
    world.xen.destroy_domain(DOMID)
    world.restart()
    assert world.backend.store.names("/local/domain/0/backend/virtio/5") is None
    assert [path.name for path in world.directory.iterdir()] == ["notes-of-others"]


def test_a_worker_that_dies_is_replaced_and_goes_on(world: World) -> None:
    world.ready()
    assert world.echo(b"before") == b"before"
    world.backend.workers[DOMID].crash()
    world.driver.add([b"meanwhile"], [9])
    world.driver.kick()  # nobody is there to hear the event
    (used,) = world.frontend.wait_used(world.driver)
    assert used.data == [b"meanwhile"]
    assert world.echo(b"after") == b"after"
    assert world.backend.started == 2
    assert world.frontend.backend_state is XenbusState.CONNECTED


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_the_next_daemon_goes_on_where_the_last_one_stood(world: World, how: str) -> None:
    world.ready()
    assert world.echo(b"before") == b"before"
    getattr(world.backend, how)()
    assert world.frontend.backend_state is XenbusState.CONNECTED
    world.driver.add([b"meanwhile"], [9])
    world.driver.kick()
    world.restart()
    (used,) = world.frontend.wait_used(world.driver)
    assert used.data == [b"meanwhile"]
    assert world.echo(b"after") == b"after"
    world.frontend.disconnect()


def test_a_worker_that_dies_again_and_again_is_not_started_for_a_while(world: World) -> None:
    world.ready()
    for _ in range(4):
        started = world.backend.started
        world.backend.workers[DOMID].crash()
        for _ in range(50):
            world.turn()
        if world.backend.started == started:
            break
    assert world.backend.started == started == 4
    assert world.backend.store.read(f"{KEY.backend(0)}/error") == "the worker died 4 times"
    assert world.frontend.backend_state is XenbusState.CONNECTED
    assert world.echo(b"patience") == b"patience"
    assert world.backend.started == 5
    world.turn()
    assert world.backend.store.read(f"{KEY.backend(0)}/error") is None


def test_without_its_state_file_a_device_is_closed_and_may_start_again(world: World) -> None:
    world.ready()
    world.backend.stop()
    for file in world.directory.iterdir():
        file.unlink()
    world.restart()
    world.frontend.wait_backend(XenbusState.CLOSED)
    assert "how to go on" in (world.backend.store.read(f"{KEY.backend(0)}/error") or "")
    world.frontend.take_back()
    world.frontend.set_state(XenbusState.CLOSED)
    world.frontend.set_state(XenbusState.INITIALISING)
    world.ready()
    assert world.backend.store.read(f"{KEY.backend(0)}/error") is None
    assert world.echo(b"again") == b"again"


def test_a_device_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    world = World(tmp_path, "grant")
    other = DeviceKey(DOMID, 7)
    plug(world.xen, other, ECHO, {"broken": "/images/disk.img"})
    path = other.backend(0)
    world.until(lambda: world.backend.store.read(f"{path}/state") == "6", "Closed")
    assert world.backend.store.read(f"{path}/error") == "cannot open /images/disk.img"
    assert world.backend.store.permissions(f"{path}/error") == [
        "n0"
    ]  # a host path is not the guest's business
    world.ready()  # the other device does not mind
    assert world.echo(b"fine") == b"fine"
    world.close()


def test_access_that_the_toolstack_did_not_allow_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path, "grant")
    world.frontend.wait_backend(XenbusState.INIT_WAIT)
    assert world.backend.store.read(f"{KEY.backend(0)}/memory-access") == "grant"
    world.frontend.offer(memory_access="foreign")
    world.frontend.set_state(XenbusState.INITIALISED)
    world.frontend.wait_backend(XenbusState.CLOSED)
    assert "memory-access is not one of: grant" in (world.backend.store.read(f"{KEY.backend(0)}/error") or "")
    assert world.frontend.load32(xenbus.DEV_MAGIC) == 0
    world.close()


def test_the_status_counts_what_was_done(tmp_path: Path) -> None:
    world = World(tmp_path, "grant")
    world.ready()
    world.echo(b"one")
    (guest,) = world.backend.report()["guests"]
    assert (guest["domid"], guest["name"]) == (DOMID, "guest")
    (device,) = guest["devices"]
    assert device["phase"] == "connected"
    assert device["memory_access"] == "grant"
    assert device["counters"]["chains"] == 1
    assert device["memory"]["grants_copied"] >= 2
    assert device["status"] == 15
    world.close()


def test_addresses_that_are_not_the_guests_name_frame_guest_and_way_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """XB-77, XB-80: a PV guest without iommu=soft gives pseudo-physical ones. One warning, no side effect."""
    world = World(tmp_path, "foreign")
    world.frontend.connect()
    world.frontend.negotiate()
    driver = Driver(world.guest, 64, world.frontend.features, 0)
    pseudo = {name: getattr(driver.config, name) & 0xFFFFFFF for name in ("desc", "driver", "device")}
    for _ in range(2):
        assert world.frontend.enable_queue(driver, **pseudo) is Result.FAULT
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    frame = f"frame {pseudo['desc'] >> 12:#x} "
    for part in ("guest guest (5) device 0 queue 0", frame, "iommu=soft", "XB-77"):
        assert part in warnings[0]
    assert world.frontend.enable_queue(driver) is Result.OK
    driver.close()
    world.close()


def test_a_frontend_that_does_not_take_the_device_has_its_reason_in_the_daemons_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """XB-15."""
    world.frontend.wait_backend(XenbusState.INIT_WAIT)
    why = "95 a PV guest needs iommu=soft\x1b[2J"
    world.backend.store.write(f"/local/domain/{DOMID}/error/device/virtio/0/error", why)
    world.frontend.set_state(XenbusState.CLOSING)
    world.frontend.wait_backend(XenbusState.CLOSING)
    world.frontend.set_state(XenbusState.CLOSED)
    world.frontend.wait_backend(XenbusState.CLOSED)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"guest guest device {KEY}: not taken: 95 a PV guest needs iommu=soft[2J"]
