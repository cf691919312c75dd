"""Foreign access needs machine addresses in a PV guest (XB-77): without them both sides say so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab import by_hand
from tests.lab.lab_rig import MIB, GuestMaker, make_image, md5_in_dom0, traces, traces_after
from xenvirtio.lab.guest import Disk, Guest, GuestConfig, start
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend

NEEDED = "a PV guest needs iommu=soft on its kernel command line"
DEVID = 7


@pytest.fixture
def plain(guests: GuestMaker, lab: Lab) -> Iterator[Guest]:
    """A PV guest without iommu=soft that has its disk by grants; the disk and the guest are as they were."""
    image = make_image(lab, "/root/plain.img", 64 * MIB)
    guest = guests.create(GuestConfig("plain", disks=(Disk(image),), memory_access=MemoryAccess.GRANT))
    guest.run("head -c 4194304 /dev/urandom | dd of=/dev/vda bs=1M conv=notrunc,fsync", timeout=90)
    before = md5_in_dom0(lab, image, 0, 4 * MIB)
    yield guest
    guest.run("echo 3 >/proc/sys/vm/drop_caches")
    read = guest.run("dd if=/dev/vda bs=1M count=4 2>/dev/null | md5sum", timeout=90)
    assert read.output.split()[0] == before
    trouble = guest.run("dmesg | grep -E 'BUG|WARNING|Oops|Call Trace|general protection'", check=False)
    assert trouble.output == ""


def test_create_says_what_the_guest_lacks_and_so_does_the_log(lab: Lab, backend: Backend) -> None:
    before = traces(lab)
    image = make_image(lab, "/root/pseudo.img", 64 * MIB)
    # as GuestConfig would write it for foreign access, but without iommu=soft
    config = GuestConfig("pseudo", disks=(Disk(image),), settings={"memory_access": '"foreign"'})
    done = start(lab, config)
    assert done.returncode == 1
    assert 'extra += " iommu=soft"' in done.stderr  # the warning, before anything is done
    assert re.search(rf"vda: .*{NEEDED}.*foreign", done.stderr, re.DOTALL), done.stderr
    assert "Traceback" not in done.stderr
    log = backend.log()
    assert re.search(rf"guest pseudo device \d+/0: not taken: .*{NEEDED}", log), log
    assert traces_after(lab, before) == before


def test_where_both_are_offered_the_guest_takes_grant(plain: Guest, lab: Lab) -> None:
    """XB-13: `foreign` gives way to the next, as the guest's user has not asked for it."""
    domid = plain.domid()
    by_hand.plug(lab, domid, DEVID, "foreign grant")
    assert by_hand.state(lab, domid, DEVID, by_hand.CONNECTED) == by_hand.CONNECTED
    assert plain.sysfs(f"bus/xen/devices/virtio-{DEVID}/memory_access") == "grant"
    assert f'not using memory access "foreign": {NEEDED}' in plain.run("dmesg").output
    by_hand.unplug(lab, domid, DEVID)


def test_where_only_foreign_is_offered_the_guest_refuses_and_lives(
    plain: Guest, lab: Lab, backend: Backend
) -> None:
    """XB-15."""
    domid = plain.domid()
    by_hand.plug(lab, domid, DEVID, "foreign")
    assert by_hand.state(lab, domid, DEVID, by_hand.CLOSED) == by_hand.CLOSED
    assert NEEDED in by_hand.error(lab, domid, DEVID)
    assert NEEDED in plain.run("dmesg").output
    assert f"guest plain device {domid}/{DEVID}: not taken: " in backend.log()
    by_hand.unplug(lab, domid, DEVID)
