"""Root on a virtio disk: a whole Debian boots from vda, lives on it, restarts itself and ends.

--root-type pvh    in a PVH guest, where the short form has a PV guest
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import traces, traces_after
from xenvirtio.lab.guest.debian_guest import MAC, DebianGuest, Dhcp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend
    from xenvirtio.lab.guest.debian_image import DebianImage

#: the disk is made (2 minutes, the first time), copied into dom0, and Debian boots from it
pytestmark = pytest.mark.timeout(900)

#: what a start by pygrub makes in dom0
_BOOT_TRACES = "find /var/lib/xenvirtio/boot -mindepth 1; find /dev -name 'xenvirtio-boot-*'; losetup -a"
#: one image each; $1: the kind. Its name is printed
_IMAGES = r"""
set -e
image=/root/boot-$1.raw
tree=$(mktemp -d)
mkdir -p "$tree/boot/grub"
echo kernel >"$tree/boot/vmlinuz-1"
echo ramdisk >"$tree/boot/initrd.img-1"
cat >"$tree/boot/grub/grub.cfg" <<'END'
menuentry 'Linux 1' {
    linux /boot/vmlinuz-1 root=/dev/vda ro
    initrd /boot/initrd.img-1
}
END
case $1 in
    no-menu) rm "$tree/boot/grub/grub.cfg" ;;
    no-kernel) rm "$tree/boot/vmlinuz-1" ;;
esac
truncate -s 16M "$image"
[ "$1" = nothing ] || mke2fs -q -F -t ext4 -d "$tree" "$image"
chmod 600 "$image"
rm -r "$tree"
echo "$image"
"""
#: prints what xl would get
_TAKE = """
import sys
from xenvirtio.errors import XenvirtioError
from xenvirtio.toolstack.configuration.bootloader import Bootloader
from xenvirtio.toolstack.boot.files import BootFiles
try:
    loader = Bootloader("pygrub", (), "vda", sys.argv[1], command_line="quiet")
    with BootFiles().settings(loader, "test") as found:
        print(found, end="")
        for line in found.splitlines()[:2]:
            print(open(line.split('"')[1]).read(), end="")
except XenvirtioError as error:
    sys.exit(f"{error.message} HINT {error.hint}")
"""


@pytest.fixture(scope="module")
def before(lab: Lab, backend: Backend) -> list[str]:
    """What was there in dom0, the daemon running."""
    assert backend.pid()
    return traces(lab)


@pytest.fixture(scope="module")
def image(lab: Lab, debian_disk: DebianImage, before: list[str]) -> Iterator[DebianImage]:
    """The disk, and a DHCP server for who boots from it; in the end all is as it was before."""
    with Dhcp(lab):
        yield debian_disk
    assert traces_after(lab, before) == before


@pytest.fixture(scope="module")
def debian(request: pytest.FixtureRequest, lab: Lab, image: DebianImage) -> Iterator[DebianGuest]:
    kind = request.config.getoption("--root-type")
    with DebianGuest.create(lab, image, settings={"type": f'"{kind}"', "extra": '"lab.word=1"'}) as guest:
        assert ask(guest, "cat /sys/hypervisor/guest_type") == kind.upper()
        yield guest


def ask(guest: DebianGuest, command: str) -> str:
    return guest.ssh(command).check().stdout.strip()


def test_debian_runs_on_vda_with_kernel_and_command_line_of_its_own_menu(
    debian: DebianGuest, lab: Lab
) -> None:
    assert ask(debian, "findmnt -n -o SOURCE /") == "/dev/vda1"
    assert ask(debian, "basename $(readlink /sys/block/vda/device/driver)") == "virtio_blk"
    words = ask(debian, "cat /proc/cmdline").split()
    assert words[-1] == "lab.word=1"  # the configuration's extra=, after the menu's
    assert f"root=UUID={ask(debian, 'findmnt -n -o UUID /')}" in words
    assert lab.run(_BOOT_TRACES).stdout == ""
    # --wait: until it has come up; "degraded" if a unit has failed
    state = debian.ssh("systemctl is-system-running --wait; systemctl --failed --no-legend --plain", 120)
    assert state.stdout.split()[0] == "running", state.stdout


def test_its_address_comes_by_dhcp_over_the_virtio_nic(debian: DebianGuest) -> None:
    nic = ask(debian, f"basename $(dirname $(grep -l {MAC} /sys/class/net/*/address))")
    assert ask(debian, f"basename $(readlink /sys/class/net/{nic}/device/driver)") == "virtio_net"
    assert f" {debian.address}/" in ask(debian, f"ip -4 -o address show {nic} dynamic")


def test_reboot_inside_brings_it_back_with_devices_data_and_what_its_menu_says_by_then(
    debian: DebianGuest,
) -> None:
    first = ask(debian, "cat /proc/sys/kernel/random/boot_id")
    ask(debian, "head -c 4194304 /dev/urandom >/root/data; md5sum /root/data >/root/sum")
    # as a kernel upgrade does: the next start takes what the disk says then
    ask(debian, "sed -i 's/ ro / ro lab.upgraded=1 /' /boot/grub/grub.cfg; sync")
    domid, next_domid = debian.reboot()
    assert next_domid != domid
    assert ask(debian, "cat /proc/sys/kernel/random/boot_id") != first
    assert ask(debian, "md5sum --check --status /root/sum && echo whole") == "whole"
    assert {"lab.upgraded=1", "lab.word=1"} <= set(ask(debian, "cat /proc/cmdline").split())


def test_poweroff_inside_ends_it_and_leaves_nothing(debian: DebianGuest, lab: Lab, before: list[str]) -> None:
    debian.power_off()
    assert debian.domid() is None
    assert traces_after(lab, before) == before
    assert lab.run(_BOOT_TRACES).stdout == ""


@pytest.mark.parametrize(
    ("kind", "why", "step"),
    [
        ("no-menu", "no /boot/grub/grub.cfg", "update-grub"),
        ("no-kernel", "/boot/vmlinuz-1, which its menu names, is not there", "--entry"),
        ("nothing", "no file system that pygrub can read", "ext2"),
    ],
)
def test_an_image_without_a_kernel_is_refused_with_the_reason_and_a_next_step(
    lab: Lab, kind: str, why: str, step: str
) -> None:
    done = take(lab, kind)
    message, _, hint = done[1].partition(" HINT ")
    assert (why in message, step in hint, "kernel=" in hint) == (True, True, True), done
    assert lab.run(_BOOT_TRACES).stdout == ""


def test_an_image_without_partitions_is_booted_though_only_root_may_read_it(lab: Lab) -> None:
    output, errors = take(lab, "whole")
    lines = output.splitlines()
    assert [line.split(" = ")[0] for line in lines[:3]] == ["kernel", "ramdisk", "cmdline"], errors
    assert lines[2:] == ['cmdline = "root=/dev/vda ro quiet"', "kernel", "ramdisk"]
    assert lab.run(_BOOT_TRACES).stdout == ""


def take(lab: Lab, kind: str) -> tuple[str, str]:
    """What our pygrub makes of an image of that kind: standard output and error."""
    image = lab.run(["sh", "-c", _IMAGES, "sh", kind], timeout=60).check().stdout.strip()
    try:
        done = lab.run(["/opt/xenvirtio/venv/bin/python", "-I", "-c", _TAKE, image], timeout=150)
    finally:
        lab.run(["rm", "-f", image])
    return done.stdout, done.stderr
