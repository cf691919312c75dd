"""A Debian guest on the host: its disk's first sector and menu, its configuration, its scripts in dom0."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from xenvirtio.errors import LabError, TimeLimit
from xenvirtio.lab.guest import debian_files, debian_guest
from xenvirtio.lab.guest.debian_guest import MAC, DebianGuest, Dhcp
from xenvirtio.lab.guest.debian_image import DISK_BYTES, PARTITION_OFFSET, DebianImage, partition_table
from xenvirtio.lab.results import Completed
from xenvirtio.toolstack.configuration.bootloader import Bootloader
from xenvirtio.toolstack.configuration.configuration import GuestConfig
from xenvirtio.toolstack.configuration.grammar import Source, parse
from xenvirtio.toolstack.configuration.guest import guest_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.lab.lab import Lab

LEASE = f"1700000000 {MAC} 10.77.0.123 debian *"


class HostLab:
    """Runs the scripts here, with programs of its own in front of the machine's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[Sequence[str]] = []
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("xl", "ssh", "dnsmasq", "xenvirtio", "zstd"):
            self.program(name, "exit 0")
        self.program("xl", 'echo "$*" >>"$LAB/xl.log"; cat "$LAB/domid"')
        (folder / "domid").write_text("3\n")
        (folder / "run/dhcp").mkdir(parents=True)

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def run(self, command: Sequence[str], *, stdin: str = "", timeout: float = 60.0, **_: Any) -> Completed:
        self.commands.append(command)
        words = [word.replace("/run/xenvirtio-lab", f"{self.folder}/run") for word in command]
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin", "LAB": str(self.folder)}
        done = subprocess.run(
            words, input=stdin, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        return Completed(tuple(command), done.returncode, done.stdout, done.stderr)

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        self.commands.append(["put", local.name, remote, f"{mode:o}"])


@pytest.fixture
def host(tmp_path: Path) -> HostLab:
    return HostLab(tmp_path)


@pytest.fixture
def guest(host: HostLab, monkeypatch: pytest.MonkeyPatch) -> DebianGuest:
    for name in ("BOOT_LIMIT", "SSH_LIMIT"):
        monkeypatch.setattr(debian_guest, name, 1.0)
    return DebianGuest(cast("Lab", host), "debian", "/root/debian.key")


def test_the_first_sector_has_one_linux_partition_to_the_end() -> None:
    sector = partition_table(DISK_BYTES)
    assert len(sector) == 512
    assert sector[510:] == b"\x55\xaa"
    kind, first, count = sector[446 + 4], *struct.unpack_from("<II", sector, 446 + 8)
    assert (kind, first * 512, (first + count) * 512) == (0x83, PARTITION_OFFSET, DISK_BYTES)
    assert sector[446 + 16 : 510] == bytes(48)


@pytest.mark.skipif(shutil.which("sfdisk") is None, reason="no sfdisk")
def test_fdisk_reads_the_partition_table(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.write(partition_table(DISK_BYTES))
        file.truncate(DISK_BYTES)
    command = ["sfdisk", "--dump", str(image)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "start=        2048, size=     2095104, type=83, bootable" in said


def test_the_menu_names_kernel_initramfs_and_root() -> None:
    menu = debian_files.grub_config("6.12-amd64", "1-2-3", "quiet")
    assert "\tlinux\t/boot/vmlinuz-6.12-amd64 root=UUID=1-2-3 ro quiet\n" in menu
    assert "\tinitrd\t/boot/initrd.img-6.12-amd64\n" in menu
    assert menu.count("{") == menu.count("}")


def test_masked_units_are_empty_files() -> None:
    files = debian_files.files("debian", "6.12", "1-2-3", "0" * 32, "quiet")
    assert {files[f"etc/systemd/system/{unit}"] for unit in debian_files.MASKED} == {""}
    assert files["etc/fstab"].startswith("UUID=1-2-3 / ext4 ")


@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_its_configuration_boots_by_pygrub_from_vda(kind: str) -> None:
    text = debian_guest.config("debian", "/root/debian.raw", {"type": f'"{kind}"', "extra": '"a=1"'})
    made = guest_from(GuestConfig("c", parse(Source("c", text))))
    assert made.bootloader == Bootloader("pygrub", (), "vda", "/root/debian.raw", command_line="a=1")
    assert (made.type, [device.vdev for device in made.devices]) == (kind, ["vda", "eth0"])
    assert made.devices[1].settings["mac"] == MAC


def test_it_is_ready_when_it_has_a_lease_and_answers(host: HostLab, guest: DebianGuest) -> None:
    (host.folder / "run/dhcp/leases").write_text(f"1 00:00:00:00:00:01 10.77.0.99 x *\n{LEASE}\n")
    guest.wait_ready()
    assert guest.address == "10.77.0.123"
    assert "root@10.77.0.123" in host.commands[-1]


def test_a_guest_without_an_address_is_a_time_limit_with_the_servers_words(
    host: HostLab, guest: DebianGuest
) -> None:
    (host.folder / "run/dhcp/log").write_text("no address range available\n")
    with pytest.raises(TimeLimit, match=r"no address by DHCP within 1 s: no address range"):
        guest.wait_ready()


def test_a_guest_that_does_not_answer_is_a_time_limit_with_sshs_words(
    host: HostLab, guest: DebianGuest
) -> None:
    (host.folder / "run/dhcp/leases").write_text(f"{LEASE}\n")
    host.program("ssh", "echo 'No route to host' >&2; exit 255")
    with pytest.raises(TimeLimit, match=r"no answer by ssh within 1 s: No route to host"):
        guest.wait_ready()


def test_a_reboot_is_another_domain_with_an_address_of_its_own(host: HostLab, guest: DebianGuest) -> None:
    host.program("ssh", f'echo 4 >"$LAB/domid"; echo "{LEASE}" >>"$LAB/run/dhcp/leases"')
    host.program("xl", 'cat "$LAB/domid"')
    # a server that is still asked hands out the address again
    leases = host.folder / "run/dhcp/leases"
    leases.write_text(f"{LEASE}\n")
    original = host.run

    def run(command: Sequence[str], **options: Any) -> Completed:
        done = original(command, **options)
        if command[-1].startswith(": >"):
            leases.write_text(f"{LEASE}\n")
        return done

    host.run = run  # type: ignore[method-assign]
    assert guest.reboot() == (3, 4)


def test_a_guest_that_does_not_come_back_is_a_time_limit(host: HostLab, guest: DebianGuest) -> None:
    with pytest.raises(TimeLimit, match=r"guest debian was not started again after 1 s"):
        guest.reboot()
    assert host.commands


def test_power_off_waits_until_xen_has_it_no_more(host: HostLab, guest: DebianGuest) -> None:
    host.program("ssh", 'rm "$LAB/domid"')
    guest.power_off()
    assert guest.domid() is None
    host.program("ssh", "exit 0")
    (host.folder / "domid").write_text("3\n")
    with pytest.raises(TimeLimit, match="is still there after 1 s"):
        guest.power_off()


def test_what_does_not_start_leaves_neither_disk_nor_key(host: HostLab) -> None:
    host.program("xenvirtio", "echo 'no bridge' >&2; exit 2")
    (host.folder / "domid").unlink()
    image = DebianImage(host.folder, "k", "6.12", "1-2-3")
    with pytest.raises(LabError, match="not started:\nno bridge"):
        DebianGuest.create(cast("Lab", host), image)
    assert ["put", "disk.raw.zst", "/root/debian.raw.zst", "644"] in host.commands
    assert ["put", "ssh_key", "/root/debian.key", "600"] in host.commands
    assert host.commands[-1] == ["rm", "-f", "/root/debian.raw", "/root/debian.key"]


def test_the_dhcp_server_is_there_within_its_context_only(host: HostLab) -> None:
    host.program("dnsmasq", 'echo "$*" >"$LAB/dnsmasq.log"')
    folder = host.folder / "run/dhcp"
    with Dhcp(cast("Lab", host)):
        said = (host.folder / "dnsmasq.log").read_text()
        assert "--interface=xenbr0" in said
        assert f"--dhcp-leasefile={folder}/leases" in said
    assert not folder.exists()


def test_a_dhcp_server_that_does_not_start_is_an_error(host: HostLab) -> None:
    host.program("dnsmasq", "echo 'address already in use' >&2; exit 2")
    with pytest.raises(LabError, match="address already in use"), Dhcp(cast("Lab", host)):
        pass
    assert Path(host.folder).exists()
