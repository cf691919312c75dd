"""What a hostile or broken driver asks of a disk: a request error or a stopped device, nothing else."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.device.test_block_requests import SECTORS, Disk, header, image, ranges
from xenvirtio.device.block import space
from xenvirtio.errors import GuestViolation
from xenvirtio.memory.arena import STAGING_BYTES
from xenvirtio.memory.local import PAGE_SIZE
from xenvirtio.spec import block as spec
from xenvirtio.testing.guest import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["image"]


@pytest.fixture
def disk(image: Path) -> Iterator[Disk]:
    """A disk in use, whose image must not have changed in the end."""
    before = image.read_bytes()
    with Disk(image) as rig:
        rig.activate()
        yield rig
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    "sector", [SECTORS, SECTORS - 1, 1 << 32, (1 << 55) - 1, 1 << 55, (1 << 64) - 1, (1 << 64) - 2]
)
@pytest.mark.parametrize("kind", [spec.T_IN, spec.T_OUT])
def test_past_the_end_or_overflowing_is_an_error(disk: Disk, kind: int, sector: int) -> None:
    if kind == spec.T_IN:
        status, data = disk.ask(kind, sector, room=[1024])
        assert data == bytes(1024), "what was not read is zeroed, not left as it was"
    else:
        status, _ = disk.ask(kind, sector, os.urandom(1024))
    assert status == spec.S_IOERR
    assert disk.device.counters["errors"] == 1


@pytest.mark.parametrize("length", [1, 511, 513])
def test_data_that_is_not_whole_sectors_is_an_error(disk: Disk, length: int) -> None:
    assert disk.ask(spec.T_IN, 0, room=[length]) == (spec.S_IOERR, bytes(length))
    assert disk.ask(spec.T_OUT, 0, bytes(length))[0] == spec.S_IOERR


def test_a_request_larger_than_the_device_allows_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "large.img"
    path.touch()
    os.truncate(path, space.DATA_MAX + (1 << 20))
    with Disk(path, size=128) as disk:
        disk.activate()
        room = disk.guest.ram.place(space.SIZE_MAX * 2)
        address = disk.guest.share(room, space.SIZE_MAX * 2, True)
        driver = disk.drivers[0]
        first = driver.add([header(spec.T_IN)], [1])
        status = driver.chains[first].buffers[1]
        middle = [driver.free.popleft() for _ in range(64)]
        chain = [*middle, driver.chains[first].descriptors[1]]
        driver.write_descriptor(first, driver.chains[first].buffers[0].address, 16, 1, chain[0])
        for k, index in enumerate(middle):
            driver.write_descriptor(index, address, space.SIZE_MAX * 2, 3, chain[k + 1])
        driver.kick()
        disk.device.kick(0)
        assert driver.used_idx == 1
        assert disk.guest.ram.read(status.offset, 1) == bytes([spec.S_IOERR])
        driver.chains.clear()


def test_the_staging_arena_holds_the_largest_request_that_is_promised() -> None:
    """Each segment may begin anywhere in its page; header and status need a page each at most."""
    assert space.SEG_MAX * (space.SIZE_MAX + PAGE_SIZE) + 2 * PAGE_SIZE <= STAGING_BYTES


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("offset", [0, 4095])
def test_the_largest_request_that_is_promised_is_served(tmp_path: Path, kind: str, offset: int) -> None:
    """SEG_MAX segments of SIZE_MAX bytes, wherever they lie in their pages."""
    path = tmp_path / "large.img"
    path.write_bytes(bytes(space.DATA_MAX - 8) + b"the end.")
    with Disk(path, kind, size=128) as disk:
        disk.activate()
        driver = disk.drivers[0]
        places = [
            disk.guest.ram.place(space.SIZE_MAX + 4096, 4096) + offset if k in (0, space.SEG_MAX - 1) else 0
            for k in range(space.SEG_MAX)
        ]
        places[1:-1] = [places[0]] * (space.SEG_MAX - 2)  # one place for all but the last
        first = driver.add([header(spec.T_IN)], [1])
        ends = driver.chains[first]
        indexes = [driver.free.popleft() for _ in places]
        shared = {place: disk.guest.share(place, space.SIZE_MAX, True) for place in places}
        driver.write_descriptor(first, ends.buffers[0].address, 16, 1, indexes[0])
        for index, following, place in zip(indexes, [*indexes[1:], ends.descriptors[1]], places, strict=True):
            driver.write_descriptor(index, shared[place], space.SIZE_MAX, 3, following)
        driver.kick()
        disk.device.kick(0)
        assert driver.used_idx == 1
        assert disk.guest.ram.read(ends.buffers[1].offset, 1) == bytes([spec.S_OK])
        assert disk.guest.ram.read(places[-1], space.SIZE_MAX)[-8:] == b"the end."


@pytest.mark.parametrize("kind", [2, 3, 5, 7, 9, 10, 12, 14, 15, 0x8000_0000, 0xFFFF_FFFF])
def test_an_unknown_type_is_unsupported(disk: Disk, kind: int) -> None:
    assert disk.ask(kind, 0, bytes(512), [512]) == (spec.S_UNSUPP, bytes(512))
    assert disk.device.counters["unsupported"] == 1


def test_data_in_the_wrong_direction_is_an_error(disk: Disk) -> None:
    assert disk.ask(spec.T_IN, 0, bytes(512), [512]) == (spec.S_IOERR, bytes(512))
    assert disk.ask(spec.T_OUT, 0, bytes(512), [512]) == (spec.S_IOERR, bytes(512))


@pytest.mark.parametrize("kind", [spec.T_DISCARD, spec.T_WRITE_ZEROES])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", spec.S_IOERR),
        (bytes(15), spec.S_IOERR),
        (ranges((0, 1, 0)) + b"\0", spec.S_IOERR),
        (ranges(*[(0, 1, 0)] * (space.RANGES_MAX + 1)), spec.S_IOERR),
        (ranges((SECTORS, 1, 0)), spec.S_IOERR),
        (ranges((0, SECTORS + 1, 0)), spec.S_IOERR),
        (ranges(((1 << 64) - 1, 2, 0)), spec.S_IOERR),
        (ranges((1 << 55, 1, 0)), spec.S_IOERR),
        (ranges((0, 0xFFFF_FFFF, 0)), spec.S_IOERR),
        (ranges((0, 1, 2)), spec.S_UNSUPP),
        (ranges((0, 1, 0x8000_0001)), spec.S_UNSUPP),
        (ranges((0, 1, 0), (1, 1, 4)), spec.S_UNSUPP),
        (ranges((0, 1, 0), (SECTORS, 1, 0)), spec.S_IOERR),
    ],
)
def test_ranges_are_checked_before_any_is_touched(disk: Disk, kind: int, data: bytes, status: int) -> None:
    assert disk.ask(kind, 0, data)[0] == status


def test_discard_with_the_unmap_flag_is_unsupported(disk: Disk) -> None:
    assert disk.ask(spec.T_DISCARD, 0, ranges((0, 1, 1)))[0] == spec.S_UNSUPP


@pytest.mark.parametrize("kind", [spec.T_DISCARD, spec.T_WRITE_ZEROES])
def test_empty_ranges_do_nothing(disk: Disk, kind: int) -> None:
    assert disk.ask(kind, 0, ranges((3, 0, 0), (SECTORS, 0, 0)))[0] == spec.S_OK


def test_what_was_not_negotiated_is_unsupported(image: Path) -> None:
    with Disk(image) as disk:
        disk.activate(disk.device.features & ~(spec.F_DISCARD | spec.F_WRITE_ZEROES))
        for kind in (spec.T_DISCARD, spec.T_WRITE_ZEROES):
            assert disk.ask(kind, 0, ranges((0, 1, 0)))[0] == spec.S_UNSUPP


def test_discard_can_be_switched_off(image: Path) -> None:
    with Disk(image, discard="0") as disk:
        assert not disk.device.features & spec.F_DISCARD
        assert struct.unpack_from("<III", disk.device.config(), 0x24) == (0, 0, 0)


@pytest.mark.parametrize("keep_ro", [True, False])
def test_a_read_only_disk_is_never_written(image: Path, keep_ro: bool) -> None:
    """§5.2.6.2: even if the driver did not accept the feature that says so."""
    before = image.read_bytes()
    with Disk(image, mode="r") as disk:
        assert disk.device.features & spec.F_RO
        assert not disk.device.features & (spec.F_DISCARD | spec.F_WRITE_ZEROES)
        disk.activate(disk.device.features if keep_ro else disk.device.features & ~spec.F_RO)
        assert disk.ask(spec.T_OUT, 0, bytes(512))[0] == spec.S_IOERR
        assert disk.ask(spec.T_DISCARD, 0, ranges((0, 1, 0)))[0] != spec.S_OK
        assert disk.ask(spec.T_WRITE_ZEROES, 0, ranges((0, 1, 0)))[0] != spec.S_OK
        assert disk.ask(spec.T_FLUSH)[0] == spec.S_OK
        assert disk.ask(spec.T_IN, 0, room=[512]) == (spec.S_OK, before[:512])
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("readable", "writable"),
    [
        ([], [1]),
        ([header(spec.T_IN)[:15]], [512, 1]),
        ([header(spec.T_OUT), bytes(512)], []),
        ([header(0)], []),
    ],
)
def test_a_chain_without_header_or_status_stops_the_device_until_it_is_reset(
    disk: Disk, readable: list[bytes], writable: list[int]
) -> None:
    disk.drivers[0].add(readable, writable)
    disk.drivers[0].kick()
    with pytest.raises(GuestViolation, match=r"virtio 1\.3 §5\.2\.6"):
        disk.device.kick(0)
    disk.reset()
    disk.activate()
    assert disk.ask(spec.T_IN, 0, room=[512]) == (spec.S_OK, disk.path.read_bytes()[:512])


def test_nothing_is_completed_after_a_reset(disk: Disk) -> None:
    driver = disk.drivers[0]
    driver.add([header(spec.T_IN)], [512, 1])
    driver.kick()
    disk.device.deactivate()
    disk.device.kick(0)
    disk.poll()
    assert driver.used_idx == 0
    assert disk.notified == []
    assert disk.device.counters["ignored_kicks"] == 1


def test_kicks_of_queues_that_are_not_there_are_ignored_and_counted(disk: Disk) -> None:
    for queue in (1, 7, 65535):
        disk.device.kick(queue)
    assert disk.device.counters["ignored_kicks"] == 3


def test_an_image_that_shrinks_gives_errors_and_no_stale_data(image: Path) -> None:
    with Disk(image) as disk:
        disk.activate()
        os.truncate(image, 1024)
        assert disk.ask(spec.T_IN, 1, room=[4096]) == (spec.S_IOERR, bytes(4096))


def test_a_failed_write_is_an_error(image: Path) -> None:
    """A file size limit makes the write fail, as a full disk does."""
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Disk(image) as disk:
        disk.activate()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        try:
            statuses = [disk.ask(spec.T_OUT, sector, bytes(1024))[0] for sector in (0, 1, 2)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, old)
        assert statuses == [spec.S_OK, spec.S_IOERR, spec.S_IOERR]
        assert disk.device.counters["errors"] == 2
