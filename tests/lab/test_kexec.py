"""A PVH guest gives way to another kernel (kexec): the same domain, with its devices and data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import DISK_APPEARS, MIB, GuestMaker, make_image, wait_for_address
from xenvirtio.lab.guest import Disk, GuestConfig, Nic

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend

SOURCE = Path(__file__).parent / "kexec/kexec.c"
FOLDER = "/root/kexec"
LOG = "/var/log/xenvirtio/kexec.log"
#: a tar on a disk: the program, the kernel and the initramfs that it names
_BUILD = f"""
cd {FOLDER}
gcc -static -Wall -Werror -o kexec kexec.c
cp /opt/xenvirtio/guest/vmlinuz /opt/xenvirtio/guest/initramfs .
tar -cf image kexec vmlinuz initramfs
truncate -s %4096 image
"""
#: Linux does not hand the place of a PVH guest's ACPI tables on to the next kernel
_KEXEC = r"""
tar -xf /dev/vdb -C /tmp
rsdp=$(dmesg | sed -n 's/.*RSDP \(0x[0-9A-Fa-f]*\).*/\1/p')
line="$(cat /proc/cmdline) acpi_rsdp=$rsdp nextkernel=1"
(sleep 1; /tmp/kexec /tmp/vmlinuz /tmp/initramfs "$line" >/tmp/kexec.log 2>&1) &
"""
_NEXT_RUNS = f"until grep -q 'its next kernel runs' {LOG}; do sleep 0.3; done"


@pytest.mark.timeout(600)
def test_a_guest_that_kexecs_has_its_devices_and_data_again(
    guests: GuestMaker, lab: Lab, backend: Backend
) -> None:
    """XB-20, XB-24, XB-28."""
    if lab.run(["uname", "-r"]).stdout.startswith("6.1."):
        pytest.skip("Linux 6.1 faults at its local APIC when it is the next kernel of a PVH guest")
    lab.put(SOURCE, f"{FOLDER}/{SOURCE.name}")
    lab.run(["sh", "-euc", _BUILD], timeout=120).check()
    lab.run(["rm", "-f", LOG]).check()
    image = make_image(lab, "/root/kexec.img", 64 * MIB)
    guest = guests.create(
        GuestConfig(
            "kexec",
            type="pvh",
            memory=512,
            disks=(Disk(image), Disk(f"{FOLDER}/image", "vdb", writable=False)),
            nics=(Nic(),),
            address="10.77.0.28/24",
        )
    )
    guest.run("head -c 4194304 /dev/urandom | dd of=/dev/vda bs=1M conv=notrunc,fsync", timeout=90)
    digest = "dd if=/dev/vda bs=1M count=4 2>/dev/null | md5sum"
    wanted = guest.run(digest, timeout=90).output
    before = guest.domid()
    guest.run(_KEXEC, timeout=90)
    lab.run(["timeout", "90", "sh", "-c", _NEXT_RUNS], timeout=120).check()
    guest.wait_ready()
    assert "nextkernel=1" in guest.run("cat /proc/cmdline").output
    assert guest.domid() == before
    guest.run(DISK_APPEARS, timeout=60)
    assert guest.run(digest, timeout=90).output == wanted
    wait_for_address(guest)
    assert lab.run(["ping", "-c", "5", "-i", "0.1", "-W", "5", "10.77.0.28"], timeout=60).returncode == 0
    assert f"guest kexec ({before}) device 0: closed" in backend.log(100)  # the first kernel's last act
