"""A virtio disk over XenBus, in both memory-access modes (virtio 1.3 §5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.lab.lab_rig import DISK_BYTES, MIB, device_of, md5_in_dom0

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend, Guest

PART = 8 * MIB


def test_the_guest_sees_the_disk_and_its_size(guest: Guest) -> None:
    assert int(guest.sysfs("block/vda/size")) * 512 == DISK_BYTES
    assert guest.sysfs("block/vda/ro") == "0"
    assert "virtio_blk" in guest.run("readlink /sys/block/vda/device/driver").output


def test_virtio_1_and_access_platform_are_negotiated(guest: Guest) -> None:
    features = guest.sysfs("block/vda/device/features")  # one character a bit, bit 0 first
    assert (features[32], features[33]) == ("1", "1")


def test_what_the_guest_writes_is_in_the_image_and_reads_back(guest: Guest, lab: Lab) -> None:
    guest.run(f"head -c {PART} /dev/urandom >/tmp/data", timeout=90)
    wanted = guest.run("md5sum </tmp/data", timeout=60).output.split()[0]
    guest.run("dd if=/tmp/data of=/dev/vda bs=1M seek=32 conv=notrunc,fsync; rm /tmp/data", timeout=120)
    assert md5_in_dom0(lab, guest.config.disks[0].path, 32 * MIB, PART) == wanted
    guest.run("echo 3 >/proc/sys/vm/drop_caches")
    read = guest.run("dd if=/dev/vda bs=1M skip=32 count=8 2>/dev/null | md5sum", timeout=120)
    assert read.output.split()[0] == wanted


def test_what_dom0_writes_the_guest_reads(guest: Guest, lab: Lab) -> None:
    path = guest.config.disks[0].path
    lab.run(f"dd if=/dev/urandom of={path} bs=1M seek=96 count=8 conv=notrunc status=none").check()
    guest.run("blockdev --flushbufs /dev/vda; echo 3 >/proc/sys/vm/drop_caches")
    read = guest.run("dd if=/dev/vda bs=1M skip=96 count=8 2>/dev/null | md5sum", timeout=120)
    assert read.output.split()[0] == md5_in_dom0(lab, path, 96 * MIB, PART)


def test_the_last_sector_is_there_and_the_one_after_it_is_not(guest: Guest) -> None:
    last = DISK_BYTES // 512 - 1
    guest.run(f"dd if=/dev/zero of=/dev/vda bs=512 seek={last} count=1 conv=notrunc,fsync")
    beyond = guest.run(f"dd if=/dev/vda bs=512 skip={last} count=2 2>/dev/null | wc -c")
    assert beyond.output.split() == ["512"]


def test_a_file_system_can_be_made_used_and_checked(guest: Guest) -> None:
    guest.run("mkfs.ext4 -q -F /dev/vda 128M", timeout=120)
    guest.run("mount -t ext4 /dev/vda /mnt && cp /bin/busybox /mnt/copy && umount /mnt", timeout=60)
    guest.run("e2fsck -f -n /dev/vda", timeout=120)
    compared = guest.run(
        "mount -t ext4 -o ro /dev/vda /mnt; cmp /mnt/copy /bin/busybox; echo $?; umount /mnt", timeout=60
    )
    assert compared.output.split() == ["0"]


def test_a_read_only_disk_takes_no_writes(guest: Guest, lab: Lab) -> None:
    assert guest.sysfs("block/vdb/ro") == "1"
    tools = guest.config.disks[1].path
    before = md5_in_dom0(lab, tools, 0, MIB)
    assert guest.run("dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync", check=False).status != 0
    assert md5_in_dom0(lab, tools, 0, MIB) == before


def test_discarded_blocks_are_given_back_and_read_as_zeroes(guest: Guest, lab: Lab) -> None:
    path = guest.config.disks[0].path
    guest.run("dd if=/dev/urandom of=/dev/vda bs=1M seek=200 count=8 conv=notrunc,fsync", timeout=120)
    allocated = int(lab.run(["stat", "-c", "%b", path]).check().stdout)
    guest.run(f"blkdiscard -o {200 * MIB} -l {PART} /dev/vda")
    after = int(lab.run(["stat", "-c", "%b", path]).check().stdout)
    assert allocated - after >= PART // 512
    zeroes = f"dd if=/dev/zero bs=1M count={PART // MIB} status=none | md5sum"
    assert md5_in_dom0(lab, path, 200 * MIB, PART) == lab.run(zeroes).stdout.split()[0]


def test_zeroed_blocks_are_zeroes_in_the_image(guest: Guest, lab: Lab, backend: Backend) -> None:
    path = guest.config.disks[0].path
    before = zeroings(backend, guest)
    guest.run("dd if=/dev/urandom of=/dev/vda bs=1M seek=220 count=8 conv=notrunc,fsync", timeout=120)
    guest.run(f"zeroout --offset {220 * MIB} --length {PART} /dev/vda")
    assert zeroings(backend, guest) > before
    zeroes = f"dd if=/dev/zero bs=1M count={PART // MIB} status=none | md5sum"
    assert md5_in_dom0(lab, path, 220 * MIB, PART) == lab.run(zeroes).stdout.split()[0]


def zeroings(backend: Backend, guest: Guest) -> int:
    """Requests of VIRTIO_BLK_T_WRITE_ZEROES so far."""
    counters: Any = device_of(backend, guest.name, "vda")["counters"]
    return int(counters["write_zeroes"])


def test_the_disk_has_a_serial_number(guest: Guest) -> None:
    assert guest.sysfs("block/vda/serial") != ""
    assert guest.sysfs("block/vda/serial") != guest.sysfs("block/vdb/serial")
