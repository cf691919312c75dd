"""Serving requests takes no memory for good, whatever the way to the guest's memory."""

from __future__ import annotations

import gc
import struct
from typing import TYPE_CHECKING

import pytest

from tests.unit.device.device_rig import Rig
from xenvirtio.device.factory import make_device
from xenvirtio.spec import block
from xenvirtio.testing.guest import ForeignGuest, GrantGuest, RegionGuest

if TYPE_CHECKING:
    from pathlib import Path

DISK = 2
ROUNDS = 100
#: resident pages that may come and stay: the allocator's
PAGES = 128


def resident() -> int:
    """Pages of this process."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


@pytest.mark.parametrize("guest", [RegionGuest, GrantGuest, ForeignGuest])
def test_a_disk_that_serves_does_not_grow(
    tmp_path: Path, guest: type[RegionGuest | GrantGuest | ForeignGuest]
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    device = make_device(DISK, {"path": str(image), "vdev": "vda", "mode": "w"})
    with Rig(device, guest(256)) as rig:
        rig.activate()
        driver = rig.drivers[0]

        def serve() -> None:
            for number in range(ROUNDS):
                for sector in range(number, number + 8):
                    kind = block.T_OUT if sector % 2 else block.T_IN
                    header = struct.pack("<IIQ", kind, 0, sector)
                    if kind == block.T_OUT:
                        driver.add([header, bytes([number]) * 4096], [1])
                    else:
                        driver.add([header], [4096, 1])
                assert [used.data[-1][-1] for used in rig.run()] == [block.S_OK] * 8
                rig.notified.clear()

        serve()
        before, objects = resident(), len(gc.get_objects())
        for _ in range(4):
            serve()
        assert resident() - before <= PAGES
        assert len(gc.get_objects()) - objects <= 8
