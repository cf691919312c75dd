"""Virtio devices of an HVM guest's own QEMU: stock virtio-pci drivers, and nothing of ours at run time.

A disk becomes two arguments of QEMU in `device_model_args_hvm`; a NIC is xl's (vif.py). Linux unplugs what
its QEMU emulates, virtio devices among it, when it finds Xen (QEMU, hw/i386/xen/xen_platform.c; Linux,
arch/x86/xen/platform-pci-unplug.c), unless `xen_emul_unplug=never` stands on its command line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xenvirtio.toolstack.configuration.configuration import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xenvirtio.toolstack.configuration.configuration import GuestConfig
    from xenvirtio.toolstack.configuration.disk import DiskSettings

ARGUMENTS = "device_model_args_hvm"
UNPLUG = "xen_emul_unplug"
#: words of that option (Linux, kernel-parameters.txt) that leave every device, the disks, the NICs plugged
LEAVE_ALL = {"never", "unnecessary"}
TAKE_DISKS = {"all", "ide-disks"}
TAKE_NICS = {"all", "nics"}
#: firmware that xm's configurations name as kernel, and xl ignores
HVMLOADER = "hvmloader"


def disk_arguments(disk: DiskSettings) -> tuple[str, ...]:
    """What QEMU gets for a disk; it locks the image as xenvirtio does, so nobody else writes it."""
    name = f"xenvirtio-{disk.vdev}"
    backing = {
        "if": "none",
        "id": name,
        "format": disk.format,
        "read-only": "off" if disk.writable else "on",
        "discard": "unmap" if disk.discard else "ignore",
        "file.locking": "on",
        "file.filename": disk.path,
    }
    device = {"drive": name, "id": f"{name}-pci", "serial": name}
    return "-drive", _options(backing), "-device", f"virtio-blk-pci,{_options(device)}"


def _options(options: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options.items())


def device_model_arguments(config: GuestConfig, disks: Sequence[DiskSettings]) -> list[str]:
    """The entries of device_model_args_hvm, as they are to be written: the user's own, then the disks.

    Raises ConfigError for a device model that cannot serve them.
    """
    if config.string("device_model_version") == "qemu-xen-traditional":
        config.fail("device_model_version", "the traditional QEMU has no virtio devices", "leave it out")
    if disks and config.string("device_model_stubdomain_override") not in (None, "0"):
        why = "a QEMU in a stub domain cannot open images of this domain"
        config.fail("device_model_stubdomain_override", why, "leave it out; or backend=xenvirtio")
    own = [entry.written for entry in config.entries(ARGUMENTS)]
    return own + [quote(argument) for disk in disks for argument in disk_arguments(disk)]


def direct_kernel(config: GuestConfig) -> str | None:
    """The kernel that an HVM guest boots without a boot loader of its own."""
    kernel = config.string("kernel")
    return None if not kernel or os.path.basename(kernel) == HVMLOADER else kernel


@dataclass(frozen=True)
class Kept:
    """What keeps QEMU's virtio devices plugged: more words for a setting, and what the user is told."""

    appended: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def keep_plugged(config: GuestConfig, disks: Sequence[str], nics: bool) -> Kept:
    """See to it that Linux does not unplug the disks (by name) and NICs that QEMU serves."""
    if not disks and not nics:
        return Kept()
    setting, line = config.command_line()
    names = ", ".join((*disks, "its virtio NICs") if nics else disks)
    words = [word.partition("=")[2] for word in line.split() if word.startswith(f"{UNPLUG}=")]
    flags = {flag for word in words for flag in word.split(",")}
    if direct_kernel(config) is None:
        where = "in Debian: GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub"
        why = f"a Linux kernel unplugs {names} unless {UNPLUG}=never is on its command line"
        return Kept(warnings=(f"{why}; this guest has a boot loader of its own: add it there ({where})",))
    if not flags:
        added = f"{UNPLUG}=never is added to the kernel's command line, or Linux would unplug {names}"
        return Kept({setting: f" {UNPLUG}=never"}, notes=(f"{added}; it uses no Xen PV disks and NICs then",))
    lost = list(disks) if flags & TAKE_DISKS else []
    if nics and flags & TAKE_NICS:
        lost.append("its virtio NICs")
    if flags & LEAVE_ALL or not lost:
        return Kept()
    why = f"{UNPLUG}={','.join(sorted(flags))} on the kernel's command line makes Linux unplug"
    return Kept(warnings=(f"{why} {', '.join(lost)}; replace it by {UNPLUG}=never",))


def disk_names(qemu: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Warnings if the guest will not call QEMU's disks what the configuration calls them."""
    expected = [f"vd{chr(ord('a') + number)}" for number in range(len(qemu))]
    if not qemu or (list(qemu) == expected and not ours):
        return []
    what = "the guest names disks in the order in which it finds them"
    return [f"{what}: tell {', '.join(qemu)} by /dev/disk/by-id/virtio-xenvirtio-{qemu[0]}, …"]


def arguments_without_use(config: GuestConfig) -> list[str]:
    """Warnings about what a PV or PVH guest's QEMU was told for virtio devices in the prototype's time."""
    found = ["device_model_args_pv"] if config.entries("device_model_args_pv") else []
    if any("virtio" in entry.text for entry in config.entries("device_model_args")):
        found.append("device_model_args")
    why = "is not needed: xenvirtio serves virtio disks and NICs without a QEMU; take it out"
    return [f"{name} {why}" for name in found]
