"""The boot loader that a configuration names, where the disk to boot from is a virtio disk.

xl runs `bootloader = "pygrub"` on the first disk of the list, but does not know disks that are ours. So we
run it (boot/files.py), at each start of the guest, and xl gets what it found as kernel=, ramdisk= and
cmdline=. All settings keep their meaning (xl.cfg(5); xen/tools/libs/light/libxl_bootloader.c):

    bootloader       pygrub, or the path of a program of that name
    bootloader_args  its arguments: a list, or words in one string
    kernel, ramdisk  paths inside the image, taken instead of what its menu says
    cmdline, or root and extra   added to the command line in the menu

A guest whose first disk is xl's is booted by xl as ever. An HVM guest boots by itself.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from xenvirtio.toolstack.configuration.disk import virtio_disk
from xenvirtio.toolstack.configuration.grammar import Atom

if TYPE_CHECKING:
    from xenvirtio.toolstack.configuration.configuration import GuestConfig
    from xenvirtio.toolstack.configuration.disk import DiskSettings

#: what xl does not get: it would run the boot loader itself, or take paths inside the image for its own
SETTINGS = frozenset(
    (
        "bootloader",
        "bootloader_args",
        "bootloader_restrict",
        "bootloader_user",
        "kernel",
        "ramdisk",
        "cmdline",
        "root",
        "extra",
    )
)
PYGRUB = "pygrub"
#: for who boots from a virtio disk
WAYS = 'bootloader = "pygrub" takes kernel and ramdisk from the image; or name them: kernel="…", ramdisk="…"'


@dataclass(frozen=True)
class Bootloader:
    """pygrub on the image of a virtio disk, as the configuration has it."""

    program: str  #: pygrub, or the path of one
    arguments: tuple[str, ...]
    vdev: str
    image: str
    kernel: str | None = None  #: a path inside the image, as is the next
    ramdisk: str | None = None
    command_line: str = ""  #: added to the menu's


def bootloader(config: GuestConfig, kind: str) -> Bootloader | None:
    """What boots this guest, if its first disk is a virtio disk that a boot loader has to look into.

    Raises ConfigError for a boot loader that cannot see virtio disks.
    """
    first = _first_disk(config, kind)
    if first is None:
        return None
    _refuse_pvgrub(config, kind, first)
    program = config.string("bootloader")
    if not program:
        return None
    if PurePath(program).name != PYGRUB:
        config.fail("bootloader", f"the boot loader {program} cannot read the virtio disk {first.vdev}", WAYS)
    return Bootloader(
        program=program,
        arguments=_arguments(config),
        vdev=first.vdev,
        image=first.path,
        kernel=config.string("kernel"),
        ramdisk=config.string("ramdisk"),
        command_line=config.command_line()[1],
    )


def _first_disk(config: GuestConfig, kind: str) -> DiskSettings | None:
    """The first disk of the list, if it is ours: xl's boot loaders look at no other one either."""
    entries = config.entries("disk")
    return virtio_disk(entries[0]) if entries and kind != "hvm" else None


def _refuse_pvgrub(config: GuestConfig, kind: str, first: DiskSettings) -> None:
    """GRUB built for Xen runs inside the guest, with drivers for xl's disks only."""
    firmware, kernel = config.string("firmware") or "", PurePath(config.string("kernel") or "").name
    inside = {
        "firmware": kind == "pvh" and firmware.startswith("pvgrub"),
        "kernel": kernel.startswith(("pv-grub", "pvgrub"))
        or (kernel.startswith("grub-") and "xen" in kernel),
    }
    for setting, named in inside.items():
        if named:
            why = f"GRUB inside the guest (pvgrub) has no driver for the virtio disk {first.vdev}"
            config.fail(setting, why, f"{WAYS}; or give the disk with /boot as xvda, before {first.vdev}")


def _arguments(config: GuestConfig) -> tuple[str, ...]:
    setting = config.last("bootloader_args")
    if setting is None:
        return ()
    if not isinstance(setting.value, Atom):
        return tuple(entry.text for entry in config.entries("bootloader_args"))
    try:
        return tuple(shlex.split(config.string("bootloader_args") or ""))
    except ValueError as error:
        config.fail("bootloader_args", f"these are no words: {error}", 'a list: ["--entry=1", …]')
