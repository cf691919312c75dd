"""virtio 1.3 §5.1.6: packets both ways, with a pair of sockets in the tap's place."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.device.device_rig import Rig
from xenvirtio.device.net.config import NetConfig
from xenvirtio.device.net.space import PACKET_MAX
from xenvirtio.device.net.state import NetDevice
from xenvirtio.errors import GuestViolation
from xenvirtio.spec import net as spec
from xenvirtio.testing.guest import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

MAC = bytes.fromhex("00163e010203")
OTHER = bytes.fromhex("00163e0a0b0c")
BROADCAST = b"\xff" * 6
RX, TX, CTRL = spec.QUEUE_RX, spec.QUEUE_TX, spec.QUEUE_CTRL
PLAIN = spec.F_MAC | spec.F_STATUS | spec.F_CTRL_VQ | spec.F_CTRL_RX


class SocketLink:
    """One end is the device's link, the other is the host: one packet a message, virtio header first."""

    mtu = 1500

    def __init__(self) -> None:
        self.ours, self.host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.ours, self.host):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.fd = self.ours.fileno()
        self.offloads: list[int] = []

    def set_offloads(self, guest_features: int) -> None:
        self.offloads.append(guest_features)

    def close(self) -> None:
        self.ours.close()
        self.host.close()


class Nic(Rig):
    def __init__(self, kind: str = "regions", size: int = 64) -> None:
        self.link = SocketLink()
        super().__init__(NetDevice(NetConfig(MAC, "", "vif1.0"), self.link), KINDS[kind](), size)

    def arrive(self, frame: bytes, header: bytes = bytes(12)) -> None:
        """A packet comes from the host."""
        self.link.host.send(header + frame)

    def offer(self, *rooms: int) -> None:
        """The driver adds receive buffers of these sizes and lets the device look."""
        for room in rooms:
            self.drivers[RX].add([], [room])
        if self.drivers[RX].kick():
            self.device.kick(RX)

    def received(self) -> list[bytes]:
        """What the guest got since it last looked, buffer by buffer: only the bytes said to be written."""
        self.poll()
        return [b"".join(used.data)[: used.length] for used in self.drivers[RX].used()]

    def sent(self) -> list[bytes]:
        """What reached the host."""
        result = []
        while True:
            try:
                result.append(self.link.host.recv(1 << 17))
            except BlockingIOError:
                return result


def frame(length: int, target: bytes = MAC) -> bytes:
    return target + OTHER + b"\x08\x00" + os.urandom(length - 14)


def header(
    flags: int = 0, gso: int = 0, hdr_len: int = 0, gso_size: int = 0, start: int = 0, offset: int = 0
) -> bytes:
    return spec.HEADER.pack(flags, gso, hdr_len, gso_size, start, offset, 0)


@pytest.fixture(params=list(KINDS))
def nic(request: pytest.FixtureRequest) -> Iterator[Nic]:
    with Nic(request.param) as rig:
        rig.activate()
        yield rig


# --- transmit, §5.1.6.2 ---


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


# --- receive, §5.1.6.4 ---


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


def test_a_flood_is_received_in_bounded_steps(nic: Nic) -> None:
    """XSA-392: one wake-up takes a bounded number of packets, and none gets lost."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            nic.arrive(frame(64))
            count += 1
    assert count > 200
    received = 0
    for _ in range(count):
        if received == count:
            break
        nic.offer(*[200] * nic.size)
        step = len(nic.received())
        assert 0 < step <= nic.size
        received += step
    assert nic.device.counters["rx_packets"] == received == count


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


# --- link and life ---


def test_configuration_space_tells_address_link_and_mtu(nic: Nic) -> None:
    assert nic.device.config() == MAC + struct.pack("<HHH", 1, 1, 1500)
    assert not nic.device.write_config(0, OTHER)


def test_a_link_that_goes_down_is_a_configuration_change_and_carries_nothing(nic: Nic) -> None:
    assert isinstance(nic.device, NetDevice)
    nic.offer(*[200] * 4)
    nic.device.set_link(False)
    nic.device.set_link(False)
    assert nic.changes == 1
    assert nic.device.config()[6] == 0
    nic.arrive(frame(60))
    assert nic.received() == []
    nic.request([header(), frame(60)], [], TX)
    assert nic.sent() == []
    nic.device.set_link(True)
    assert nic.changes == 2
    assert len(nic.received()) == 1


def test_a_tap_that_goes_away_takes_the_link_down(nic: Nic) -> None:
    nic.offer(200)
    nic.poll()
    nic.link.host.close()
    nic.poll()
    assert nic.device.config()[6] == 0
    assert nic.changes == 1
    nic.request([header(), frame(60)], [], TX)
    assert nic.device.counters["tx_dropped"] == 1


def test_nothing_is_delivered_after_a_reset(nic: Nic) -> None:
    nic.offer(200)
    nic.poll()
    driver = nic.drivers[RX]
    nic.device.deactivate()
    nic.arrive(frame(60))
    nic.poll()
    assert driver.used_idx == 0


def test_queues_that_the_driver_did_not_enable_are_left_alone() -> None:
    with Nic() as nic:
        nic.activate(without=[CTRL, RX])
        nic.request([header(), frame(60)], [], TX)
        assert len(nic.sent()) == 1
        nic.device.kick(RX)
        nic.device.kick(CTRL)
        assert nic.device.counters["ignored_kicks"] == 2
