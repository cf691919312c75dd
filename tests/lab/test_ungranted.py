"""What a guest has not granted the backend cannot reach: tried from inside a guest, below its own driver.

A driver of ours (tests/lab/ungranted) gives an entropy device addresses that virtio_xenbus did not make.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import by_hand
from xenvirtio.lab.guest import Disk, GuestConfig
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from tests.lab.lab_rig import GuestMaker
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend

SOURCES = Path(__file__).parent / "ungranted"
FOLDER = "/root/ungranted"
DEVID = 7


def built(lab: Lab, folder: Path) -> tuple[str, int]:
    """An image in dom0 that begins with the driver's module, and the module's bytes."""
    module, image = lab.kernel_module(SOURCES), folder / "image"
    image.write_bytes(module + bytes(-len(module) % 4096))
    lab.put(image, f"{FOLDER}/image")
    return f"{FOLDER}/image", len(module)


def test_an_address_that_was_not_granted_is_refused(
    guests: GuestMaker, lab: Lab, backend: Backend, tmp_path: Path
) -> None:
    """XB-72, XB-81: that request fails, with length 0, the next is served. XB-70, XB-82: what is no grant's
    address at all stops the device until its reset."""
    image, size = built(lab, tmp_path)
    disk = Disk(image, writable=False)
    guest = guests.create(GuestConfig("ungranted", disks=(disk,), memory_access=MemoryAccess.GRANT))
    guest.run(f"head -c {size} /dev/vda >/tmp/ungranted.ko && insmod /tmp/ungranted.ko")
    by_hand.plug(lab, guest.domid(), DEVID, MemoryAccess.GRANT)
    said = "dmesg | sed -n 's/^.*ungranted: //p'"
    guest.run(
        f"n=0; until {said} | grep -q done; do n=$((n + 1)); [ $n -lt 60 ] || exit 1; sleep 0.5; done", 60
    )
    lines = guest.run(said).output.splitlines()
    assert lines == [
        "granted: used 4096, written",
        "not granted: used 0, untouched",
        "granted for reading: used 0, untouched",
        "granted again: used 4096, written",
        "an address in memory: used -1, untouched",
        "status 0x4f",  # DEVICE_NEEDS_RESET
        "done",
    ]
    log = backend.log()
    assert (
        f"guest ungranted ({guest.domid()}) device {DEVID} queue 0: stopped, the guest must reset it" in log
    )
    assert guest.run("dd if=/dev/vda of=/dev/null bs=4k count=1 ", check=False).status == 0
    by_hand.unplug(lab, guest.domid(), DEVID)
