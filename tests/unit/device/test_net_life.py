"""virtio 1.3 §5.1.4, §2.4: a NIC's link, and what one driver leaves to the next."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.device.net_rig import CTRL, MAC, OTHER, RX, TX, Nic, frame, header
from xenvirtio.spec import net as spec
from xenvirtio.testing.guest import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=list(KINDS))
def nic(request: pytest.FixtureRequest) -> Iterator[Nic]:
    with Nic(request.param) as rig:
        rig.activate()
        yield rig


def test_configuration_space_tells_address_link_and_mtu(nic: Nic) -> None:
    assert nic.device.config() == MAC + struct.pack("<HHH", 1, 1, 1500)
    assert not nic.device.write_config(0, OTHER)


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


def test_what_the_host_sent_between_two_drivers_reaches_neither(nic: Nic) -> None:
    nic.reset()
    for _ in range(3):
        nic.arrive(frame(60))
    nic.activate()
    nic.offer(*[200] * 4)
    assert nic.received() == []
    assert nic.device.counters["rx_dropped"] == 3
    nic.arrive(frame(60))
    assert len(nic.received()) == 1


def test_a_packet_that_waited_for_buffers_goes_with_its_driver(nic: Nic) -> None:
    nic.offer(100)
    nic.arrive(frame(1000))
    assert nic.received() == []
    nic.reset()
    nic.activate()
    nic.offer(*[2000] * 4)
    assert nic.received() == []


def test_the_tap_finishes_packets_while_there_is_no_driver(nic: Nic) -> None:
    assert nic.link.offloads[-1] == spec.GUEST_OFFLOADS
    nic.device.deactivate()
    assert nic.link.offloads[-1] == 0
