"""virtio 1.3 §5.1.6.4: packets to the guest."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.device.net_rig import RX, Nic, frame, header
from xenvirtio.device.net.state import RECEIVE_MAX
from xenvirtio.errors import GuestViolation
from xenvirtio.spec import net as spec
from xenvirtio.testing.guest import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=list(KINDS))
def nic(request: pytest.FixtureRequest) -> Iterator[Nic]:
    with Nic(request.param) as rig:
        rig.activate()
        yield rig


def test_a_packet_from_the_host_reaches_the_guest(nic: Nic) -> None:
    nic.offer(2048)
    packet = frame(60)
    nic.arrive(packet)
    assert nic.received() == [header()[:10] + b"\1\0" + packet]
    assert nic.notified == [RX]
    assert nic.device.counters["rx_packets"] == 1
    assert nic.device.counters["rx_bytes"] == 60


def test_a_packet_is_spread_over_as_many_buffers_as_it_needs(nic: Nic) -> None:
    """§5.1.6.4: num_buffers is set, and all its buffers are used at once."""
    nic.offer(*[1000] * 5)
    packet = frame(2500)
    nic.arrive(packet)
    parts = nic.received()
    assert [len(part) for part in parts] == [1000, 1000, 512]
    whole = b"".join(parts)
    assert struct.unpack_from("<H", whole, 10) == (3,)
    assert whole[12:] == packet
    nic.arrive(frame(60))
    assert [len(part) for part in nic.received()] == [72]


def test_buffers_hardly_larger_than_a_header_serve(nic: Nic) -> None:
    nic.offer(12, 13, 14, 15, 16, 17, 18)
    packet = frame(80)
    nic.arrive(packet)
    whole = b"".join(nic.received())
    assert struct.unpack_from("<H", whole, 10) == (7,)
    assert whole[12:] == packet


def test_without_mergeable_buffers_a_packet_takes_one_chain(nic: Nic) -> None:
    nic.reset()
    nic.activate(nic.device.features & ~spec.F_MRG_RXBUF)
    nic.drivers[RX].add([], [12, 1514])
    nic.drivers[RX].add([], [12, 1514])
    nic.offer()
    for length in (1514, 60):
        packet = frame(length)
        nic.arrive(packet)
        (whole,) = nic.received()
        assert whole == bytes(10) + b"\1\0" + packet


def test_without_mergeable_buffers_a_larger_packet_is_dropped_and_the_next_served(nic: Nic) -> None:
    nic.reset()
    nic.activate(nic.device.features & ~spec.F_MRG_RXBUF)
    nic.offer(200, 2000)
    nic.arrive(frame(1000))
    packet = frame(100)
    nic.arrive(packet)
    (whole,) = nic.received()
    assert whole[12:] == packet
    assert nic.device.counters["rx_dropped"] == 1


def test_a_packet_waits_for_buffers_and_loses_nothing(nic: Nic) -> None:
    nic.offer(500)
    packets = [frame(3000), frame(100)]
    for packet in packets:
        nic.arrive(packet)
    assert nic.received() == []
    nic.offer(500)
    assert nic.received() == []
    nic.offer(*[500] * 10)
    parts = nic.received()
    assert b"".join(parts[:7])[12:] == packets[0]
    assert struct.unpack_from("<H", parts[0], 10) == (7,)
    assert parts[7][12:] == packets[1]
    assert nic.device.counters["rx_dropped"] == 0


def test_no_buffers_no_polling_and_packets_come_when_there_are_some(nic: Nic) -> None:
    """CVE-2020-16843: an empty ring never wedges the device, and costs no wake-ups."""
    packets = [frame(100) for _ in range(3)]
    for packet in packets:
        nic.arrive(packet)
    assert nic.received() == []  # Rig.poll fails if the pollers do not come to rest
    nic.offer(*[300] * 8)
    assert [part[12:] for part in nic.received()] == packets


def test_a_ring_that_can_never_hold_a_packet_drops_it_and_goes_on() -> None:
    with Nic(size=8) as nic:
        nic.activate()
        nic.offer(*[100] * 8)
        nic.arrive(frame(5000))
        small = frame(50)
        nic.arrive(small)
        (part,) = nic.received()
        assert part[12:] == small
        assert nic.device.counters["rx_dropped"] == 1


def test_a_flood_is_received_in_bounded_steps() -> None:
    """XSA-392: one wake-up takes a bounded number of packets, and none gets lost."""
    with Nic(size=256) as nic:
        nic.activate()
        nic.offer(*[200] * 256)
        nic.poll()
        count = 2 * RECEIVE_MAX - 56
        for _ in range(count):
            nic.arrive(frame(64))
        ((_, wake),) = nic.device.pollers().items()
        wake()
        assert 0 < nic.drivers[RX].used_idx <= RECEIVE_MAX
        assert len(nic.received()) == count
        assert nic.device.counters["rx_packets"] == count


def test_what_lies_ready_is_received_together_with_one_interrupt(nic: Nic) -> None:
    nic.offer(*[200] * 10)
    nic.poll()
    for _ in range(10):
        nic.arrive(frame(64))
    ((_, wake),) = nic.device.pollers().items()
    wake()
    assert nic.drivers[RX].used_idx == 10
    assert nic.notified == [RX]


@pytest.mark.parametrize("room", [1526, 2048, 4096 - 320], ids=["packet", "half page", "page"])
def test_the_largest_gso_packet_comes_in_mergeable_buffers_with_its_header_unchanged(room: int) -> None:
    """What Linux's virtio_net offers: buffers of a packet up to a page, and GUEST_TSO."""
    with Nic(size=64) as nic:
        nic.activate()
        nic.offer(*[room] * 64)
        sent = header(spec.HDR_F_NEEDS_CSUM, spec.GSO_TCPV4, 66, 1448, 34, 16)
        packet = frame(65535)
        nic.arrive(packet, sent)
        parts = nic.received()
        assert len(parts) == -(-(65535 + 12) // room)
        assert b"".join(parts) == sent[:10] + struct.pack("<H", len(parts)) + packet
        assert nic.notified == [RX]


TSO4 = header(spec.HDR_F_NEEDS_CSUM, spec.GSO_TCPV4, 54, 1448, 34, 16)
TSO6 = header(spec.HDR_F_NEEDS_CSUM, spec.GSO_TCPV6, 74, 1448, 54, 16)
ECN = header(spec.HDR_F_NEEDS_CSUM, spec.GSO_TCPV4 | spec.GSO_ECN, 54, 1448, 34, 16)


@pytest.mark.parametrize(
    ("without", "sent"),
    [
        (spec.GUEST_OFFLOADS, header(spec.HDR_F_NEEDS_CSUM, start=34, offset=16)),
        (spec.GUEST_OFFLOADS, TSO4),
        (spec.F_GUEST_TSO4, TSO4),
        (spec.F_GUEST_TSO6, TSO6),
        (spec.F_GUEST_ECN, ECN),
    ],
    ids=["checksum", "gso and checksum", "tso4", "tso6", "ecn"],
)
def test_a_packet_that_the_driver_did_not_negotiate_is_dropped(without: int, sent: bytes) -> None:
    """It was queued for another driver; none may take an unfinished packet for a complete one."""
    with Nic() as nic:
        for features, passes in ((nic.device.features, True), (nic.device.features & ~without, False)):
            nic.activate(features)
            nic.offer(*[4096] * 2)
            nic.arrive(frame(3000), sent)
            assert [part[:10] for part in nic.received()] == ([sent[:10]] if passes else [])
            assert nic.device.counters["rx_dropped"] == (not passes)
            nic.reset()


@pytest.mark.parametrize("gso", [2, 3, 5, 0x80, 0x7F])
def test_a_packet_of_a_gso_type_that_is_not_offered_is_dropped(gso: int) -> None:
    with Nic() as nic:
        nic.activate()
        nic.offer(4096)
        nic.arrive(frame(3000), header(spec.HDR_F_NEEDS_CSUM, gso, 54, 1448, 34, 16))
        assert nic.received() == []
        assert nic.device.counters["rx_dropped"] == 1


@pytest.mark.parametrize("room", [0, 1, 11])
def test_a_receive_buffer_without_room_for_a_header_stops_the_device(room: int) -> None:
    with Nic() as nic:
        nic.activate()
        nic.drivers[RX].add([] if room else [b"readable"], [room] if room else [])
        nic.drivers[RX].kick()
        with pytest.raises(GuestViolation, match="receive buffer"):
            nic.device.kick(RX)
        nic.reset()
        nic.activate()
        nic.offer(100)
        nic.arrive(frame(60))
        assert len(nic.received()) == 1


def test_the_checksum_is_only_called_valid_to_who_asked() -> None:
    with Nic() as nic:
        for features, flags in ((nic.device.features, 2), (nic.device.features & ~spec.F_GUEST_CSUM, 0)):
            nic.activate(features)
            nic.offer(200)
            nic.arrive(frame(60), header(spec.HDR_F_DATA_VALID))
            assert nic.received()[0][0] == flags
            nic.reset()


def test_a_runt_from_the_host_is_dropped(nic: Nic) -> None:
    nic.offer(200)
    nic.arrive(b"short")
    nic.arrive(frame(60))
    assert len(nic.received()) == 1
    assert nic.device.counters["rx_dropped"] == 1
