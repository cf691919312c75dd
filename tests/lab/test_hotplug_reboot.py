"""What is attached to stay is there after the guest's reboot; what is not, is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import (
    HOT,
    HOT_MIB,
    MIB,
    GuestMaker,
    entry,
    make_image,
    until,
    xenvirtio,
)
from xenvirtio.lab.guest import Disk, Guest, GuestConfig, Nic

if TYPE_CHECKING:
    from xenvirtio.lab import Lab


@pytest.fixture
def image(lab: Lab) -> str:
    return make_image(lab, HOT, HOT_MIB * MIB)


def test_what_is_to_stay_is_there_after_the_guest_s_reboot(guests: GuestMaker, lab: Lab, image: str) -> None:
    other = make_image(lab, "/root/other.img", 16 * MIB)
    disk = make_image(lab, "/root/stay.img", 32 * MIB)
    guest = guests.create(GuestConfig("stays", disks=(Disk(disk),), nics=(Nic(),)))
    xenvirtio(lab, "attach", guest.name, entry("vdb"), "--persist").check()
    xenvirtio(lab, "attach", guest.name, entry("vdc", path=other)).check()
    xenvirtio(lab, "link", guest.name, "eth0", "down", "--persist").check()
    guest.run("dd if=/dev/urandom of=/dev/vdb bs=1M count=1 conv=notrunc,fsync", timeout=60)
    wanted = guest.run("dd if=/dev/vdb bs=1M count=1 2>/dev/null | md5sum").output
    reboot(guest, lab)
    until(guest, "[ -b /dev/vdb ]")
    assert guest.run("dd if=/dev/vdb bs=1M count=1 2>/dev/null | md5sum").output == wanted
    assert guest.run("ls /sys/block").output.split() == ["vda", "vdb"]
    guest.run("ip link set eth0 up")
    assert guest.sysfs("class/net/eth0/carrier") == "0"
    xenvirtio(lab, "detach", guest.name, "vdb", "--persist").check()
    reboot(guest, lab)
    until(guest, "[ -b /dev/vda ]")
    assert guest.run("ls /sys/block").output.split() == ["vda"]
    assert image


def reboot(guest: Guest, lab: Lab) -> None:
    first = guest.domid()
    lab.run(["xl", "reboot", guest.name]).check()
    guest.wait_restarted(first)
