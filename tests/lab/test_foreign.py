"""Foreign access needs machine addresses in a PV guest (XB-77): without them both sides say so.

Devices are plugged by hand here, into a guest that runs: entropy, which needs nothing else of dom0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import MIB, GuestMaker, make_image, md5_in_dom0, traces, traces_after
from xenvirtio.lab.guest import Disk, Guest, GuestConfig, start
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend

NEEDED = "a PV guest needs iommu=soft on its kernel command line"
#: plugs an entropy device (virtio 1.3 §5.4): guest's domain, device number, allowed memory access
_PLUG = """
back=/local/domain/0/backend/virtio/$1/$2 front=/local/domain/$1/device/virtio/$2
xenstore-write $back/frontend $front $back/frontend-id $1 $back/online 1 $back/type virtio,device4 \
    $back/transport xenbus $back/host/memory-access "$3" \
    $front/backend $back $front/backend-id 0 $front/transport xenbus
xenstore-chmod -r $back n0 r$1
xenstore-chmod -r $front n$1 r0
xenstore-write $back/state 1 $front/state 1
"""
#: waits, at most 30 s, until the frontend is in the state $3 or Closed, and tells which
_STATE = """
n=0
until s=$(xenstore-read /local/domain/$1/device/virtio/$2/state) && { [ $s = $3 ] || [ $s = 6 ]; }; do
    n=$((n + 1)); [ $n -lt 60 ] || break; sleep 0.5
done
echo $s
"""
_UNPLUG = """
back=/local/domain/0/backend/virtio/$1/$2
xenstore-write $back/online 0 $back/state 5
n=0; until [ "$(xenstore-read $back/state)" = 6 ]; do n=$((n + 1)); [ $n -lt 60 ] || exit 1; sleep 0.5; done
xenstore-rm $back
xenstore-rm /local/domain/$1/device/virtio/$2
"""
CONNECTED, CLOSED = "4", "6"
DEVID = 7


def in_dom0(lab: Lab, script: str, *arguments: object) -> str:
    """What a script said in dom0."""
    words = [str(argument) for argument in arguments]
    return lab.run(["sh", "-euc", script, "sh", *words], timeout=60).check().stdout.strip()


@pytest.fixture
def plain(guests: GuestMaker, lab: Lab) -> Iterator[Guest]:
    """A PV guest without iommu=soft that has its disk by grants; the disk and the guest are as they were."""
    image = make_image(lab, "/root/plain.img", 64 * MIB)
    guest = guests.create(GuestConfig("plain", disks=(Disk(image),), memory_access=MemoryAccess.GRANT))
    guest.run("head -c 4194304 /dev/urandom | dd of=/dev/vda bs=1M conv=notrunc,fsync", timeout=90)
    before = md5_in_dom0(lab, image, 0, 4 * MIB)
    yield guest
    read = guest.run("dd if=/dev/vda bs=1M count=4 iflag=direct 2>/dev/null | md5sum", timeout=90)
    assert read.output.split()[0] == before
    assert (
        guest.run("dmesg | grep -E 'BUG|WARNING|Oops|Call Trace|general protection'", check=False).output
        == ""
    )


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
    in_dom0(lab, _PLUG, domid, DEVID, "foreign grant")
    assert in_dom0(lab, _STATE, domid, DEVID, CONNECTED) == CONNECTED
    assert plain.sysfs(f"bus/xen/devices/virtio-{DEVID}/memory_access") == "grant"
    assert f'not using memory access "foreign": {NEEDED}' in plain.run("dmesg").output
    in_dom0(lab, _UNPLUG, domid, DEVID)


def test_where_only_foreign_is_offered_the_guest_refuses_and_lives(
    plain: Guest, lab: Lab, backend: Backend
) -> None:
    """XB-15."""
    domid = plain.domid()
    in_dom0(lab, _PLUG, domid, DEVID, "foreign")
    assert in_dom0(lab, _STATE, domid, DEVID, CLOSED) == CLOSED
    words = in_dom0(lab, f"xenstore-read /local/domain/$1/error/device/virtio/{DEVID}/error", domid)
    assert NEEDED in words
    assert NEEDED in plain.run("dmesg").output
    assert f"guest plain device {domid}/{DEVID}: not taken: " in backend.log()
    in_dom0(lab, _UNPLUG, domid, DEVID)
