"""The guest module virtio_xenbus loads, unloads and loads again under its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import DISK_APPEARS, DISK_BYTES, GRANT_ONLY, MIB, device_of, md5_in_dom0

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
    guest.run(f"ip address add {guest.config.address} dev eth0 2>/dev/null; ip link set eth0 up")


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


#: takes the guest's devices and all of their modules away
UNLOAD = f"""
umount /tools 2>/dev/null
{UNBIND} || exit 1
rmmod virtio_xenbus virtio_net net_failover failover virtio_blk virtio_ring virtio 2>/dev/null
! grep -E "^(virtio_xenbus|virtio_net|virtio_blk) " /proc/modules
"""
#: as a uevent's handler does for each device that appears, for at most 30 s until all are there
LOAD_BY_ALIAS = """
n=0
until [ -b /dev/vda ] && [ -e /sys/class/net/eth0 ]; do
    for alias in $(cat /sys/bus/xen/devices/*/modalias /sys/bus/virtio/devices/*/modalias 2>/dev/null); do
        modprobe -q "$alias"
    done
    n=$((n + 1)); [ $n -lt 60 ] || exit 1; sleep 0.5
done
"""
#: as guest/linux/README.md has it; what is built in, or comes with another, has no file
LOAD_BY_HAND = f"""
cd /lib/modules/*/
for name in virtio virtio_ring virtio_xenbus virtio_blk failover net_failover virtio_net; do
    [ ! -e $name.ko ] || insmod ./$name.ko || exit 1
done
{DISK_APPEARS}
[ -e /sys/class/net/eth0 ]
"""


@GRANT_ONLY
def test_with_depmods_data_the_modules_load_by_their_devices_aliases(guest: Guest, backend: Backend) -> None:
    """No module is named: depmod's tables, and the alias that each device shows."""
    guest.run(UNLOAD, timeout=90)
    guest.run(
        "depmod -a && grep -q '^alias xen:virtio virtio_xenbus$' /lib/modules/*/modules.alias", timeout=60
    )
    guest.run(LOAD_BY_ALIAS, timeout=90)
    loaded = guest.run("cut -d' ' -f1 /proc/modules").output.split()
    assert {"virtio_xenbus", "virtio_blk", "virtio_net"} <= set(loaded)
    assert device_of(backend, guest.name, "vda")["state"] == "connected"
    assert guest.sysfs("bus/xen/devices/virtio-0/modalias") == "xen:virtio"


@GRANT_ONLY
def test_by_hand_the_modules_load_in_the_documented_order(guest: Guest, backend: Backend) -> None:
    guest.run(UNLOAD, timeout=90)
    guest.run(LOAD_BY_HAND, timeout=90)
    assert device_of(backend, guest.name, "vda")["state"] == "connected"
    assert device_of(backend, guest.name, "eth0")["state"] == "connected"


def test_nothing_leaks_over_loads(guest: Guest) -> None:
    """Grants, event channels and kernel memory are the same after more rounds; disks have their names."""
    # KiB free, with what the CPUs' free lists hold, and slab: at their best within 4 s, as RCU frees late
    look = (
        "cat /sys/bus/xen/devices/virtio-0/grants_in_use /sys/bus/xen/devices/virtio-0/grants_held; "
        "grep -c xen-dyn /proc/interrupts; "
        "for n in 1 2 3 4; do sleep 1; echo 3 >/proc/sys/vm/drop_caches; "
        "cat /proc/zoneinfo /proc/meminfo; done | "
        "awk '/^ +count:/ { listed += 4 * $2 } "
        "/^MemFree:/ { if ($2 + listed > free) free = $2 + listed; listed = 0 } "
        "/^Slab:/ && (!slab || $2 < slab) { slab = $2 } END { print free, slab }'"
    )
    again = (
        f"{UNLOAD}\nmodprobe virtio_blk; modprobe virtio_net; modprobe virtio_xenbus; {DISK_APPEARS}\n"
        f"[ $(cat /sys/block/vda/size) = {DISK_BYTES // 512} ]"  # never vdb first
    )
    figures = []
    for rounds in (1, 6):
        for _ in range(rounds):
            guest.run(again, timeout=120)
        figures.append([int(number) for number in guest.run(look).output.split()])
    (*before, free, slab), (*after, free_after, slab_after) = figures
    assert after == before
    # KiB; noise is below 100, a ring that stays at each load would be 240
    assert free - free_after < 200
    assert slab_after - slab < 200


@GRANT_ONLY
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
