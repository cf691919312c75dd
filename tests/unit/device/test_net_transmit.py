"""virtio 1.3 §5.1.6.2: packets from the guest."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.unit.device.net_rig import TX, Nic, frame, header
from xenvirtio.device.net.space import PACKET_MAX
from xenvirtio.spec import net as spec
from xenvirtio.testing.guest import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=list(KINDS))
def nic(request: pytest.FixtureRequest) -> Iterator[Nic]:
    with Nic(request.param) as rig:
        rig.activate()
        yield rig


def test_a_packet_reaches_the_host_unchanged(nic: Nic) -> None:
    packet = frame(60)
    assert nic.request([header(), packet], [], TX).length == 0
    assert nic.sent() == [header() + packet]
    assert nic.device.counters["tx_packets"] == 1
    assert nic.device.counters["tx_bytes"] == 60


def test_header_and_packet_may_be_cut_anywhere(nic: Nic) -> None:
    packet = frame(1000)
    whole = header() + packet
    for cuts in ([1000], [5, 20], [12], [11, 12, 13], [1, 2, 3, 4, 500]):
        edges = [0, *cuts, len(whole)]
        nic.request([whole[a:b] for a, b in itertools.pairwise(edges)], [], TX)
        assert nic.sent() == [whole]


def test_packets_keep_their_order(nic: Nic) -> None:
    packets = [frame(60 + k) for k in range(20)]
    for packet in packets:
        nic.drivers[TX].add([header() + packet], [])
    assert len(nic.run(TX)) == 20
    assert [packet[12:] for packet in nic.sent()] == packets


def test_a_tso_packet_of_the_greatest_size_is_sent(nic: Nic) -> None:
    tso = header(spec.HDR_F_NEEDS_CSUM, spec.GSO_TCPV4, 54, 1448, 34, 16)
    packet = frame(65535)
    nic.request([tso, packet[:40000], packet[40000:]], [], TX)
    assert nic.sent() == [tso + packet]


def test_what_only_the_device_may_say_is_cleared(nic: Nic) -> None:
    packet = frame(60)
    nic.request([spec.HEADER.pack(spec.HDR_F_DATA_VALID | 0x80, 0, 0, 0, 0, 0, 7) + packet], [], TX)
    assert nic.sent() == [header() + packet]


def test_a_full_tap_drops_and_counts(nic: Nic) -> None:
    for _ in range(400):
        nic.request([header(spec.HDR_F_NEEDS_CSUM, spec.GSO_TCPV4, 54, 1448, 34, 16) + frame(65000)], [], TX)
    counters = nic.device.counters
    assert counters["tx_dropped"] > 0
    assert counters["tx_dropped"] + counters["tx_packets"] == 400


HOSTILE_HEADERS = {
    "checksum starts behind the packet": header(1, 0, 0, 0, 100, 0),
    "checksum lies behind the packet": header(1, 0, 0, 0, 34, 65),
    "checksum is cut by the packet's end": header(1, 0, 0, 0, 34, 65),
    "checksum place overflows 16 bits": header(1, 0, 0, 0, 0xFFFF, 0xFFFF),
    "checksum in the Ethernet header": header(1, 0, 0, 0, 0, 0),
    "unknown gso type": header(1, 2, 54, 1448, 34, 16),
    "udp fragmentation, not offered": header(1, 3, 54, 1448, 34, 6),
    "udp segmentation, not offered": header(1, 5, 54, 1448, 34, 6),
    "gso size 0": header(1, 1, 54, 0, 34, 16),
    "gso size of a few bytes": header(1, 1, 54, 1, 34, 16),
    "gso without checksum": header(0, 1, 54, 1448, 34, 16),
    "gso with the checksum elsewhere": header(1, 1, 54, 1448, 34, 6),
    "gso whose tcp header is cut": header(1, 1, 54, 1448, 85, 16),
    "gso tcp6 without room for its header": header(1, 4, 54, 1448, 34, 16),
    "headers longer than the packet": header(1, 1, 101, 1448, 34, 16),
    "ecn without gso": header(0, 0x80, 0, 0, 0, 0),
}


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_a_header_that_lies_is_dropped_and_the_chain_returns(name: str) -> None:
    with Nic() as nic:
        nic.activate()
        assert nic.request([HOSTILE_HEADERS[name], frame(100)], [], TX).length == 0
        assert nic.sent() == []
        assert nic.device.counters["tx_invalid"] == 1


@pytest.mark.parametrize(
    ("feature", "sent"),
    [
        (spec.F_CSUM, header(1, 0, 0, 0, 34, 16)),
        (spec.F_HOST_TSO4, header(1, 1, 54, 1448, 34, 16)),
        (spec.F_HOST_TSO6, header(1, 4, 74, 1448, 54, 16)),
        (spec.F_HOST_ECN, header(1, 0x81, 54, 1448, 34, 16)),
    ],
)
def test_offloads_that_were_not_negotiated_are_dropped(feature: int, sent: bytes) -> None:
    with Nic() as nic:
        for features, packets in ((nic.device.features, 1), (nic.device.features & ~feature, 0)):
            nic.activate(features)
            nic.request([sent, frame(2000)], [], TX)
            assert len(nic.sent()) == packets
            nic.reset()


@pytest.mark.parametrize("length", [1, 11, 12, 13, 25])
def test_tiny_chains_are_dropped(length: int) -> None:
    with Nic() as nic:
        nic.activate()
        nic.request([bytes(length)], [], TX)
        assert nic.sent() == []
        assert nic.device.counters["tx_invalid"] == 1


def test_a_packet_that_is_too_long_is_dropped(nic: Nic) -> None:
    nic.request([header(), frame(PACKET_MAX), b"x"], [], TX)
    assert nic.sent() == []
    nic.request([header(), frame(PACKET_MAX)], [], TX)
    assert len(nic.sent()) == 1


def test_a_transmit_chain_that_the_device_should_write_is_dropped(nic: Nic) -> None:
    assert nic.request([], [100], TX).length == 0
    assert nic.device.counters["tx_invalid"] == 1
