"""What the supervisor owes each of its guests, whatever the others and their workers do."""

from __future__ import annotations

import errno
import json
import logging

import pytest

from tests.unit.worker.worker_rig import LIMITS, ROOT, House, fail_reads, served
from xenvirtio.testing.backend import plug, remove
from xenvirtio.testing.echo import ECHO
from xenvirtio.transport.xenbus.nodes import DeviceKey
from xenvirtio.transport.xenbus.states import XenbusState
from xenvirtio.worker.supervisor import Supervisor

# --- the worker's restart ---


def test_a_device_that_comes_before_the_restart_does_not_take_it_from_the_others(house: House) -> None:
    house.backend.workers[5].crash()
    other = house.plug(5, 1)
    house.driver.add([b"meanwhile"], [9])
    house.driver.kick()
    (used,) = house.front.wait_used(house.driver)
    assert used.data == [b"meanwhile"]
    house.echo(other, house.drive(other))
    assert house.backend.started == 2


def test_a_guest_that_goes_before_the_restart_gets_no_worker(house: House) -> None:
    house.backend.workers[5].crash()
    house.backend.turn()
    house.xen.destroy_domain(5)
    house.turn(2 * LIMITS.restart_delay)
    assert served(house) == []
    assert house.backend.started == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "Done", "ticket": 1, "devid": []},
        {"kind": "Done", "ticket": True, "devid": 0},
        {"kind": "Failed", "ticket": 1, "devid": 0, "words": 7},
        {"kind": "Failed", "ticket": 1, "devid": 0, "words": "\ud800"},
        {"kind": "Reported", "ticket": 1, "devices": {"0": 3}, "worker": {}},
        {"kind": "Reported", "ticket": 1, "devices": [], "worker": {}},
        {"kind": "Stop", "ticket": 0},
        [[[]]],
        None,
    ],
)
def test_a_worker_that_does_not_answer_as_workers_do_is_replaced(house: House, answer: object) -> None:
    data = json.dumps(answer).encode() if answer is not None else b"[" * 100_000
    house.backend.workers[5]._theirs.send(data)
    house.front.wait(lambda: house.backend.started == 2, "another worker")
    house.echo(house.front, house.driver)


def test_a_worker_that_hangs_when_its_guest_is_gone_is_killed_and_leaves_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(house.backend.workers[5], "turn", lambda: None)
    house.xen.destroy_domain(5)
    with caplog.at_level(logging.WARNING):
        house.turn(2 * LIMITS.gone_seconds)
    assert "killed, nothing is lost by that" in caplog.text
    assert served(house) == []
    assert not house.front.table.mapped
    assert not list(house.directory.iterdir())
    assert house.backend.store.names(f"{ROOT}/5") is None


def test_a_rings_mischief_during_the_restart_closes_the_device_and_leaves_the_worker(house: House) -> None:
    house.backend.workers[5].crash()
    house.driver.set_avail_idx(1000)
    house.front.wait_backend(XenbusState.CLOSED)
    error = house.backend.store.read(f"{ROOT}/5/0/error") or ""
    assert error.startswith("the guest's rings cannot be had again: ")
    house.turn(0.05)
    assert house.backend.started == 2
    house.front.take_back()
    house.front.set_state(XenbusState.INITIALISING)
    house.echo(house.front, house.drive(house.front))


def test_a_state_file_that_cannot_be_written_closes_the_device_and_leaves_the_worker(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xenvirtio.transport.xenbus.saved import StateFile

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    other = house.plug(5, 1)
    other.wait_backend(XenbusState.INIT_WAIT)
    with monkeypatch.context() as broken:
        broken.setattr(StateFile, "write", full)
        other.offer()
        other.set_state(XenbusState.INITIALISED)
        other.wait_backend(XenbusState.CLOSED)
    house.echo(house.front, house.driver)
    assert house.backend.started == 1


# --- reports ---


def test_who_asks_about_a_guest_without_an_answer_is_forgotten(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = house.backend.supervisor.guests[5].life
    with monkeypatch.context() as hanging:
        hanging.setattr(house.backend.workers[5], "turn", lambda: None)
        for _ in range(3):
            assert house.backend.report()["guests"][0]["devices"][0]["phase"] == "connected"
        assert life._waiting == []
    house.backend.workers[5].crash()
    house.backend.turn()
    assert house.backend.report()["guests"][0]["worker"] is None
    assert life._waiting == []


# --- nodes ---


def test_a_directory_without_a_device_in_it_is_nobody_s_work(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    touches: list[object] = []
    real = Supervisor._touch

    def touch(self: Supervisor, domid: int, devid: int | None) -> None:
        touches.append((domid, devid))
        real(self, domid, devid)

    monkeypatch.setattr(Supervisor, "_touch", touch)
    with house.xen.connect(0) as store:
        store.mkdir(f"{ROOT}/6/3")
        house.turn(0.1)
        assert len(touches) < 5
        assert served(house) == [5]
        store.write(f"{ROOT}/6/3/online", "1")
    front = house.plug(6, 3)
    house.echo(front, house.drive(front))


def test_a_device_that_comes_while_the_last_one_s_worker_ends_is_served(house: House) -> None:
    remove(house.xen, DeviceKey(5, 0))
    house.front.wait(lambda: house.backend.supervisor.guests[5].life.ending, "the end")
    other = house.plug(5, 1)
    house.echo(other, house.drive(other))


def test_a_domain_that_takes_a_domid_while_the_last_one_s_worker_ends_is_served(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hanging:
        hanging.setattr(house.backend.workers[5], "turn", lambda: None)
        house.xen.destroy_domain(5)
        house.backend.turn()
        house.xen.start_domain(5, "next")
        plug(house.xen, DeviceKey(5, 7), ECHO)
        house.backend.turn()
        assert house.backend.supervisor.guests[5].missed
    house.turn(2 * LIMITS.gone_seconds)
    assert not house.backend.supervisor.guests[5].gone
    assert house.backend.store.read(f"{ROOT}/5/7/state") == "2"


def test_a_guest_that_hides_its_nodes_harms_itself(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a driver domain: EACCES. A hidden state is as good as none."""
    fail_reads(house, monkeypatch, lambda path: path.startswith("/local/domain/5/device/"), errno.EACCES)
    house.front.set_state(XenbusState.CONNECTED)
    front = house.plug(6, 0)
    house.echo(front, house.drive(front))
    house.front.wait_backend(XenbusState.CLOSED)
    assert not house.front.table.mapped


def test_names_that_a_driver_domain_may_not_read_are_done_without(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = ("/local/domain/6/name", "/local/domain/6/vm")
    fail_reads(house, monkeypatch, lambda path: path in hidden, errno.EACCES)
    front = house.plug(6, 0)
    house.echo(front, house.drive(front))
    assert house.backend.supervisor.guests[6].guest.name == "domain 6"


@pytest.mark.parametrize("gone_before", [False, True])
def test_devices_of_another_transport_are_never_written_nor_removed(house: House, gone_before: bool) -> None:
    front = house.plug(6, 0)
    with house.xen.connect(0) as store:
        nodes = {"transport": "mmio", "frontend-id": "6", "online": "1", "state": "1", "type": "virtio"}
        for name, value in nodes.items():
            store.write(f"{ROOT}/6/3/{name}", value)
        house.echo(front, house.drive(front))
        house.turn()
        store.write(f"{ROOT}/6/3/online", "0")
        store.write(f"{ROOT}/6/3/state", "5")
        house.turn()
        assert list(house.backend.supervisor.guests[6].devices) == [0]
        if gone_before:
            house.backend.stop()
        house.xen.destroy_domain(6)
        if gone_before:
            house.backend = house.daemon()
        house.turn(2 * LIMITS.gone_seconds)
        assert served(house) == [5]
        assert store.names(f"{ROOT}/6") == ["3"]
        left = {name: store.read(f"{ROOT}/6/3/{name}") for name in store.names(f"{ROOT}/6/3") or []}
        assert left == nodes | {"online": "0", "state": "5"}
