"""Which boot loader is ours to run, and what of the configuration it gets (xl.cfg(5))."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import ConfigError
from xenvirtio.toolstack.configuration.bootloader import SETTINGS, Bootloader
from xenvirtio.toolstack.configuration.configuration import GuestConfig
from xenvirtio.toolstack.configuration.grammar import Source, parse
from xenvirtio.toolstack.configuration.guest import Guest, guest_from
from xenvirtio.toolstack.records import Record, Records

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "/images/a.raw"


def guest(text: str, disks: str = f"['{IMAGE},raw,vda,rw']") -> Guest:
    source = Source("guest.cfg", f"name='g'; disk={disks}; {text}")
    return guest_from(GuestConfig("guest.cfg", parse(source)))


def loader(text: str) -> Bootloader:
    found = guest(text).bootloader
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["pv", "pvh"])
def test_pygrub_looks_into_the_first_virtio_disk(kind: str) -> None:
    made = guest(f"type='{kind}'; bootloader='pygrub'; memory=256")
    assert made.bootloader == Bootloader("pygrub", (), "vda", IMAGE)
    assert "bootloader" not in made.xl_config
    assert "memory=256\n" in made.xl_config


def test_xl_gets_nothing_that_is_pygrubs_to_interpret() -> None:
    settings = {name: f"{name}='1'" for name in SETTINGS} | {
        "bootloader": "bootloader='pygrub'",
        "bootloader_args": "bootloader_args=['-v']",
    }
    made = guest("; ".join(settings.values()))
    assert not [name for name in SETTINGS if name in made.xl_config]
    assert made.files == ()  # kernel and ramdisk are paths in the image


def test_kernel_and_ramdisk_are_paths_in_the_image() -> None:
    found = loader("bootloader='pygrub'; kernel='/vmlinuz'; ramdisk='/initrd.img'")
    assert (found.kernel, found.ramdisk) == ("/vmlinuz", "/initrd.img")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("extra='quiet'", "quiet"),
        ("root='/dev/vda1'", "root=/dev/vda1"),
        ("root='/dev/vda1'; extra='quiet'", "root=/dev/vda1 quiet"),
        ("cmdline='a'; root='/dev/vda1'; extra='quiet'", "a"),
    ],
)
def test_the_command_line_is_put_together_as_xl_does(text: str, line: str) -> None:
    assert loader(f"bootloader='pygrub'; {text}").command_line == line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", ()),
        ("['--entry=1', '--offset=5']", ("--entry=1", "--offset=5")),
        ("'--entry=1  --offset=5'", ("--entry=1", "--offset=5")),
        ("'--entry=\"my kernel\"'", ("--entry=my kernel",)),
    ],
)
def test_arguments_are_a_list_or_words(text: str, words: tuple[str, ...]) -> None:
    assert loader(f"bootloader='pygrub'; bootloader_args={text}").arguments == words


def test_arguments_with_an_open_quote_are_refused() -> None:
    with pytest.raises(ConfigError, match="these are no words") as caught:
        guest("bootloader='pygrub'; bootloader_args='--entry=\"a'")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "disks"),
    [
        ("kernel='/k'", f"['{IMAGE},raw,vda,rw']"),
        ("", f"['{IMAGE},raw,vda,rw']"),
        ("bootloader='pygrub'", f"['/b.raw,raw,xvda,rw', '{IMAGE},raw,vda,rw']"),
        ("bootloader='pygrub'", "[]"),
        ("bootloader='/usr/bin/other'", "['/b.raw,raw,xvda,rw']"),
        ("kernel='/usr/lib/grub-xen/grub-x86_64-xen.bin'", "['/b.raw,raw,xvda,rw']"),
        ("type='hvm'; bootloader='pygrub'", f"['{IMAGE},raw,vda,rw']"),
    ],
)
def test_everything_else_stays_with_xl(text: str, disks: str) -> None:
    made = guest(text, disks)
    assert made.bootloader is None
    assert not text or text.split("; ")[-1] in made.xl_config


@pytest.mark.parametrize(
    "text",
    [
        "bootloader='pvgrub'",
        "bootloader='/usr/lib/other/boot'",
        "kernel='/usr/lib/grub-xen/grub-x86_64-xen.bin'",
        "type='pvh'; kernel='/usr/lib/grub-xen/grub-i386-xen_pvh.bin'",
        "kernel='/usr/lib/xen-4.17/boot/pv-grub-x86_64.gz'",
        "type='pvh'; firmware='pvgrub64'",
        "type='pvh'; firmware='pvgrub32'",
    ],
)
def test_boot_loaders_that_cannot_see_a_virtio_disk_are_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(ConfigError, match="virtio disk vda") as caught:
        guest(text)
    assert 'bootloader = "pygrub"' in str(caught.value.hint)


def test_a_record_keeps_the_boot_loader(tmp_path: Path) -> None:
    made = guest("bootloader='pygrub'; bootloader_args=['--entry=1']; extra='quiet'")
    records = Records(tmp_path)
    records.save(Record(made, 3, 60.0))
    json.loads((tmp_path / f"{made.uuid}.json").read_text())
    found = records.load(made.uuid)
    assert found is not None
    assert found.guest.bootloader == made.bootloader
