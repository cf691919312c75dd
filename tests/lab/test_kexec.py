"""A guest that gives way to another kernel (kexec) lets go of its devices, and has them again afterwards.

Xen's tools reset a domain for its next kernel in HVM guests only, by xl's own monitor. Here the guest's
configured kernel starts instead, by on_reboot.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import DISK_APPEARS, MIB, GuestMaker, make_image
from xenvirtio.lab.guest import Disk, GuestConfig

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend

SOURCE = Path(__file__).parent / "kexec/kexec.c"
FOLDER = "/root/kexec"
#: a tar on a disk: the program, and the kernel that it names
_BUILD = f"""
cd {FOLDER}
gcc -static -Wall -Werror -o kexec kexec.c
cp /opt/xenvirtio/guest/vmlinuz .
tar -cf image kexec vmlinuz
truncate -s %4096 image
"""


@pytest.mark.timeout(600)
def test_a_guest_that_kexecs_has_its_devices_and_data_again(
    guests: GuestMaker, lab: Lab, backend: Backend
) -> None:
    """XB-20, XB-24."""
    lab.put(SOURCE, f"{FOLDER}/{SOURCE.name}")
    lab.run(["sh", "-euc", _BUILD], timeout=120).check()
    image = make_image(lab, "/root/kexec.img", 64 * MIB)
    disks = (Disk(image), Disk(f"{FOLDER}/image", "vdb", writable=False))
    guest = guests.create(GuestConfig("kexec", type="pvh", disks=disks))
    guest.run("head -c 4194304 /dev/urandom | dd of=/dev/vda bs=1M conv=notrunc,fsync", timeout=90)
    digest = "dd if=/dev/vda bs=1M count=4 2>/dev/null | md5sum"
    wanted = guest.run(digest, timeout=90).output
    before = guest.domid()
    guest.run("tar -xf /dev/vdb -C /tmp; (sleep 1; /tmp/kexec /tmp/vmlinuz quiet >/tmp/kexec.log 2>&1) &", 60)
    now = guest.wait_restarted(before)
    guest.run(DISK_APPEARS, timeout=60)
    assert guest.run(digest, timeout=90).output == wanted
    # the kernel's last act was the orderly close
    assert f"guest kexec ({before}) device 0: closed" in backend.log(100)
    log = lab.run("cat /var/log/xenvirtio/kexec.log").stdout
    assert f"domain {before} ended: soft-reset; action: restart" in log
    assert f"restarted as domain {now}" in log
