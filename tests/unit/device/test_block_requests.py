"""virtio 1.3 §5.2.6: what each request does, on a file, through a queue."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.device.device_rig import Rig
from xenvirtio.device.block.config import BlockConfig
from xenvirtio.device.block.state import BlockDevice
from xenvirtio.spec import block as spec
from xenvirtio.testing.guest import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SECTORS = 256
ALL = (spec.T_IN, spec.T_OUT, spec.T_FLUSH, spec.T_GET_ID, spec.T_DISCARD, spec.T_WRITE_ZEROES)


def header(kind: int, sector: int = 0) -> bytes:
    return struct.pack("<IIQ", kind, 0, sector)


def ranges(*rows: tuple[int, int, int]) -> bytes:
    return b"".join(struct.pack("<QII", *row) for row in rows)


class Disk(Rig):
    """A rig whose device is a disk on `path`."""

    def __init__(self, path: Path, kind: str = "regions", size: int = 64, **settings: str) -> None:
        self.path = path
        config = BlockConfig.from_settings({"path": str(path), **settings}, "vda")
        super().__init__(BlockDevice(config), KINDS[kind](), size)

    def ask(
        self, kind: int, sector: int = 0, data: bytes = b"", room: Sequence[int] = ()
    ) -> tuple[int, bytes]:
        """Status and data of one request; what it says to have written is all there was."""
        used = self.request([header(kind, sector), data] if data else [header(kind, sector)], [*room, 1])
        assert used.length == sum(room) + 1
        return used.data[-1][0], b"".join(used.data[:-1])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(SECTORS * spec.SECTOR_SIZE))
    return path


@pytest.fixture(params=list(KINDS))
def disk(image: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A disk in use, once for each kind of guest memory."""
    with Disk(image, request.param) as rig:
        rig.activate()
        yield rig


def test_a_read_returns_the_sectors_asked_for(disk: Disk) -> None:
    status, data = disk.ask(spec.T_IN, 3, room=[512, 1024])
    assert status == spec.S_OK
    assert data == disk.path.read_bytes()[3 * 512 : 6 * 512]
    assert disk.device.counters["reads"] == 1
    assert disk.device.counters["bytes_read"] == 1536


def test_a_write_changes_those_sectors_and_no_others(disk: Disk) -> None:
    before = disk.path.read_bytes()
    data = os.urandom(2048)
    assert disk.ask(spec.T_OUT, 7, data) == (spec.S_OK, b"")
    assert disk.path.read_bytes() == before[: 7 * 512] + data + before[7 * 512 + 2048 :]
    assert disk.device.counters["bytes_written"] == 2048


def test_the_last_sector_can_be_read_and_written(disk: Disk) -> None:
    data = os.urandom(512)
    assert disk.ask(spec.T_OUT, SECTORS - 1, data)[0] == spec.S_OK
    assert disk.ask(spec.T_IN, SECTORS - 1, room=[512]) == (spec.S_OK, data)


def test_how_bytes_are_spread_over_descriptors_means_nothing(disk: Disk) -> None:
    """§2.7.4.3: header, data and status may be cut anywhere."""
    data = os.urandom(1024)
    whole = header(spec.T_OUT, 2) + data
    cut = [whole[:3], whole[3:17], whole[17:18], whole[18:600], whole[600:]]
    assert disk.request(cut, [1]).data == [b"\0"]
    used = disk.request([header(spec.T_IN, 2)[:5], header(spec.T_IN, 2)[5:]], [1, 500, 524])
    assert b"".join(used.data) == data + b"\0"
    assert used.length == 1025


def test_indirect_descriptors_serve_as_well(disk: Disk) -> None:
    disk.drivers[0].add([header(spec.T_IN, 1)], [4096, 1], indirect=True)
    (used,) = disk.run()
    assert used.data == [disk.path.read_bytes()[512 : 512 + 4096], b"\0"]


def test_a_flush_makes_data_stable(disk: Disk) -> None:
    assert disk.ask(spec.T_FLUSH) == (spec.S_OK, b"")
    assert disk.device.counters["syncs"] == 1


def test_one_fdatasync_serves_all_flushes_of_a_batch(disk: Disk) -> None:
    for sector in range(5):
        disk.drivers[0].add([header(spec.T_OUT, sector), bytes(512)], [1])
        disk.drivers[0].add([header(spec.T_FLUSH)], [1])
    assert [used.data[-1] for used in disk.run()] == [b"\0"] * 10
    assert disk.device.counters["flushes"] == 5
    assert disk.device.counters["syncs"] == 1


def test_get_id_returns_the_serial_in_twenty_bytes(image: Path) -> None:
    with Disk(image, serial="a serial") as disk:
        disk.activate()
        assert disk.ask(spec.T_GET_ID, room=[20]) == (spec.S_OK, b"a serial".ljust(20, b"\0"))
        assert disk.ask(spec.T_GET_ID, room=[4]) == (spec.S_OK, b"a se")
        assert disk.ask(spec.T_GET_ID, room=[32]) == (spec.S_OK, b"a serial".ljust(32, b"\0"))


def test_discard_reads_as_zeroes_and_frees_space(disk: Disk) -> None:
    assert disk.device.features & spec.F_DISCARD
    os.sync()
    blocks = disk.path.stat().st_blocks
    status, _ = disk.ask(spec.T_DISCARD, data=ranges((0, 64, 0), (128, 64, 0)))
    assert status == spec.S_OK
    assert disk.path.read_bytes()[: 64 * 512] == bytes(64 * 512)
    assert any(disk.path.read_bytes()[64 * 512 : 128 * 512])
    assert disk.path.read_bytes()[128 * 512 : 192 * 512] == bytes(64 * 512)
    assert disk.path.stat().st_blocks < blocks
    assert disk.path.stat().st_size == SECTORS * 512


@pytest.mark.parametrize("flags", [0, spec.RANGE_FLAG_UNMAP])
def test_write_zeroes_leaves_zeroes_with_and_without_unmap(disk: Disk, flags: int) -> None:
    before = disk.path.read_bytes()
    assert disk.ask(spec.T_WRITE_ZEROES, data=ranges((5, 3, flags)))[0] == spec.S_OK
    assert disk.path.read_bytes() == before[: 5 * 512] + bytes(3 * 512) + before[8 * 512 :]
    assert disk.device.counters["write_zeroes"] == 1


def test_requests_come_back_in_order(disk: Disk) -> None:
    heads = [disk.drivers[0].add([header(spec.T_IN, k)], [512, 1]) for k in range(16)]
    assert [used.head for used in disk.run()] == heads
    assert disk.notified == [0]


def test_the_driver_is_notified_only_if_it_asked(disk: Disk) -> None:
    disk.drivers[0].want_interrupts(True, after=3)
    disk.notified.clear()
    for expected in ([], [], [0]):
        disk.drivers[0].add([header(spec.T_FLUSH)], [1])
        if disk.drivers[0].kick():
            disk.device.kick(0)
        assert disk.notified == expected


def test_an_empty_read_is_served(disk: Disk) -> None:
    assert disk.ask(spec.T_IN, 1) == (spec.S_OK, b"")


def test_more_requests_than_one_wake_up_serves_are_not_forgotten(image: Path) -> None:
    """A driver that keeps the queue full from within its interrupt handler still gets every answer."""
    with Disk(image, size=4) as disk:
        disk.activate()
        served = 0

        def refill(_: int) -> None:
            nonlocal served
            served += len(disk.drivers[0].used())
            if served < 60:
                disk.drivers[0].add([header(spec.T_IN, 1)], [512, 1])
                disk.drivers[0].kick()

        disk.device.activate(disk.drivers[0].features, disk.queues, refill)
        disk.drivers[0].add([header(spec.T_IN, 1)], [512, 1])
        disk.drivers[0].kick()
        disk.device.kick(0)
        assert 0 < served < 60
        disk.poll()
        assert served == 60


# --- cache mode, §5.2.5.2 ---


def test_without_flush_every_write_is_stable_before_it_is_used(image: Path) -> None:
    with Disk(image) as disk:
        disk.activate(disk.device.features & ~(spec.F_FLUSH | spec.F_CONFIG_WCE))
        assert disk.device.config()[spec.CONFIG_WRITEBACK] == 0
        assert disk.changes == 1
        for sector in range(3):
            disk.drivers[0].add([header(spec.T_OUT, sector), bytes(512)], [1])
        assert len(disk.run()) == 3
        assert disk.device.counters["syncs"] == 1


def test_the_driver_can_switch_to_write_through_and_back(image: Path) -> None:
    with Disk(image) as disk:
        disk.activate()
        assert disk.device.config()[spec.CONFIG_WRITEBACK] == 1
        assert disk.changes == 0
        assert disk.device.write_config(spec.CONFIG_WRITEBACK, b"\0")
        assert disk.device.counters["syncs"] == 1
        assert disk.ask(spec.T_OUT, 0, bytes(512))[0] == spec.S_OK
        assert disk.device.counters["syncs"] == 2
        assert disk.device.write_config(spec.CONFIG_WRITEBACK, b"\1")
        assert disk.ask(spec.T_OUT, 0, bytes(512))[0] == spec.S_OK
        assert disk.device.counters["syncs"] == 2


@pytest.mark.parametrize(
    ("offset", "data"), [(0, b"\1"), (32, b"\2"), (32, b"\1\1"), (31, b"\0"), (4096, b"\0")]
)
def test_nothing_else_in_the_configuration_can_be_written(image: Path, offset: int, data: bytes) -> None:
    with Disk(image) as disk:
        disk.activate()
        before = disk.device.config()
        assert not disk.device.write_config(offset, data)
        assert disk.device.config() == before


def test_configuration_space_has_the_layout_of_the_specification(image: Path) -> None:
    with Disk(image) as disk:
        config = disk.device.config()
        assert len(config) == 60
        assert struct.unpack_from("<QII", config) == (SECTORS, 28 << 10, 126)
        assert struct.unpack_from("<I", config, 0x14) == (512,)
        assert struct.unpack_from("<H", config, 0x22) == (1,)
        assert struct.unpack_from("<III", config, 0x24) == (1 << 22, 16, image.stat().st_blksize // 512)
        assert struct.unpack_from("<IIB", config, 0x30) == (1 << 16, 16, 1)
