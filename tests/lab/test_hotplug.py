"""Devices come to a running guest, change and go; nothing of them stays (docs/guide.md, Hotplug)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import (
    COMMAND,
    HOT,
    HOT_MIB,
    MIB,
    entry,
    kill_worker,
    make_image,
    md5_in_dom0,
    traces,
    traces_after,
    until,
    until_served,
    wait_for_address,
    xenvirtio,
    xenvirtio_each,
)
from xenvirtio.lab.guest import TOOLS_DISK, Disk, Guest, GuestConfig, Nic, tcp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend


#: another name of vda's image
LOOP = "/dev/web-loop"


@pytest.fixture
def image(lab: Lab) -> str:
    return make_image(lab, HOT, HOT_MIB * MIB)


@pytest.fixture(scope="module")
def web(lab: Lab, backend: Backend) -> Iterator[Guest]:
    """A guest with vda (64 MiB) and eth0, for the tests from here on; each leaves it with these."""
    assert backend.pid() > 0
    before = traces(lab)
    disk = make_image(lab, "/root/web.img", HOT_MIB * MIB)
    config = GuestConfig("web", disks=(Disk(disk),), nics=(Nic(),), address="10.77.0.2/24")
    with Guest.create(lab, config) as guest:
        wait_for_address(guest)
        yield guest
    assert traces_after(lab, before) == before


def sectors(guest: Guest, disk: str = "vda") -> int:
    return int(guest.sysfs(f"block/{disk}/size"))


def test_a_disk_grows_and_shrinks_under_its_guest(web: Guest, lab: Lab) -> None:
    path = web.config.disks[0].path
    before = sectors(web)
    xenvirtio(lab, "resize", web.name, "vda", "+32M").check()
    until(web, f"[ $(cat /sys/block/vda/size) = {before + 32 * MIB // 512} ]")
    web.run(f"dd if=/dev/urandom of=/dev/vda bs=1M seek={HOT_MIB + 16} count=8 conv=notrunc,fsync")
    wanted = web.run(f"dd if=/dev/vda bs=1M skip={HOT_MIB + 16} count=8 2>/dev/null | md5sum").output.split()[
        0
    ]
    assert md5_in_dom0(lab, path, (HOT_MIB + 16) * MIB, 8 * MIB) == wanted
    refused = xenvirtio(lab, "resize", web.name, "vda", f"{HOT_MIB}M")
    assert (refused.returncode, "--shrink" in refused.stderr) == (2, True)
    xenvirtio(lab, "resize", web.name, "vda", f"{HOT_MIB}M", "--shrink").check()
    until(web, f"[ $(cat /sys/block/vda/size) = {before} ]")
    assert lab.run(["stat", "-c", "%s", path]).stdout.strip() == str(HOT_MIB * MIB)
    beyond = f"dd if=/dev/zero of=/dev/vda bs=512 seek={before} count=1 conv=notrunc,fsync"
    assert web.run(beyond, check=False).status != 0


def test_a_disk_that_shrinks_under_load_is_sound(web: Guest, lab: Lab, image: str) -> None:
    """What was in flight is done or fails; the guest and its other devices go on."""
    xenvirtio(lab, "attach", web.name, entry()).check()
    web.run(
        "for i in 1 2 3; do (while [ -b /dev/vdb ]; do "
        "dd if=/dev/zero of=/dev/vdb bs=64k seek=$((i * 256)) count=256 conv=notrunc,fsync; done) "
        ">/dev/null 2>&1 & done"
    )
    xenvirtio(lab, "resize", web.name, "vdb", "8M", "--shrink").check()
    until(web, f"[ $(cat /sys/block/vdb/size) = {8 * MIB // 512} ]")
    assert lab.run(["stat", "-c", "%s", image]).stdout.strip() == str(8 * MIB)
    web.run("killall sh dd 2>/dev/null; true", check=False)
    until(web, "! killall -0 dd 2>/dev/null")
    web.run("dd if=/dev/vdb of=/dev/null bs=1M count=8", timeout=60)
    xenvirtio(lab, "detach", web.name, "vdb").check()
    assert web.run("[ -b /dev/vdb ]", check=False).status != 0


def test_a_link_goes_down_and_up_also_when_the_worker_dies(web: Guest, lab: Lab, backend: Backend) -> None:
    xenvirtio(lab, "link", web.name, "eth0", "down").check()
    until(web, "[ $(cat /sys/class/net/eth0/carrier) = 0 ]")
    assert web.run(f"ping -c 2 -W 2 {tcp.DOM0}", check=False).status != 0
    kill_worker(lab, web)
    until_served(backend, web, "eth0")
    assert web.sysfs("class/net/eth0/carrier") == "0"
    xenvirtio(lab, "link", web.name, "eth0", "up").check()
    until(web, "[ $(cat /sys/class/net/eth0/carrier) = 1 ]")
    assert web.run(f"ping -c 3 -W 5 {tcp.DOM0}", timeout=60).output.count("bytes from") == 3


#: commands → what they say
MISTAKES = {
    ("attach", "none", "model=virtio"): "there is no guest none",
    ("attach", "web", entry("vda")): "has a device vda already",
    ("attach", "web", entry("vq7z")): "unknown vdev",
    ("attach", "web", entry(path="/root/web.img")): "in use by guest web as vda",
    ("attach", "web", f"phy:{LOOP},vdb,w"): "in use by guest web as vda",
    ("attach", "web", "model=virtio,bridge=none"): "there is no bridge none",
    ("detach", "web", "xvda"): "the virtio devices of guest web are vda, eth0",
    ("resize", "web", "vdb", "1G"): "has no device vdb",
}


def test_a_mistake_is_told_once_with_the_next_step(web: Guest, lab: Lab, image: str) -> None:
    assert image
    assert web.name == "web"
    before = traces(lab)
    lab.run(f"ln -s $(losetup --find --show {web.config.disks[0].path}) {LOOP}").check()
    try:
        answers = xenvirtio_each(lab, list(MISTAKES))
    finally:
        lab.run(f"losetup --detach {LOOP}; rm {LOOP}").check()
    for done, told in zip(answers, MISTAKES.values(), strict=True):
        assert done.returncode == 2, done
        assert told in done.stderr, done
        assert done.stderr.count("try:") == 1, done
        assert "Traceback" not in done.stderr, done
    assert traces(lab) == before


def test_an_image_that_qemu_has_locked_is_refused_and_the_device_goes_again(
    web: Guest, lab: Lab, image: str
) -> None:
    """Not a guest of any toolstack: only the lock tells, to the worker."""
    before = traces(lab)
    lock = (
        "import fcntl,struct,sys,time; f=open(sys.argv[1],'r+b')\n"
        "for n in (100,101,201,203): fcntl.fcntl(f,37,struct.pack('@hhqqi4x',0,0,n,1,0))\n"
        "print('held',flush=True); time.sleep(300)"
    )
    wait = "n=0; until grep -q held /run/held; do n=$((n + 1)); [ $n -lt 100 ] || exit 1; sleep 0.1; done"
    hold = f'python3 -c "{lock}" {image} >/run/held 2>&1 & echo $! >/run/held.pid; {wait}'
    lab.run(hold).check()
    try:
        done = xenvirtio(lab, "attach", web.name, entry())
        assert done.returncode == 2, done
        assert f"{image}: in use by another guest or program" in done.stderr
    finally:
        lab.run("kill $(cat /run/held.pid)")
    assert traces_after(lab, before) == before


def test_a_guest_that_does_not_follow_keeps_its_disk_until_it_is_forced(
    web: Guest, lab: Lab, image: str
) -> None:
    assert image
    before = traces(lab)
    xenvirtio(lab, "attach", web.name, entry()).check()
    lab.run(["xl", "pause", web.name]).check()
    try:
        done = xenvirtio(lab, "detach", web.name, "vdb", "--timeout", "3")
    finally:
        lab.run(["xl", "unpause", web.name]).check()
    assert done.returncode == 1
    assert "is paused" in done.stderr
    assert "/state is Connected (4)" in done.stderr
    assert "/state is Closing (5)" in done.stderr
    web.run("dd if=/dev/zero of=/dev/vdb bs=1M count=1 conv=notrunc,fsync", timeout=60)
    lab.run(["xl", "pause", web.name]).check()
    try:
        xenvirtio(lab, "detach", web.name, "vdb", "--timeout", "3", "--force").check()
    finally:
        lab.run(["xl", "unpause", web.name]).check()
    assert traces_after(lab, before) == before
    until(web, "! [ -b /dev/vdb ]")
    web.run("dd if=/dev/zero of=/dev/vda bs=1M count=1 conv=notrunc,fsync", timeout=60)


def test_a_disk_that_is_mounted_stays(web: Guest, lab: Lab) -> None:
    before = traces(lab)
    xenvirtio(lab, "attach", web.name, TOOLS_DISK.entry()).check()
    web.mount_tools()
    done = xenvirtio(lab, "detach", web.name, "vdb")
    assert done.returncode == 2
    assert "keeps vdb: in use: open" in done.stderr
    assert "--force" in done.stderr
    web.run("echo 3 >/proc/sys/vm/drop_caches; fio --version", timeout=60)  # read from the disk again
    xenvirtio(lab, "detach", web.name, "vdb", "--force").check()
    assert traces_after(lab, before) == before
    until(web, "! [ -b /dev/vdb ]")
    web.run("umount -l /tools", check=False)


def test_a_worker_killed_while_devices_come_and_go_is_no_harm(
    web: Guest, lab: Lab, image: str, backend: Backend
) -> None:
    assert image
    before = traces(lab)
    kill = f"until pkill -KILL -x xenvirtio-{web.domid()}; do sleep 0.2; done; echo killed"
    script = (
        f"(for i in 1 2; do sleep $((1 + i % 2)); {kill}; done) & "
        f"for i in 1 2; do xenvirtio attach {web.name} {entry()} && "
        f"xenvirtio detach {web.name} vdb || exit 1; done; wait"
    )
    done = lab.run(script, timeout=COMMAND)
    assert done.returncode == 0, done.stderr + backend.log()
    assert done.stdout.count("killed") == 2
    web.run("dd if=/dev/zero of=/dev/vda bs=1M count=4 conv=notrunc,fsync", timeout=60)
    assert traces_after(lab, before) == before
