"""Data outlives its guest, and a guest leaves nothing behind, however it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import DISK_APPEARS, MIB, GuestMaker, md5_in_dom0, traces, traces_after, usual_config
from xenvirtio.lab.guest import Guest
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from xenvirtio.lab import Lab


def test_data_is_there_after_the_guest_was_shut_down_and_started_again(guests: GuestMaker, lab: Lab) -> None:
    before = traces(lab)
    config = usual_config(lab, "again", MemoryAccess.FOREIGN)
    with Guest.create(lab, config) as guest:
        guest.run("head -c 8388608 /dev/urandom >/tmp/data", timeout=60)
        wanted = guest.run("md5sum </tmp/data").output.split()[0]
        guest.run("dd if=/tmp/data of=/dev/vda bs=1M seek=8 conv=notrunc", timeout=90)
        guest.shutdown()
    assert traces_after(lab, before) == before
    assert md5_in_dom0(lab, config.disks[0].path, 8 * MIB, 8 * MIB) == wanted
    again = guests.create(config)
    read = again.run("dd if=/dev/vda bs=1M skip=8 count=8 2>/dev/null | md5sum", timeout=90)
    assert read.output.split()[0] == wanted


@pytest.mark.parametrize(
    ("command", "mode"),
    [("xl destroy", MemoryAccess.GRANT), ("xenvirtio destroy", MemoryAccess.FOREIGN)],
)
def test_a_guest_destroyed_in_mid_io_leaves_nothing(
    guests: GuestMaker, lab: Lab, mode: str, command: str
) -> None:
    before = traces(lab)
    guest = guests.create(usual_config(lab, f"k-{mode}", mode))
    guest.run(
        "for i in 1 2 3 4; do "
        "(while :; do dd if=/dev/zero of=/dev/vda bs=256k seek=$((i * 64)) count=64 conv=fsync; done) "
        ">/dev/null 2>&1 & done; ping -i 0.2 10.77.0.1 >/dev/null 2>&1 & sleep 1"
    )
    start = time.monotonic()
    lab.run(f"{command} {guest.name}", timeout=60).check()
    assert traces_after(lab, before) == before, f"after {time.monotonic() - start:.1f} s"
    # nobody has the image any more
    path = guest.config.disks[0].path
    lab.run(["qemu-io", "-f", "raw", "-c", "read 0 4k", path]).check()
    lab.run(["qemu-io", "-f", "raw", "-c", "write 0 4k", path]).check()


def test_a_guest_that_reboots_keeps_its_devices(guests: GuestMaker, lab: Lab) -> None:
    guest = guests.create(usual_config(lab, "reboots", MemoryAccess.GRANT))
    first = guest.domid()
    guest.run("head -c 1048576 /dev/urandom | dd of=/dev/vda bs=1M conv=notrunc,fsync")
    wanted = guest.run("dd if=/dev/vda bs=1M count=1 2>/dev/null | md5sum").output
    lab.run(["xl", "reboot", guest.name]).check()
    guest.wait_restarted(first)
    guest.run(DISK_APPEARS, timeout=60)
    assert guest.run("dd if=/dev/vda bs=1M count=1 2>/dev/null | md5sum").output == wanted
