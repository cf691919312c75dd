"""A virtio NIC over XenBus, in both memory-access modes (virtio 1.3 §5.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import MIB, device_of, wait_for_address
from xenvirtio.lab.guest import tcp

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend, Guest

PINGS = 20
FRAME = 1514  # an Ethernet header and the MTU
_COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")


@pytest.fixture(autouse=True)
def _address(guest: Guest) -> None:
    wait_for_address(guest)


def test_the_nic_is_virtio_with_the_mac_that_it_was_given(guest: Guest, lab: Lab, backend: Backend) -> None:
    rows = [row for row in backend.devices() if row["guest"] == guest.name and row["kind"] == "nic"]
    path = f"/local/domain/0/backend/virtio/{rows[0]['domid']}"
    macs = lab.run(
        f"for n in $(xenstore-list {path}); do xenstore-read {path}/$n/host/mac 2>/dev/null; done; true"
    ).stdout.split()
    assert [guest.sysfs("class/net/eth0/address")] == macs
    assert "virtio_net" in guest.run("readlink /sys/class/net/eth0/device/driver").output


def test_no_ping_is_lost_from_the_guest(guest: Guest) -> None:
    output = guest.run(f"ping -c {PINGS} -i 0.05 -W 5 {tcp.DOM0}", timeout=120).output
    assert _COUNTS.findall(output) == [(str(PINGS), str(PINGS))]


@pytest.mark.parametrize("size", [56, 1472, 8000])
def test_no_ping_is_lost_to_the_guest_whatever_its_size(guest: Guest, lab: Lab, size: int) -> None:
    address = (guest.config.address or "").partition("/")[0]
    output = lab.run(
        ["ping", "-c", str(PINGS), "-i", "0.05", "-W", "5", "-s", str(size), address], timeout=120
    )
    assert _COUNTS.findall(output.stdout) == [(str(PINGS), str(PINGS))]
    assert guest.name  # the guest answered


def test_tcp_to_the_guest_arrives_whole_in_segments_larger_than_the_mtu(
    guest: Guest, lab: Lab, backend: Backend
) -> None:
    """VIRTIO_NET_F_GUEST_TSO4 and, as no posted buffer is so large, MRG_RXBUF."""
    before = through_tap(lab, backend, guest, "tx")
    assert tcp.to_guest(guest, 8 * MIB).bytes == 8 * MIB
    assert size_of_packets(before, through_tap(lab, backend, guest, "tx")) > FRAME
    features = guest.sysfs("class/net/eth0/device/features")  # one character a bit, bit 0 first
    assert features[15] == "1"  # VIRTIO_NET_F_MRG_RXBUF


def test_tcp_from_the_guest_arrives_whole_in_segments_larger_than_the_mtu(
    guest: Guest, lab: Lab, backend: Backend
) -> None:
    """VIRTIO_NET_F_HOST_TSO4."""
    before = through_tap(lab, backend, guest, "rx")
    assert tcp.from_guest(guest, 8 * MIB).bytes == 8 * MIB
    assert size_of_packets(before, through_tap(lab, backend, guest, "rx")) > FRAME


def through_tap(lab: Lab, backend: Backend, guest: Guest, way: str) -> tuple[int, int]:
    """Bytes and packets so far, as dom0's kernel counts: "rx" from the guest, "tx" to it."""
    tap = str(device_of(backend, guest.name, "eth0")["backing"]).split()[0]
    files = [f"/sys/class/net/{tap}/statistics/{way}_{what}" for what in ("bytes", "packets")]
    count, packets = lab.run(["cat", *files]).check().stdout.split()
    return int(count), int(packets)


def size_of_packets(before: tuple[int, int], after: tuple[int, int]) -> float:
    return (after[0] - before[0]) / (after[1] - before[1])


def test_the_nic_works_after_it_was_down(guest: Guest) -> None:
    guest.run("ip link set eth0 down; ip link set eth0 up")
    assert tcp.to_guest(guest, MIB).bytes == MIB
