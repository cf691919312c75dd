"""What holds for every device, whatever it does (virtio 1.3 §2, §3): one suite, an instance for each."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.device.device_rig import TRANSPORT, Rig
from tests.unit.device.net_rig import MAC, SocketLink
from xenvirtio.device.block.config import BlockConfig
from xenvirtio.device.block.state import BlockDevice
from xenvirtio.device.entropy.state import EntropyDevice
from xenvirtio.device.net.config import NetConfig
from xenvirtio.device.net.state import NetDevice
from xenvirtio.errors import GuestViolation
from xenvirtio.spec.xenbus import DEV_CONFIG_MAX
from xenvirtio.testing.guest import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xenvirtio.device.base import Device


def make_block(folder: Path) -> Device:
    path = folder / "disk.img"
    path.write_bytes(bytes(64 << 10))
    return BlockDevice(BlockConfig(str(path)))


def make_net(folder: Path) -> Device:  # noqa: ARG001
    return NetDevice(NetConfig(MAC, "", "vif1.0"), SocketLink())


def make_entropy(folder: Path) -> Device:  # noqa: ARG001
    return EntropyDevice()


DEVICES = {"block": make_block, "net": make_net, "entropy": make_entropy}


@pytest.fixture(params=list(DEVICES))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Device]:
    return lambda: DEVICES[request.param](tmp_path)


def test_a_device_offers_only_bits_of_its_own(make: Callable[[], Device]) -> None:
    """§2.2: bits 24 to 49 belong to the transport and the queues."""
    with Rig(make()) as rig:
        assert rig.device.features & (((1 << 50) - 1) & ~((1 << 24) - 1)) == 0
        assert rig.device.features & TRANSPORT == 0


def test_the_configuration_fits_the_transport_and_does_not_grow(make: Callable[[], Device]) -> None:
    with Rig(make()) as rig:
        length = len(rig.device.config())
        assert length <= DEV_CONFIG_MAX
        rig.activate()
        assert len(rig.device.config()) == length


def test_writes_outside_of_the_configuration_are_refused(make: Callable[[], Device]) -> None:
    with Rig(make()) as rig:
        rig.activate()
        length = len(rig.device.config())
        for offset, data in (
            (length, b"\0"),
            (length - 1, b"\0\0"),
            (1 << 32, b"\0"),
            (0, bytes(length + 1)),
        ):
            assert not rig.device.write_config(offset, data)


def test_queue_sizes_are_powers_of_two(make: Callable[[], Device]) -> None:
    with Rig(make()) as rig:
        assert rig.device.queue_count >= 1
        assert rig.device.queue_size_max & (rig.device.queue_size_max - 1) == 0


def test_an_inactive_device_ignores_kicks(make: Callable[[], Device]) -> None:
    with Rig(make()) as rig:
        for queue in (*range(rig.device.queue_count), 99):
            rig.device.kick(queue)
        rig.poll()
        assert rig.notified == []


def test_pollers_stay_the_same_all_life_long(make: Callable[[], Device]) -> None:
    with Rig(make()) as rig:
        before = set(rig.device.pollers())
        rig.activate()
        assert set(rig.device.pollers()) == before
        rig.reset()
        assert set(rig.device.pollers()) == before


def test_it_can_be_activated_and_reset_again_and_again(make: Callable[[], Device]) -> None:
    with Rig(make()) as rig:
        for features in (rig.device.features, 0, rig.device.features):
            rig.activate(features)
            for queue in range(rig.device.queue_count):
                rig.device.kick(queue)
            rig.poll()
            rig.reset()
        rig.device.deactivate()


def test_it_works_without_any_queue(make: Callable[[], Device]) -> None:
    with Rig(make()) as rig:
        rig.activate(without=range(rig.device.queue_count))
        for queue in range(rig.device.queue_count):
            rig.device.kick(queue)
        rig.poll()
        assert rig.notified == []


def test_close_can_be_called_twice(make: Callable[[], Device]) -> None:
    device = make()
    device.close()
    device.close()


def test_counters_are_numbers_from_the_start(make: Callable[[], Device]) -> None:
    with Rig(make()) as rig:
        assert rig.device.counters
        assert set(rig.device.counters.values()) == {0}


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    chains=st.lists(
        st.tuples(
            st.lists(st.binary(max_size=40), max_size=3),
            st.lists(st.integers(0, 2000), max_size=3),
            st.booleans(),
        ),
        max_size=6,
    ),
    queue=st.integers(0, 2),
    raw=st.binary(max_size=64),
)
def test_garbage_raises_nothing_but_guest_violation_and_a_reset_helps(
    make: Callable[[], Device],
    kind: str,
    chains: list[tuple[list[bytes], list[int], bool]],
    queue: int,
    raw: bytes,
) -> None:
    with Rig(make(), KINDS[kind]()) as rig:
        queue %= rig.device.queue_count
        rig.activate()
        driver = rig.drivers[queue]
        for readable, writable, indirect in chains:
            if readable or writable:
                driver.add(readable, writable, indirect)
        for index in range(len(raw) // 16):
            field = raw[16 * index :]
            driver.write_descriptor(
                index,
                int.from_bytes(field[:8], "little"),
                int.from_bytes(field[8:12], "little"),
                int.from_bytes(field[12:14], "little"),
                int.from_bytes(field[14:16], "little"),
            )
            driver.put_avail(index)
        driver.kick()
        with contextlib.suppress(GuestViolation):
            rig.device.kick(queue)
            rig.poll()
        rig.reset()
        rig.activate()
        for index in range(rig.device.queue_count):
            rig.device.kick(index)
        rig.poll()
