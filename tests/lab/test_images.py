"""What a virtio disk may be on, and who else may use it: block devices, locks that QEMU sees and keeps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import DISK_APPEARS, GRANT_ONLY, MIB, create_each, make_image, md5_in_dom0
from xenvirtio.lab.guest import Disk, GuestConfig, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.lab_rig import GuestMaker
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Guest

PART = 8 * MIB


@pytest.fixture
def loop_device(lab: Lab) -> Iterator[str]:
    """A block device of 64 MiB in dom0."""
    image = make_image(lab, "/root/block.img", 64 * MIB)
    device = lab.run(["losetup", "--find", "--show", image]).check().stdout.strip()
    yield device
    lab.run(["losetup", "--detach", device]).check()


def test_a_disk_on_a_block_device_holds_what_the_guest_writes(
    lab: Lab, guests: GuestMaker, loop_device: str
) -> None:
    guest = guests.create(GuestConfig("on-block", disks=(Disk(loop_device),)))
    guest.run(DISK_APPEARS, timeout=60)
    assert int(guest.sysfs("block/vda/size")) * 512 == 64 * MIB
    guest.run(f"head -c {PART} /dev/urandom >/tmp/data", timeout=90)
    wanted = guest.run("md5sum </tmp/data", timeout=60).output.split()[0]
    guest.run("dd if=/tmp/data of=/dev/vda bs=1M seek=16 conv=notrunc,fsync", timeout=120)
    assert md5_in_dom0(lab, loop_device, 16 * MIB, PART) == wanted
    guest.run("blkdiscard -o 16777216 -l 8388608 /dev/vda", timeout=60)
    guest.shutdown()
    zeroes = f"dd if=/dev/zero bs=1M count={PART // MIB} status=none | md5sum"
    assert md5_in_dom0(lab, loop_device, 16 * MIB, PART) == lab.run(zeroes).stdout.split()[0]


@GRANT_ONLY
@pytest.mark.parametrize(
    "command", ["qemu-io -f raw -c 'write 0 4k' {}", "qemu-img convert -f raw -O raw {} /tmp/copy.img"]
)
def test_qemu_finds_the_image_of_a_running_guest_locked(guest: Guest, lab: Lab, command: str) -> None:
    done = lab.run(command.format(_image(guest)))
    assert done.returncode != 0
    assert re.search('Failed to get (shared )?"write" lock', done.stdout + done.stderr), done


@GRANT_ONLY
def test_qemu_may_read_what_a_guest_only_reads(guest: Guest, lab: Lab) -> None:
    tools = guest.config.disks[1].path
    lab.run(["qemu-io", "-f", "raw", "-r", "-c", "read 0 4k", tools]).check()
    assert lab.run(["qemu-io", "-f", "raw", "-c", "write 0 4k", tools]).returncode != 0


@GRANT_ONLY
@pytest.mark.parametrize("writable", [True, False])
def test_an_image_that_a_guest_writes_is_refused_to_another(guest: Guest, lab: Lab, writable: bool) -> None:
    done = start(lab, GuestConfig("second", disks=(Disk(_image(guest), writable=writable),)))
    assert done.returncode == 2, done
    assert "vda" in done.stderr
    assert "in use" in done.stderr
    assert "try:" in done.stderr


#: an entry of disk=[…] → what is said, and advised
REFUSED_DISKS = {
    "format=qcow2, vdev=vda": ("format qcow2 is not served", "qemu-nbd --connect"),
    "format=vhd, vdev=vda": ("format vhd is not served", "qemu-img convert -f vpc"),
    "vdev=vda, script=block-x": ("block scripts are not run", "name its path"),
    "vdev=vda, backend=driver": ("served by this domain only", "xenvirtio or qemu"),
    "vdev=vda, devtype=cdrom": ("no CD-ROM drives", "access=ro"),
}
REFUSED_NICS = ("script=vif-route", "ip=10.0.0.2", "rate=1Mb/s", "backend=driver", "vlan=7")


def test_what_a_virtio_disk_cannot_be_is_refused_with_advice(lab: Lab) -> None:
    settings = [{"disk": f"[ '{entry}, target=/root/any.img' ]"} for entry in REFUSED_DISKS]
    answers = create_each(lab, [GuestConfig("refused", settings=each) for each in settings])
    for (words, hint), done in zip(REFUSED_DISKS.values(), answers, strict=True):
        assert done.returncode == 2, done
        assert words in done.stderr
        assert hint in done.stderr


def test_what_a_virtio_nic_cannot_be_is_refused_with_advice(lab: Lab) -> None:
    settings = [{"vif": f"[ 'model=virtio,{key}' ]"} for key in REFUSED_NICS]
    answers = create_each(lab, [GuestConfig("refused", settings=each) for each in settings])
    for key, done in zip(REFUSED_NICS, answers, strict=True):
        assert done.returncode == 2, done
        assert f"{key.partition('=')[0]}= is refused" in done.stderr
        assert "try:" in done.stderr


def _image(guest: Guest) -> str:
    return guest.config.disks[0].path
