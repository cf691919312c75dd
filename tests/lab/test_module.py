"""The guest module virtio_xenbus loads, unloads and loads again under its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import ADDRESS, DISK_APPEARS, MIB, device_of, md5_in_dom0

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend, Guest


#: ends with status 1 if a device stays bound: the kernel keeps the module while one is
UNBIND = (
    "cd /sys/bus/xen/drivers/virtio_xenbus && for d in virtio-*; do echo $d >unbind; done; "
    "cd /; ! ls -d /sys/bus/xen/drivers/virtio_xenbus/virtio-* 2>/dev/null"
)


@pytest.fixture(scope="module", autouse=True)
def _as_it_was(guest: Guest) -> Iterator[None]:
    """Other tests use this guest: its tools and its address come back."""
    yield
    guest.mount_tools()
    guest.run(f"ip address add {ADDRESS} dev eth0 2>/dev/null; ip link set eth0 up")


def test_unloaded_and_loaded_again_the_devices_work(guest: Guest, backend: Backend, lab: Lab) -> None:
    guest.run("umount /tools 2>/dev/null; true")
    guest.run(UNBIND, timeout=60)
    assert guest.run("ls /sys/block | grep -c vd", check=False).output.strip() == "0"
    assert guest.run("ls -d /sys/class/net/eth0", check=False).status != 0
    guest.run("rmmod virtio_xenbus", timeout=60)
    assert "virtio_xenbus" not in guest.run("cat /proc/modules").output
    guest.run(
        f"modprobe virtio_xenbus memory_access={guest.config.memory_access}; {DISK_APPEARS}", timeout=60
    )
    guest.run("head -c 4194304 /dev/urandom >/tmp/data", timeout=60)
    wanted = guest.run("md5sum </tmp/data").output.split()[0]
    guest.run("dd if=/tmp/data of=/dev/vda bs=1M conv=notrunc,fsync; rm /tmp/data", timeout=90)
    assert md5_in_dom0(lab, guest.config.disks[0].path, 0, 4 * MIB) == wanted
    assert device_of(backend, guest.name, "vda")["state"] == "connected"


def test_a_disk_unbound_from_its_driver_and_bound_again_works(guest: Guest) -> None:
    guest.run(
        "set -e; device=$(basename $(readlink -f /sys/block/vda/device)); "
        "cd /sys/bus/virtio/drivers/virtio_blk; echo $device >unbind; "
        "if [ -e /sys/block/vda ]; then echo 'vda is still there'; exit 1; fi; "
        f"echo $device >bind; {DISK_APPEARS}; dd if=/dev/vda of=/dev/null bs=1M count=4",
        timeout=90,
    )


def test_nothing_in_the_kernels_log_tells_of_trouble(guest: Guest) -> None:
    """Last in this module: after all that the tests before did."""
    trouble = "BUG|WARNING|Oops|Call Trace|general protection|hung task|refcount"
    assert guest.run(f"dmesg | grep -E '{trouble}'", check=False).output == ""
