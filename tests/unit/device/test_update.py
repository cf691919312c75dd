"""What can change of a device while it serves: a disk's size (virtio 1.3 §5.2.4), a NIC's link (§5.1.4.2)."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.device.net_rig import MAC, RX, TX, Nic, SocketLink, frame, header
from tests.unit.device.test_block_requests import Disk
from xenvirtio.device.block.config import BlockConfig
from xenvirtio.device.block.state import BlockDevice
from xenvirtio.device.net.config import NetConfig
from xenvirtio.device.net.state import NetDevice
from xenvirtio.errors import UsageError
from xenvirtio.spec import block as spec
from xenvirtio.testing.guest import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECTOR = spec.SECTOR_SIZE
SECTORS = 64
PORT = {"mac": "00:16:3e:01:02:03"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(SECTORS * SECTOR))
    return path


@pytest.fixture(params=list(KINDS))
def disk(image: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    with Disk(image, request.param) as rig:
        rig.activate()
        rig.changes = 0
        yield rig


def capacity(device: BlockDevice) -> int:
    return int(struct.unpack_from("<Q", device.config())[0])


def update(disk: Disk, size: int | None) -> None:
    settings = {"path": str(disk.path)} | ({} if size is None else {"size": str(size)})
    disk.device.update(settings)


def sectors(disk: Disk) -> int:
    assert isinstance(disk.device, BlockDevice)
    return capacity(disk.device)


def test_a_disk_grows_with_its_image_and_the_driver_is_told_once(disk: Disk) -> None:
    assert disk.ask(spec.T_IN, SECTORS, room=[SECTOR])[0] == spec.S_IOERR
    os.truncate(disk.path, 2 * SECTORS * SECTOR)
    assert sectors(disk) == SECTORS, "nothing changes before it is said"
    update(disk, 2 * SECTORS * SECTOR)
    update(disk, 2 * SECTORS * SECTOR)
    assert (sectors(disk), disk.changes) == (2 * SECTORS, 1)
    data = os.urandom(SECTOR)
    assert disk.ask(spec.T_OUT, 2 * SECTORS - 1, data)[0] == spec.S_OK
    assert disk.path.read_bytes()[-SECTOR:] == data


def test_without_a_size_the_disk_ends_where_its_image_does(disk: Disk) -> None:
    os.truncate(disk.path, 3 * SECTORS * SECTOR)
    update(disk, None)
    assert sectors(disk) == 3 * SECTORS


def test_beyond_the_end_of_a_disk_that_shrank_is_an_io_error(disk: Disk) -> None:
    update(disk, SECTOR * SECTORS // 2)
    before = disk.path.read_bytes()
    assert (sectors(disk), disk.changes) == (SECTORS // 2, 1)
    for kind, data, room in ((spec.T_IN, b"", [SECTOR]), (spec.T_OUT, bytes(SECTOR), [])):
        assert disk.ask(kind, SECTORS // 2, data, room)[0] == spec.S_IOERR
        assert disk.ask(kind, SECTORS // 2 - 1, data, room)[0] == spec.S_OK
    zeroes = struct.pack("<QII", SECTORS // 2 - 1, 2, 0)
    assert disk.ask(spec.T_WRITE_ZEROES, data=zeroes)[0] == spec.S_IOERR
    kept = SECTOR * (SECTORS // 2)
    assert disk.path.read_bytes()[kept:] == before[kept:], "what is behind the end stays"


def test_requests_that_wait_in_the_ring_meet_the_new_end(disk: Disk) -> None:
    """In flight is nothing while the size changes: what was taken before is done."""
    driver = disk.drivers[0]
    header_ = struct.pack("<IIQ", spec.T_IN, 0, SECTORS - 1)
    driver.add([header_], [SECTOR, 1])
    update(disk, SECTOR * SECTORS // 2)
    os.truncate(disk.path, SECTOR * SECTORS // 2)
    (used,) = disk.run()
    assert used.data[-1] == bytes([spec.S_IOERR])


@pytest.mark.parametrize("size", ["0", "513", "-512", "1k", "", "9" * 30])
def test_a_size_that_is_none_is_refused_and_changes_nothing(disk: Disk, size: str) -> None:
    with pytest.raises(UsageError, match="size"):
        disk.device.update({"size": size})
    assert (sectors(disk), disk.changes) == (SECTORS, 0)


def test_a_disk_does_not_end_behind_its_image(disk: Disk) -> None:
    with pytest.raises(UsageError, match=f"it ends at {SECTORS * SECTOR} bytes"):
        update(disk, (SECTORS + 1) * SECTOR)
    assert (sectors(disk), disk.changes) == (SECTORS, 0)


def test_a_disk_made_with_a_size_has_it_and_keeps_what_is_behind_it(image: Path) -> None:
    """As a worker does that was restarted between the disk's shrinking and the image's."""
    before = image.read_bytes()
    device = BlockDevice(BlockConfig.from_settings({"path": str(image), "size": str(SECTOR)}, "vda"))
    assert capacity(device) == 1
    device.close()
    assert image.read_bytes() == before
    short = BlockDevice(BlockConfig.from_settings({"path": str(image), "size": str(1 << 30)}, "vda"))
    assert capacity(short) == SECTORS
    short.close()


# --- NICs ---


@pytest.fixture(params=list(KINDS))
def nic(request: pytest.FixtureRequest) -> Iterator[Nic]:
    with Nic(request.param) as rig:
        rig.activate()
        rig.changes = 0
        yield rig


def test_a_link_that_is_down_carries_nothing(nic: Nic) -> None:
    nic.offer(200, 200)
    nic.poll()
    nic.device.update({**PORT, "link": "down"})
    nic.device.update({**PORT, "link": "down"})
    assert (nic.device.config()[6], nic.changes, nic.link.carrier) == (0, 1, False)
    nic.arrive(frame(60))
    assert nic.received() == []
    nic.request([header(), frame(60)], [], TX)
    assert nic.sent() == []
    assert nic.device.counters["tx_dropped"] == 1


def test_a_link_that_comes_up_carries_what_comes_from_then_on(nic: Nic) -> None:
    nic.offer(200, 200)
    nic.poll()
    nic.device.update({**PORT, "link": "down"})
    nic.arrive(frame(60))
    nic.device.update(PORT)
    assert (nic.device.config()[6], nic.changes, nic.link.carrier) == (1, 2, True)
    wanted = frame(60)
    nic.arrive(wanted)
    (got,) = nic.received()
    assert got[12:] == wanted
    nic.request([header(), frame(60)], [], TX)
    assert len(nic.sent()) == 1


def test_a_link_stays_down_over_a_reset(nic: Nic) -> None:
    nic.device.update({**PORT, "link": "down"})
    nic.reset()
    nic.activate()
    nic.offer(200)
    nic.arrive(frame(60))
    assert nic.received() == []
    assert nic.device.config()[6] == 0
    assert nic.drivers[RX].used_idx == 0


def test_a_nic_made_with_its_link_down_starts_so() -> None:
    link = SocketLink()
    device = NetDevice(NetConfig.from_settings({**PORT, "link": "down"}, "eth0", "vif1.0"), link)
    assert device.config() == MAC + struct.pack("<HHH", 0, 1, 1500)
    assert not link.carrier
    device.close()


def test_a_link_is_up_or_down(nic: Nic) -> None:
    with pytest.raises(UsageError, match="link is 'sideways'"):
        nic.device.update({**PORT, "link": "sideways"})
    assert nic.changes == 0
