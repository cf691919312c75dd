"""What the host or XenStore cannot do for a moment passes: no guest loses a device by it."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Any

from tests.unit.worker.worker_rig import ROOT, House, fail_reads
from xenvirtio.errors import UsageError, XenError
from xenvirtio.transport.xenbus import nodes
from xenvirtio.transport.xenbus.saved import StateFile
from xenvirtio.transport.xenbus.states import XenbusState
from xenvirtio.worker.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from xenvirtio.testing.echo import EchoDevice


def at_first(times: int, error: Exception, then: Callable[..., Any]) -> Callable[..., Any]:
    """A function that fails so often, and then does what another does."""
    left = [error] * times

    def call(*arguments: object) -> Any:
        if left:
            raise left.pop()
        return then(*arguments)

    return call


LOCKED = UsageError("/srv/a.img: in use by another guest or program", "`lslocks` names the process")


def test_a_connected_device_whose_image_cannot_be_opened_again_waits_until_it_can(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.backend.make_device = at_first(3, LOCKED, house.backend.make_device)
    house.driver.add([b"in flight"], [9])
    house.driver.kick()
    house.backend.workers[5].crash()
    (used,) = house.front.wait_used(house.driver)
    assert used.data == [b"in flight"]
    assert house.front.backend_state is XenbusState.CONNECTED
    tries = [record.getMessage() for record in caplog.records if "tried again in" in record.getMessage()]
    assert len(tries) == 3
    assert "a.img: in use by another guest or program" in tries[0]
    house.echo(house.front, house.driver)


def test_a_worker_that_cannot_be_started_for_a_moment_is_started_later(house: House) -> None:
    life = house.backend.supervisor.guests[5].life
    again = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    life._spawn = at_first(2, again, life._spawn)
    house.backend.workers[5].crash()
    house.turn(0.5)
    assert house.front.backend_state is XenbusState.CONNECTED
    house.echo(house.front, house.driver)


def test_a_frontend_that_lets_go_of_a_device_that_cannot_be_opened_may_start_again_when_it_can(
    house: House,
) -> None:
    trouble, usual = [LOCKED], house.backend.make_device

    def make(*arguments: Any) -> Any:
        if trouble:
            raise trouble[0]
        return usual(*arguments)

    house.backend.make_device = make
    house.backend.workers[5].crash()
    house.turn(0.3)
    house.front.set_state(XenbusState.CLOSED)
    house.front.wait_backend(XenbusState.CLOSED)
    house.front.take_back()
    trouble.clear()
    house.front.set_state(XenbusState.INITIALISING)
    house.echo(house.front, house.drive(house.front))


def test_a_state_that_xenstore_did_not_take_is_written_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = house.backend.store
    busy = XenError("XenStore: too many others", errno.EAGAIN)
    monkeypatch.setattr(store, "transact", at_first(2, busy, store.transact))
    front = house.plug(6, 0)
    house.echo(front, house.drive(front))


def test_settings_too_long_for_a_worker_are_refused_and_harm_nobody(house: House) -> None:
    with house.xen.connect(0) as store:
        for number in range(60):
            store.write(f"{ROOT}/5/0/host/k{number}", "x" * 3000)
        store.write(f"{ROOT}/5/0/host/update", "1")
        house.turn()
        assert (store.read(f"{ROOT}/5/0/host/updated") or "").startswith("1 ")
        house.echo(house.front, house.driver)


def test_an_event_is_not_taken_for_that_of_the_next_owner_of_its_descriptor() -> None:
    loop, called = Loop(), []
    (first, _), (second, _) = pipes = [os.pipe(), os.pipe()]

    def replace() -> None:
        loop.remove(first)
        loop.remove(second)
        os.dup2(pipes[0][0], second)  # what has nothing to read any more takes the number
        os.read(first, 1)
        loop.add(second, lambda: called.append("stranger"))

    loop.add(first, replace)
    loop.add(second, lambda: called.append("old"))
    for _, end in pipes:
        os.write(end, b"x")
    loop.turn(0)
    assert called == []
    loop.close()
    for pair in pipes:
        for end in pair:
            os.close(end)


def test_xenstore_s_trouble_with_one_guest_passes_and_is_that_guest_s(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as trouble:
        fail_reads(house, trouble, lambda path: "/virtio/6/" in path or "domain/6/" in path, errno.EIO)
        late = house.plug(6, 1)
        house.turn(0.05)
        house.echo(house.front, house.driver)
    with caplog.at_level(logging.WARNING):
        with house.xen.connect(0) as store:
            store.write(late.key.backend(0) + "/online", "1")  # the next word of the toolstack
        late.wait_backend(XenbusState.INIT_WAIT)
        with monkeypatch.context() as trouble:
            fail_reads(house, trouble, lambda path: path == f"{late.key.frontend}/state", errno.EIO)
            late.offer()
            late.set_state(XenbusState.INITIALISED)
            house.turn(0.05)
            house.echo(house.front, house.driver)
        assert f"XenStore: {late.key.frontend}/state" in caplog.text
    late.wait_backend(XenbusState.CONNECTED)


def test_words_of_any_length_reach_the_toolstack(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> EchoDevice:
        raise OSError("\N{SNOWMAN}" * 5000)

    monkeypatch.setattr(house.backend, "make_device", broken)
    front = house.plug(6, 0)
    front.wait_backend(XenbusState.CLOSED)
    error = house.backend.store.read(f"{ROOT}/6/0/error") or ""
    assert 0 < len(error.encode()) <= 1024


def test_after_a_failed_attach_the_next_daemon_serves_a_frontend_that_starts_again(house: House) -> None:
    front = house.plug(6, 0)
    front.wait_backend(XenbusState.INIT_WAIT)
    front.offer(device_page="12345")
    front.set_state(XenbusState.INITIALISED)
    front.wait_backend(XenbusState.CLOSED)
    house.backend.stop()
    house.backend = house.daemon()
    front.take_back()
    house.turn()
    assert front.backend_state is XenbusState.CLOSED
    front.set_state(XenbusState.INITIALISING)
    house.echo(front, house.drive(front))


def test_a_connection_that_cannot_be_had_again_for_a_moment_is_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    monkeypatch.setattr(StateFile, "read", at_first(1, full, StateFile.read))
    silent = XenError("XenStore: no answer", errno.EIO)
    monkeypatch.setattr(nodes, "read_offer", at_first(1, silent, nodes.read_offer))
    house.driver.add([b"in flight"], [9])
    house.driver.kick()
    house.backend.workers[5].crash()
    (used,) = house.front.wait_used(house.driver)
    assert used.data == [b"in flight"]
    house.echo(house.front, house.driver)
    assert house.front.backend_state is XenbusState.CONNECTED


def test_while_a_device_cannot_be_opened_again_its_error_says_why(house: House) -> None:
    usual, tries = house.backend.make_device, []

    def make(*arguments: Any) -> Any:
        tries.append(house.front.backend_state)
        if len(tries) < 4:
            raise LOCKED
        return usual(*arguments)

    house.backend.make_device = make
    house.backend.workers[5].crash()
    with house.xen.connect(0) as store:
        while len(tries) < 3:
            house.turn()
        house.turn()
        assert "a.img: in use by another" in (store.read(f"{ROOT}/5/0/error") or "")
        house.echo(house.front, house.driver)
        house.turn()
        assert store.read(f"{ROOT}/5/0/error") is None
    assert tries == [XenbusState.CONNECTED] * 4


def test_a_new_worker_waits_for_nodes_that_cannot_be_read_for_a_moment(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.backend.workers[5].crash()
    trouble = XenError("XenStore: no answer", errno.EIO)
    monkeypatch.setattr(nodes, "snapshot", at_first(3, trouble, nodes.snapshot))
    house.echo(house.front, house.driver)
    assert house.front.backend_state is XenbusState.CONNECTED


def test_a_guest_is_not_gone_because_xenstore_cannot_say_for_a_moment(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = house.backend.store
    trouble = XenError("XenStore: cannot say whether domain 5 is there", errno.EIO)
    monkeypatch.setattr(store, "domain_exists", at_first(2, trouble, store.domain_exists))
    house.xen.destroy_domain(6)
    house.turn(0.3)
    house.echo(house.front, house.driver)
    house.xen.destroy_domain(5)
    house.turn(0.5)
    assert not house.backend.supervisor.guests


def test_the_nodes_of_a_guest_that_is_gone_are_removed_when_xenstore_can_say_so(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = house.backend.store
    asked: list[int] = []
    usual = store.domain_exists

    def there(domid: int) -> bool:
        asked.append(domid)
        if 1 < len(asked) < 5:  # it has said once that the guest is gone
            raise XenError("XenStore: cannot say", errno.EIO)
        return usual(domid)

    monkeypatch.setattr(store, "domain_exists", there)
    house.xen.destroy_domain(5)
    house.turn(0.5)
    assert len(asked) > 4
    assert not store.names(f"{ROOT}/5")
    assert not house.backend.supervisor.guests
