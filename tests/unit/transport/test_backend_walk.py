"""The walk of one device through the XenBus states (docs/virtio-xenbus.md)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenvirtio.transport.xenbus.backend import (
    Action,
    Attach,
    Detach,
    Discard,
    Phase,
    Prepare,
    Publish,
    Retry,
    Walk,
)
from xenvirtio.transport.xenbus.nodes import Snapshot
from xenvirtio.transport.xenbus.states import XenbusState as S


def at(frontend: S, backend: S = S.INITIALISING, *, online: bool = True, error: bool = False) -> Snapshot:
    return Snapshot(True, online, backend, frontend, error)


GONE = Snapshot(False, False, S.UNKNOWN, S.UNKNOWN)


def connected() -> Walk:
    walk = Walk()
    assert walk.step(at(S.INITIALISING)) == [Prepare()]
    assert walk.prepared(at(S.INITIALISING)) == [Publish(S.INIT_WAIT)]
    assert walk.step(at(S.INITIALISED, S.INIT_WAIT)) == [Attach(False)]
    assert walk.attached(at(S.INITIALISED, S.INIT_WAIT)) == [Publish(S.CONNECTED)]
    assert walk.step(at(S.CONNECTED, S.CONNECTED)) == []
    return walk


def test_a_frontend_that_was_quicker_is_attached_at_once() -> None:
    walk = Walk()
    walk.step(at(S.INITIALISED))
    assert walk.prepared(at(S.INITIALISED)) == [Publish(S.INIT_WAIT), Attach(False)]


def test_a_close_goes_through_closing_and_back_to_init_wait() -> None:
    walk = connected()
    assert walk.step(at(S.CLOSING, S.CONNECTED)) == [Detach()]
    assert walk.detached(at(S.CLOSING, S.CONNECTED)) == [Publish(S.CLOSING)]
    assert walk.step(at(S.CLOSED, S.CLOSING)) == [Publish(S.CLOSED)]
    assert walk.step(at(S.INITIALISING, S.CLOSED)) == [Publish(S.INIT_WAIT)]


@pytest.mark.parametrize("frontend", [S.CLOSED, S.UNKNOWN])
def test_a_frontend_that_skips_closing_is_answered_with_closed(frontend: S) -> None:
    walk = connected()
    assert walk.step(at(frontend, S.CONNECTED)) == [Detach()]
    assert walk.detached(at(frontend, S.CONNECTED)) == [Publish(S.CLOSED)]


def test_a_frontend_that_starts_again_without_closing_gets_there() -> None:
    walk = connected()  # a crash kernel does that
    assert walk.step(at(S.INITIALISING, S.CONNECTED)) == [Detach()]
    assert walk.detached(at(S.INITIALISING, S.CONNECTED)) == [Publish(S.CLOSED), Publish(S.INIT_WAIT)]


def test_a_detach_waits_for_the_frontend_and_discards() -> None:
    walk = connected()
    assert walk.step(at(S.CONNECTED, S.CLOSING, online=False)) == []
    assert walk.step(at(S.CLOSING, S.CLOSING, online=False)) == [Detach()]
    assert walk.detached(at(S.CLOSED, S.CLOSING, online=False)) == [Discard()]
    assert walk.discarded(at(S.CLOSED, S.CLOSING, online=False)) == [Publish(S.CLOSED)]
    assert walk.phase is Phase.OFF


def test_a_detach_before_any_frontend_came_is_quick() -> None:
    walk = Walk()
    walk.step(at(S.INITIALISING))
    walk.prepared(at(S.INITIALISING))
    assert walk.step(at(S.INITIALISING, S.CLOSING, online=False)) == [Discard()]
    assert walk.step(at(S.INITIALISING, S.CLOSING, online=False)) == []
    assert walk.discarded(at(S.INITIALISING, S.CLOSING, online=False)) == [Publish(S.CLOSED)]


def test_a_detach_ends_in_closed_when_what_was_served_is_free() -> None:
    for end in ("discarded", "restart", "gave_up"):
        walk = connected()
        walk.step(at(S.CLOSED, S.CLOSING, online=False))
        assert walk.detached(at(S.CLOSED, S.CLOSING, online=False)) == [Discard()]
        now = at(S.CLOSED, S.CLOSING, online=False)
        assert getattr(walk, end)("it died" if end == "gave_up" else now) == [Publish(S.CLOSED)]
        assert walk.step(at(S.CLOSED, S.CLOSED, online=False)) == []


def test_a_device_plugged_again_while_it_leaves_starts_over() -> None:
    walk = connected()
    walk.step(at(S.CLOSED, S.CLOSING, online=False))
    walk.detached(at(S.CLOSED, S.CLOSING, online=False))
    assert walk.step(at(S.INITIALISING)) == []
    assert walk.discarded(at(S.INITIALISING)) == [Prepare()]


def test_a_new_daemon_goes_on_with_a_detach_that_the_frontend_is_about() -> None:
    walk = Walk()
    assert walk.step(at(S.CONNECTED, S.CLOSING, online=False)) == [Prepare()]
    assert walk.prepared(at(S.CONNECTED, S.CLOSING, online=False)) == [Attach(True)]
    assert walk.attached(at(S.CONNECTED, S.CLOSING, online=False)) == []
    assert walk.step(at(S.CLOSED, S.CLOSING, online=False)) == [Detach()]


def test_a_new_worker_goes_on_with_a_detach() -> None:
    walk = connected()
    assert walk.step(at(S.CONNECTED, S.CLOSING, online=False)) == []
    assert walk.restart(at(S.CONNECTED, S.CLOSING, online=False)) == [Prepare()]
    assert walk.prepared(at(S.CLOSED, S.CLOSING, online=False)) == [Discard()]
    assert walk.discarded(at(S.CLOSED, S.CLOSING, online=False)) == [Publish(S.CLOSED)]


def test_nodes_that_are_gone_discard_the_device_whatever_it_does() -> None:
    walk = connected()
    assert walk.step(GONE) == [Discard()]
    assert walk.step(GONE) == []


def test_a_host_that_cannot_open_it_stays_closed_until_the_toolstack_starts_it_again() -> None:
    walk = Walk()
    walk.step(at(S.INITIALISING))
    assert walk.failed("no such file") == [Publish(S.CLOSED, "no such file")]
    assert walk.step(at(S.INITIALISING, S.CLOSED)) == []
    assert walk.step(at(S.INITIALISING, S.INITIALISING)) == [Prepare()]


def test_a_bad_offer_closes_and_may_be_made_again() -> None:
    walk = Walk()
    walk.step(at(S.INITIALISED))
    walk.prepared(at(S.INITIALISED))
    assert walk.failed("no such grant") == [Publish(S.CLOSED, "no such grant")]
    assert walk.step(at(S.INITIALISED, S.CLOSED)) == []  # it must start from Initialising
    assert walk.step(at(S.INITIALISING, S.CLOSED)) == [Publish(S.INIT_WAIT)]


def test_a_new_daemon_resumes_what_was_connected() -> None:
    walk = Walk()
    assert walk.step(at(S.CONNECTED, S.CONNECTED)) == [Prepare()]
    assert walk.prepared(at(S.CONNECTED, S.CONNECTED)) == [Attach(True)]
    assert walk.attached(at(S.CONNECTED, S.CONNECTED)) == [Publish(S.CONNECTED)]


def test_a_new_worker_resumes_what_was_connected() -> None:
    walk = connected()
    assert walk.restart(at(S.CONNECTED, S.CONNECTED)) == [Prepare()]
    assert walk.prepared(at(S.CONNECTED, S.CONNECTED)) == [Attach(True)]


def test_a_new_daemon_leaves_closed_and_failed_devices_alone() -> None:
    assert Walk().step(at(S.CLOSED, S.CLOSED, online=False)) == []
    assert Walk().step(at(S.INITIALISING, S.CLOSED, online=False, error=True)) == []
    assert Walk().step(at(S.INITIALISED, S.CLOSED, error=True)) == []


def test_a_frontend_that_starts_again_is_served_whatever_failed_before() -> None:
    """XB-24, also by a daemon that does not know why there is an error."""
    walk = Walk()
    walk.step(at(S.INITIALISED, S.CLOSED, error=True))
    assert walk.step(at(S.INITIALISING, S.CLOSED, error=True)) == [Prepare()]
    assert walk.prepared(at(S.INITIALISING, S.CLOSED, error=True)) == [Publish(S.INIT_WAIT)]
    assert Walk().step(at(S.INITIALISING, S.CLOSED, error=True)) == [Prepare()]


def test_what_cannot_be_opened_is_tried_once_a_start_of_the_frontend() -> None:
    walk = Walk()
    walk.step(at(S.INITIALISING, S.CLOSED, error=True))
    walk.failed("no such file")
    for _ in range(3):
        assert walk.step(at(S.INITIALISING, S.CLOSED, error=True)) == []
    walk.step(at(S.CLOSED, S.CLOSED, error=True))
    assert walk.step(at(S.INITIALISING, S.CLOSED, error=True)) == [Prepare()]


def test_a_device_in_use_whose_worker_was_given_up_gets_one_later() -> None:
    walk = connected()
    assert walk.gave_up("the worker died 6 times") == [Retry("the worker died 6 times", much=True)]
    assert walk.step(at(S.CONNECTED, S.CONNECTED)) == []
    assert walk.gave_up("the worker died 6 times") == []
    assert walk.again() == [Prepare()]
    assert walk.prepared(at(S.CONNECTED, S.CONNECTED)) == [Attach(True)]


def test_what_fails_under_a_frontend_that_uses_it_is_tried_again_unless_it_fails_for_good() -> None:
    walk = Walk()
    walk.step(at(S.CONNECTED, S.CONNECTED))
    assert walk.failed("image locked") == [Retry("image locked")]
    assert walk.again() == [Prepare()]
    walk.prepared(at(S.CONNECTED, S.CONNECTED))
    assert walk.failed("no memory") == [Retry("no memory")]
    assert walk.again() == [Prepare()]
    walk.prepared(at(S.CONNECTED, S.CONNECTED))
    assert walk.failed("spoilt", for_good=True) == [Publish(S.CLOSED, "spoilt")]
    assert walk.again() == []


def test_a_frontend_whose_worker_was_given_up_may_start_again() -> None:
    walk = Walk()
    walk.step(at(S.INITIALISING))
    assert walk.gave_up("the worker died 6 times") == [Publish(S.CLOSED, "the worker died 6 times")]
    assert walk.step(at(S.CONNECTED, S.CLOSED, error=True)) == []
    assert walk.step(at(S.INITIALISING, S.CLOSED, error=True)) == [Prepare()]


STATES = st.sampled_from(list(S))


@given(
    st.lists(
        st.tuples(
            st.builds(Snapshot, st.booleans(), st.booleans(), STATES, STATES, st.booleans()),
            st.sampled_from(["step", "done", "failed", "restart"]),
        ),
        max_size=40,
    )
)
def test_whatever_nodes_say_orders_and_answers_alternate(events: list[tuple[Snapshot, str]]) -> None:
    """No second order while one is awaited, none to a worker that does not hold the device."""
    walk, held, awaited = Walk(), False, None

    def check(actions: list[Action]) -> None:
        nonlocal held, awaited
        for action in actions:
            match action:
                case Prepare():
                    assert awaited is None
                    held, awaited = True, "prepared"
                case Attach():
                    assert held
                    assert awaited is None
                    awaited = "attached"
                case Detach():
                    assert held
                    assert awaited is None
                    awaited = "detached"
                case Discard():
                    assert held
                    held, awaited = False, "discarded" if walk.phase is Phase.LEAVING else None

    for now, event in events:
        if event == "step":
            check(walk.step(now))
        elif event == "restart" and held:
            awaited = None
            before, held = held, False
            check(walk.restart(now))
            held = held or before
        elif awaited is not None and event == "done":
            answer, awaited = awaited, None
            check(getattr(walk, answer)(now))
        elif awaited in ("prepared", "attached") and event == "failed":
            held = held and awaited != "prepared"
            awaited = None
            check(walk.failed("words"))
