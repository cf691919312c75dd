"""virtio 1.3 §5.1.6.5: the control queue, and which packets the guest wants."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.device.net_rig import BROADCAST, CTRL, MAC, OTHER, RX, Nic, frame
from xenvirtio.device.net.requests import ReceiveFilter
from xenvirtio.device.net.space import MAC_TABLE_MAX
from xenvirtio.errors import GuestViolation
from xenvirtio.spec import net as spec

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = bytes.fromhex("01005e000001")
STRANGER = bytes.fromhex("020000000001")


@pytest.fixture
def nic() -> Iterator[Nic]:
    with Nic() as rig:
        rig.activate()
        rig.offer(*[200] * 32)
        yield rig


def command(nic: Nic, kind: int, number: int, data: bytes = b"") -> int:
    """Send a command, return its ack."""
    used = nic.request([bytes([kind, number]), data] if data else [bytes([kind, number])], [1], CTRL)
    assert used.length == 1
    return used.data[0][0]


def passes(nic: Nic, target: bytes, kind: bytes = b"\x08\x00") -> bool:
    """Whether a packet to `target` reaches the guest."""
    nic.drivers[RX].used()
    nic.offer(200)
    nic.arrive(target + OTHER + kind + bytes(50))
    return bool(nic.received())


def tables(unicast: list[bytes], multicast: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(table)) + b"".join(table) for table in (unicast, multicast))


def test_a_driver_that_says_nothing_receives_everything(nic: Nic) -> None:
    assert passes(nic, MAC)
    assert passes(nic, STRANGER)
    assert passes(nic, GROUP)
    assert passes(nic, BROADCAST)


def test_receive_modes_and_tables_decide_what_passes(nic: Nic) -> None:
    assert command(nic, spec.CTRL_RX, spec.CTRL_RX_PROMISC, b"\0") == spec.CTRL_OK
    assert [passes(nic, mac) for mac in (MAC, BROADCAST, GROUP, STRANGER)] == [True, True, False, False]
    assert command(nic, spec.CTRL_MAC, spec.CTRL_MAC_TABLE_SET, tables([STRANGER], [GROUP])) == spec.CTRL_OK
    assert [passes(nic, mac) for mac in (MAC, BROADCAST, GROUP, STRANGER)] == [True, True, True, True]
    for number, lost in (
        (spec.CTRL_RX_NOBCAST, BROADCAST),
        (spec.CTRL_RX_NOMULTI, GROUP),
        (spec.CTRL_RX_NOUNI, STRANGER),
    ):
        assert command(nic, spec.CTRL_RX, number, b"\1") == spec.CTRL_OK
        assert not passes(nic, lost)
        assert command(nic, spec.CTRL_RX, number, b"\0") == spec.CTRL_OK
        assert passes(nic, lost)
    assert command(nic, spec.CTRL_MAC, spec.CTRL_MAC_TABLE_SET, tables([], [])) == spec.CTRL_OK
    for number, gained in ((spec.CTRL_RX_ALLMULTI, GROUP), (spec.CTRL_RX_ALLUNI, STRANGER)):
        assert not passes(nic, gained)
        assert command(nic, spec.CTRL_RX, number, b"\1") == spec.CTRL_OK
        assert passes(nic, gained)
    assert nic.device.counters["rx_filtered"] == 7


def test_tables_that_do_not_fit_let_everything_of_their_kind_through(nic: Nic) -> None:
    """§5.1.6.5.2: filtering may be imperfect, but never loses a packet that is wanted."""
    command(nic, spec.CTRL_RX, spec.CTRL_RX_PROMISC, b"\0")
    many = [bytes([2, 0, 0, 0, k >> 8, k & 0xFF]) for k in range(MAC_TABLE_MAX + 1)]
    assert command(nic, spec.CTRL_MAC, spec.CTRL_MAC_TABLE_SET, tables(many, [])) == spec.CTRL_OK
    assert passes(nic, STRANGER)
    assert not passes(nic, GROUP)
    assert command(nic, spec.CTRL_MAC, spec.CTRL_MAC_TABLE_SET, tables(many[2:], [])) == spec.CTRL_OK
    assert passes(nic, many[2])
    assert not passes(nic, many[0])


def test_the_driver_can_change_the_address_until_it_resets(nic: Nic) -> None:
    command(nic, spec.CTRL_RX, spec.CTRL_RX_PROMISC, b"\0")
    assert command(nic, spec.CTRL_MAC, spec.CTRL_MAC_ADDR_SET, STRANGER) == spec.CTRL_OK
    assert nic.device.config()[:6] == STRANGER
    assert nic.changes == 1
    assert passes(nic, STRANGER)
    assert not passes(nic, MAC)
    nic.reset()
    assert nic.device.config()[:6] == MAC


def test_tagged_packets_pass_when_their_vlan_was_added(nic: Nic) -> None:
    tag = b"\x81\x00" + struct.pack(">H", 3 << 13 | 291) + b"\x08\x00"
    command(nic, spec.CTRL_RX, spec.CTRL_RX_PROMISC, b"\0")
    assert not passes(nic, MAC, tag)
    assert command(nic, spec.CTRL_VLAN, spec.CTRL_VLAN_ADD, struct.pack("<H", 291)) == spec.CTRL_OK
    assert passes(nic, MAC, tag)
    assert command(nic, spec.CTRL_VLAN, spec.CTRL_VLAN_DEL, struct.pack("<H", 291)) == spec.CTRL_OK
    assert not passes(nic, MAC, tag)
    assert command(nic, spec.CTRL_VLAN, spec.CTRL_VLAN_ADD, struct.pack("<H", 4096)) == spec.CTRL_ERR


def test_promiscuous_mode_passes_every_vlan(nic: Nic) -> None:
    """§5.1.6.5.1: all packets, whatever else was filtered."""
    tag = b"\x81\x00\x01\x23\x08\x00"
    for on in (False, True):
        assert command(nic, spec.CTRL_RX, spec.CTRL_RX_PROMISC, bytes([on])) == spec.CTRL_OK
        assert passes(nic, MAC, tag) is on
        assert passes(nic, STRANGER, tag) is on


def test_without_vlan_filtering_tagged_packets_pass(nic: Nic) -> None:
    nic.reset()
    nic.activate(nic.device.features & ~spec.F_CTRL_VLAN)
    assert passes(nic, MAC, b"\x81\x00\x01\x23\x08\x00")


def test_offloads_can_be_switched_while_the_device_runs(nic: Nic) -> None:
    assert nic.link.offloads == [spec.GUEST_OFFLOADS]
    wanted = spec.F_GUEST_CSUM | spec.F_GUEST_TSO4
    data = struct.pack("<Q", wanted)
    assert command(nic, spec.CTRL_GUEST_OFFLOADS, spec.CTRL_GUEST_OFFLOADS_SET, data) == spec.CTRL_OK
    assert nic.link.offloads[-1] == wanted
    data = struct.pack("<Q", spec.F_HOST_TSO4)
    assert command(nic, spec.CTRL_GUEST_OFFLOADS, spec.CTRL_GUEST_OFFLOADS_SET, data) == spec.CTRL_ERR
    assert nic.link.offloads[-1] == wanted


BAD_COMMANDS = {
    "unknown class": (9, 0, b"\0"),
    "unknown receive mode": (spec.CTRL_RX, 6, b"\0"),
    "receive mode without data": (spec.CTRL_RX, 0, b""),
    "receive mode with too much": (spec.CTRL_RX, 0, b"\0\0"),
    "receive mode neither on nor off": (spec.CTRL_RX, 0, b"\2"),
    "unknown address command": (spec.CTRL_MAC, 2, MAC),
    "address too short": (spec.CTRL_MAC, 1, MAC[:5]),
    "address too long": (spec.CTRL_MAC, 1, MAC + b"\0"),
    "address of a group": (spec.CTRL_MAC, 1, GROUP),
    "table without its second": (spec.CTRL_MAC, 0, tables([MAC], [])[:-4]),
    "table cut": (spec.CTRL_MAC, 0, tables([MAC], [GROUP])[:-1]),
    "table with more behind": (spec.CTRL_MAC, 0, tables([MAC], [GROUP]) + b"\0"),
    "table that claims 2^32-1 entries": (spec.CTRL_MAC, 0, b"\xff" * 4 + bytes(64)),
    "unknown vlan command": (spec.CTRL_VLAN, 2, b"\1\0"),
    "vlan too short": (spec.CTRL_VLAN, 0, b"\1"),
    "announce, not offered": (3, 0, b""),
    "multiqueue, not offered": (4, 0, b"\2\0"),
    "offloads too short": (spec.CTRL_GUEST_OFFLOADS, 0, bytes(7)),
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_a_bad_command_is_refused_and_changes_nothing(nic: Nic, name: str) -> None:
    before = nic.device.config()
    assert command(nic, *BAD_COMMANDS[name]) == spec.CTRL_ERR
    assert nic.device.config() == before
    assert passes(nic, STRANGER)
    assert nic.device.counters["control_refused"] == 1


@pytest.mark.parametrize(
    ("feature", "kind", "number", "data"),
    [
        (spec.F_CTRL_RX, spec.CTRL_RX, 0, b"\0"),
        (spec.F_CTRL_RX, spec.CTRL_MAC, 0, tables([], [])),
        (spec.F_CTRL_RX_EXTRA, spec.CTRL_RX, 2, b"\0"),
        (spec.F_CTRL_VLAN, spec.CTRL_VLAN, 0, b"\1\0"),
        (spec.F_CTRL_MAC_ADDR, spec.CTRL_MAC, 1, STRANGER),
        (spec.F_CTRL_GUEST_OFFLOADS, spec.CTRL_GUEST_OFFLOADS, 0, bytes(8)),
    ],
)
def test_commands_need_their_feature(feature: int, kind: int, number: int, data: bytes) -> None:
    with Nic() as nic:
        for features, ack in (
            (nic.device.features, spec.CTRL_OK),
            (nic.device.features & ~feature, spec.CTRL_ERR),
        ):
            nic.activate(features)
            assert command(nic, kind, number, data) == ack
            nic.reset()


def test_a_command_longer_than_any_is_refused(nic: Nic) -> None:
    assert command(nic, spec.CTRL_MAC, 0, bytes(65 << 10)) == spec.CTRL_ERR


def test_a_command_of_one_byte_or_none_is_refused(nic: Nic) -> None:
    assert nic.request([b"\0"], [1], CTRL).data == [b"\1"]
    assert nic.request([], [1], CTRL).data == [b"\1"]


def test_a_command_cut_into_single_bytes_is_understood(nic: Nic) -> None:
    nic.request([bytes([byte]) for byte in bytes([spec.CTRL_MAC, 1]) + STRANGER], [1], CTRL)
    assert nic.device.config()[:6] == STRANGER


def test_a_command_without_room_for_its_ack_stops_the_device(nic: Nic) -> None:
    nic.drivers[CTRL].add([b"\0\0\1"], [])
    nic.drivers[CTRL].kick()
    with pytest.raises(GuestViolation, match="ack"):
        nic.device.kick(CTRL)


@given(data=st.binary(max_size=300))
def test_any_bytes_as_a_command_are_answered(data: bytes) -> None:
    with Nic() as nic:
        nic.activate()
        used = nic.request([data] if data else [], [1], CTRL)
        assert used.data[0] in (b"\0", b"\1")
        assert used.length == 1


@given(
    promiscuous=st.booleans(),
    unicast=st.lists(st.sampled_from([MAC, OTHER, STRANGER]), max_size=3),
    multicast=st.lists(st.sampled_from([GROUP, b"\x33\x33\0\0\0\1"]), max_size=2),
    target=st.sampled_from([MAC, OTHER, STRANGER, GROUP, b"\x33\x33\0\0\0\1", BROADCAST]),
)
def test_the_filter_never_loses_what_was_asked_for(
    promiscuous: bool, unicast: list[bytes], multicast: list[bytes], target: bytes
) -> None:
    receive = ReceiveFilter(MAC, False)
    receive.set_mode(spec.CTRL_RX_PROMISC, promiscuous)
    receive.set_tables(unicast, multicast)
    wanted = promiscuous or target in (MAC, BROADCAST) or target in unicast + multicast
    assert receive.wants(frame(60, target)) == wanted
