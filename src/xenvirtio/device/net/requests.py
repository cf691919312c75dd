# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, annotation_typing=False
"""What may pass a NIC: the header of a packet that the guest sends (virtio 1.3 §5.1.6.2), and which packets
it wants to receive (§5.1.6.5) and understands (§5.1.6.4.1). No I/O.

The host's network stack believes a virtio header more than it should, so everything in it that names a
place in the packet, or a size to cut it into, is checked here first.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import cython

from xenvirtio.device.net import space
from xenvirtio.spec import net as spec

if TYPE_CHECKING:
    from collections.abc import Sequence

if not cython.compiled:
    from xenvirtio.memory.raw import load16, load32, store16

NEEDS_CSUM = spec.HDR_F_NEEDS_CSUM
GSO_NONE = spec.GSO_NONE
GSO_TCPV4 = spec.GSO_TCPV4
GSO_TCPV6 = spec.GSO_TCPV6
GSO_ECN = spec.GSO_ECN
ETH_HLEN = spec.ETH_HLEN
PACKET_MAX = space.PACKET_MAX
TCP_HLEN = 20  # without options
TCP_CSUM = 16  # offset of the checksum in a TCP header
IPV4_HLEN = 20
IPV6_HLEN = 40
#: bytes; no honest TCP sends less a segment, and each segment costs the host a packet of its own
GSO_SIZE_MIN = 32

MULTICAST = 0x01
BROADCAST = 0xFFFFFFFFFFFF
VLAN_TAG = 0x0081  # ETH_P_8021Q as little-endian loads see it


class HeaderRules:
    """Checks headers of packets to send against the features that the driver negotiated."""

    def __init__(self, features: int) -> None:
        self.csum = bool(features & spec.F_CSUM)
        self.tso4 = bool(features & spec.F_HOST_TSO4)
        self.tso6 = bool(features & spec.F_HOST_TSO6)
        self.ecn = bool(features & spec.F_HOST_ECN)

    def allows(self, header: bytes, length: int) -> bool:
        """Whether a packet of `length` bytes may have this header of 12 bytes."""
        copy = array("B", header)
        return bool(self.check(copy.buffer_info()[0], length))

    def check(self, header: int, length: int) -> bool:
        """Whether the packet of `length` bytes behind the header (a local copy) may go to the host.

        Clears what a driver has no say in: flags other than NEEDS_CSUM, and num_buffers."""
        flags = load16(header) & 0xFF
        gso = load16(header) >> 8
        header_length = load16(header + 2)
        gso_size = load16(header + 4)
        start = load16(header + 6)
        offset = load16(header + 8)
        kind = gso & ~GSO_ECN
        if length < ETH_HLEN or length > PACKET_MAX:
            return False
        flags &= NEEDS_CSUM
        store16(header, flags | gso << 8)
        store16(header + 10, 0)
        if flags and (not self.csum or start < ETH_HLEN or start + offset + 2 > length):
            return False
        if kind == GSO_NONE:
            return gso == GSO_NONE
        if kind == GSO_TCPV4:
            if not self.tso4 or start < ETH_HLEN + IPV4_HLEN:
                return False
        elif kind == GSO_TCPV6:
            if not self.tso6 or start < ETH_HLEN + IPV6_HLEN:
                return False
        else:
            return False
        return (
            flags != 0
            and offset == TCP_CSUM
            and start + TCP_HLEN <= length
            and header_length <= length
            and gso_size >= GSO_SIZE_MIN
            and (self.ecn or gso & GSO_ECN == 0)
        )


class Offloads:
    """Which packets with work left to do the guest takes: F_GUEST_*, as negotiated or set since. The tap is
    told the same, but what it has queued may be older, meant for another driver."""

    def __init__(self, guest_features: int) -> None:
        self.csum = bool(guest_features & spec.F_GUEST_CSUM)
        self.tso4 = self.csum and bool(guest_features & spec.F_GUEST_TSO4)
        self.tso6 = self.csum and bool(guest_features & spec.F_GUEST_TSO6)
        self.ecn = bool(guest_features & spec.F_GUEST_ECN)

    def takes(self, header: int) -> bool:
        """Whether a packet from the host with this header (a local copy) can be handed to the guest.

        Clears the flags for a guest without F_GUEST_CSUM: the tap says DATA_VALID to it as well."""
        flags = load16(header) & 0xFF
        gso = load16(header) >> 8
        kind = gso & ~GSO_ECN
        if not self.csum:
            if flags & NEEDS_CSUM:
                return False
            store16(header, gso << 8)
        if kind == GSO_NONE:
            return gso == GSO_NONE
        if gso & GSO_ECN and not self.ecn:
            return False
        return (kind == GSO_TCPV4 and self.tso4) or (kind == GSO_TCPV6 and self.tso6)


class ReceiveFilter:
    """Which packets from the host the guest wants; everything until the driver says otherwise."""

    def __init__(self, mac: bytes, filter_vlans: bool) -> None:
        """`mac`: the NIC's own address. `filter_vlans`: no tagged packet passes until its VLAN is added."""
        self.station = int.from_bytes(mac, "little")
        self.promiscuous = True
        self.all_multicast = self.all_unicast = False
        self.no_multicast = self.no_unicast = self.no_broadcast = False
        self.filter_vlans = filter_vlans
        self.unicast_count = self.multicast_count = 0
        self.unicast_overflow = self.multicast_overflow = False
        self.unicast = array("Q", bytes(8 * space.MAC_TABLE_MAX))
        self.multicast = array("Q", bytes(8 * space.MAC_TABLE_MAX))
        self.vlans = array("B", bytes(spec.VLAN_COUNT))

    def set_station(self, mac: bytes) -> None:
        """The NIC's own address is another one now."""
        self.station = int.from_bytes(mac, "little")

    def set_mode(self, command: int, on: bool) -> bool:
        """One of CTRL_RX_*; False if there is no such command (§5.1.6.5.1)."""
        if command == spec.CTRL_RX_PROMISC:
            self.promiscuous = on
        elif command == spec.CTRL_RX_ALLMULTI:
            self.all_multicast = on
        elif command == spec.CTRL_RX_ALLUNI:
            self.all_unicast = on
        elif command == spec.CTRL_RX_NOMULTI:
            self.no_multicast = on
        elif command == spec.CTRL_RX_NOUNI:
            self.no_unicast = on
        elif command == spec.CTRL_RX_NOBCAST:
            self.no_broadcast = on
        else:
            return False
        return True

    def set_tables(self, unicast: Sequence[bytes], multicast: Sequence[bytes]) -> None:
        """Replace both tables; one that does not fit lets everything of its kind through (§5.1.6.5.2)."""
        self.unicast_overflow = len(unicast) > space.MAC_TABLE_MAX
        self.multicast_overflow = len(multicast) > space.MAC_TABLE_MAX
        self.unicast_count = 0 if self.unicast_overflow else len(unicast)
        self.multicast_count = 0 if self.multicast_overflow else len(multicast)
        for i in range(self.unicast_count):
            self.unicast[i] = int.from_bytes(unicast[i], "little")
        for i in range(self.multicast_count):
            self.multicast[i] = int.from_bytes(multicast[i], "little")

    def set_vlan(self, number: int, on: bool) -> bool:
        """Let a VLAN through, or no longer; False if there is no such number (§5.1.6.5.3)."""
        if not 0 <= number < spec.VLAN_COUNT:
            return False
        self.vlans[number] = on
        return True

    def wants(self, frame: bytes) -> bool:
        """Whether the guest wants the packet that begins so (18 bytes at least)."""
        copy = array("B", frame)
        return bool(self.accepts(copy.buffer_info()[0]))

    def accepts(self, frame: int) -> bool:
        """The same for the local address of an Ethernet header and 4 bytes more."""
        if self.promiscuous:
            return True
        target = load16(frame + 4)
        target = target << 32 | load32(frame)
        if self.filter_vlans and load16(frame + 12) == VLAN_TAG:
            number = load16(frame + 14)  # in network order: the low 12 bits of a big-endian number
            if self.vlans[(number & 0x0F) << 8 | number >> 8] == 0:
                return False
        if target == BROADCAST:
            return not self.no_broadcast
        if target & MULTICAST:
            if self.no_multicast:
                return False
            if self.all_multicast or self.multicast_overflow:
                return True
            return self._lists(self.multicast, self.multicast_count, target)
        if self.no_unicast:
            return False
        if self.all_unicast or self.unicast_overflow or target == self.station:
            return True
        return self._lists(self.unicast, self.unicast_count, target)

    def _lists(self, table: array[int], count: int, target: int) -> bool:
        for i in range(count):  # noqa: SIM110 (compiles to C)
            if table[i] == target:
                return True
        return False
