"""Nodes hold what they must, or the device closes with words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenvirtio.testing.backend import plug
from xenvirtio.testing.xen import FakeXen
from xenvirtio.transport.xenbus.nodes import (
    PORT_LIMIT,
    DeviceKey,
    NodeError,
    Offer,
    parse_key,
    parse_number,
    read_offer,
    read_settings,
    snapshot,
)
from xenvirtio.transport.xenbus.states import XenbusState, parse_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.testing.store import FakeStore

KEY = DeviceKey(5, 51712)
GOOD = {"version": "1", "memory-access": "grant", "device-page": "9", "event-channel": "17"}


@pytest.fixture
def store() -> Iterator[FakeStore]:
    with FakeXen() as xen:
        xen.start_domain(5, "guest")
        plug(xen, KEY, 2, {"path": "/a.img", "mode": "w"}, access="grant foreign")
        with xen.connect(0) as store:
            for name, value in GOOD.items():
                store.write(f"{KEY.frontend}/{name}", value)
            yield store


@given(st.text(max_size=20))
def test_a_state_is_one_digit(text: str) -> None:
    state = parse_state(text)
    assert state is XenbusState.UNKNOWN or str(state.value) == text


@given(st.one_of(st.text(max_size=20), st.integers().map(str)), st.integers(1, 1 << 32))
def test_a_number_is_decimal_and_bounded(text: str, limit: int) -> None:
    value = parse_number(text, limit)
    assert value is None or (0 <= value < limit and int(text) == value and text.isascii())


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", "-1", "0x10", "1_0", "\u0661", "9" * 5000, "1\n", "4096"]
)
def test_nonsense_is_no_number(text: str) -> None:
    assert parse_number(text, 4096) is None


def test_paths_name_devices() -> None:
    root = "/local/domain/0/backend/virtio"
    assert parse_key(root, 0) == (None, None)
    assert parse_key(f"{root}/5", 0) == (5, None)
    assert parse_key(f"{root}/5/51712/state", 0) == (5, 51712)
    assert parse_key(f"{root}/x/1", 0) == (None, None)
    assert parse_key(f"{root}/32752/1", 0) == (None, None)  # DOMID_FIRST_RESERVED


def test_what_the_toolstack_wrote_is_understood(store: FakeStore) -> None:
    settings = read_settings(store, KEY, 0)
    assert (settings.device_id, settings.access) == (2, ("grant", "foreign"))
    assert settings.host == {"path": "/a.img", "mode": "w"}
    now = snapshot(store, KEY, 0)
    assert (now.exists, now.online, now.backend, now.frontend) == (True, True, 1, 1)


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ("transport", "mmio"),
        ("frontend-id", "6"),
        ("type", "virtio"),
        ("type", "virtio,device2; rm"),
        ("host/memory-access", "grant everything"),
    ],
)
def test_a_wrong_backend_node_is_named(store: FakeStore, node: str, value: str) -> None:
    store.write(f"{KEY.backend(0)}/{node}", value)
    with pytest.raises(NodeError, match=f"{KEY.backend(0)}/{node}"):
        read_settings(store, KEY, 0)


def test_an_honest_offer_is_taken(store: FakeStore) -> None:
    assert read_offer(store, KEY, ("grant",)) == Offer("grant", 9, 17)


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ("version", "2"),
        ("version", ""),
        ("memory-access", "foreign"),
        ("device-page", str(1 << 32)),
        ("device-page", "-1"),
        ("device-page", "x" * 4096),
        ("event-channel", "0"),
        ("event-channel", str(PORT_LIMIT)),
        ("event-channel", "7\x00"),
    ],
)
def test_a_hostile_offer_is_refused_by_the_node_s_name(store: FakeStore, node: str, value: str) -> None:
    store.write(f"{KEY.frontend}/{node}", value)
    with pytest.raises(NodeError, match=f"{KEY.frontend}/{node}") as caught:
        read_offer(store, KEY, ("grant",))
    assert len(caught.value.message) < 200  # the guest's text is not repeated


@pytest.mark.parametrize("node", GOOD)
def test_a_missing_node_is_refused(store: FakeStore, node: str) -> None:
    store.remove(f"{KEY.frontend}/{node}")
    with pytest.raises(NodeError):
        read_offer(store, KEY, ("grant",))
