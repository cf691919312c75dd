"""Guest memory in this process."""

from __future__ import annotations

import pytest

from xenvirtio.errors import MemoryViolation
from xenvirtio.memory.local import LocalMemory
from xenvirtio.memory.regions import Region, RegionMemory
from xenvirtio.testing.guest import RegionGuest


def test_a_mapping_is_the_guests_own_memory() -> None:
    with RegionGuest(16, split=[4]) as guest:
        memory = guest.memory()
        with memory.map(guest.base + 4096 * 4 + 8, 100) as mapping:
            guest.ram.write(4096 * 4 + 8, b"seen")
            local = LocalMemory(16)
            assert memory.fetch(guest.base + 4096 * 4 + 8, 4, local.address)
            assert local.read(0, 4) == b"seen"
            assert mapping.length == 100


@pytest.mark.parametrize(
    ("address", "length"),
    [
        (0, 1),
        (0x1000 - 1, 1),
        (0x1000, 0x1001),
        (0x2000, 1),
        (0x2FFF, 2),
        ((1 << 64) - 1, 1),
        (0x1000, 1 << 63),
    ],
)
def test_a_mapping_must_lie_within_one_region(address: int, length: int) -> None:
    memory = RegionMemory([Region(0x1000, 0x1000, 1 << 40)])
    with pytest.raises(MemoryViolation):
        memory.map(address, length)


def test_the_whole_of_a_region_can_be_mapped() -> None:
    memory = RegionMemory([Region(0x1000, 0x1000, 1 << 40)])
    assert memory.map(0x1FFF, 1).address == (1 << 40) + 0xFFF
    assert memory.map(0x1000, 0x1000).address == 1 << 40


@pytest.mark.parametrize(
    "regions",
    [
        [Region(0, 0, 1)],
        [Region(0, -1, 1)],
        [Region(0, 0x1000, 1), Region(0xFFF, 0x1000, 1)],
        [Region(0x1000, 0x1000, 1), Region(0, 0x1001, 1)],
        [Region((1 << 64) - 0x1000, 0x1001, 1)],
    ],
)
def test_regions_that_overlap_or_overflow_are_refused(regions: list[Region]) -> None:
    with pytest.raises(MemoryViolation):
        RegionMemory(regions)


def test_no_memory_at_all_is_all_hole() -> None:
    memory = RegionMemory([])
    assert not memory.fetch(0, 1, LocalMemory(1).address)
    with pytest.raises(MemoryViolation):
        memory.map(0, 1)


def test_fetch_crosses_regions_and_stops_at_holes() -> None:
    with RegionGuest(4, split=[1, 2]) as guest:
        guest.ram.write(0, bytes(range(256)) * 64)
        local = LocalMemory(3 * 4096)
        assert guest.memory().fetch(guest.base + 4000, 8192, local.address)
        assert local.read(0, 8192) == (bytes(range(256)) * 64)[4000 : 4000 + 8192]
        assert not guest.memory().fetch(guest.base + 4 * 4096 - 10, 11, local.address)


def test_fetch_does_not_wrap_at_the_end_of_the_address_space() -> None:
    with RegionGuest(1, base=(1 << 64) - 4096) as guest:
        low = RegionMemory([*guest.regions, Region(0, 4096, guest.regions[0].local)])
        assert not low.fetch((1 << 64) - 16, 32, LocalMemory(64).address)
