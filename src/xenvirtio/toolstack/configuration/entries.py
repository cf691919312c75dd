"""The entries of disk=[…] and vif=[…] of a whole guest: who serves each, and whether they agree."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xenvirtio.toolstack.configuration.configuration import quote
from xenvirtio.toolstack.configuration.disk import DiskSettings, other_image, virtio_disk
from xenvirtio.toolstack.configuration.served import QEMU
from xenvirtio.toolstack.configuration.vif import NicSettings, QemuNic, qemu_nic, server, virtio_nic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.toolstack.configuration.configuration import GuestConfig
    from xenvirtio.toolstack.configuration.grammar import Atom
    from xenvirtio.toolstack.configuration.served import Served


@dataclass
class Disks:
    """A guest's disks by server, virtio disks in the order of their letters."""

    ours: list[DiskSettings] = field(default_factory=list)
    of_qemu: list[DiskSettings] = field(default_factory=list)
    of_xl: list[str] = field(default_factory=list)  #: the entries as they are written


@dataclass
class Nics:
    """A guest's NICs by server."""

    ours: list[NicSettings] = field(default_factory=list)
    of_qemu: list[QemuNic] = field(default_factory=list)
    for_xl: list[str] = field(default_factory=list)  #: entries of vif=[…], those for QEMU among them


def disks(config: GuestConfig, served: Served) -> Disks:
    """Raises ConfigError."""
    found = Disks()
    virtio: dict[str, DiskSettings] = {}
    images: list[_Image] = []
    for entry in config.entries("disk"):
        disk = virtio_disk(entry, served)
        if disk is None:
            found.of_xl.append(entry.written)
            other = other_image(entry)
            if other is not None:
                images.append(_Image(*other, virtio=False).checked(entry, images))
            continue
        if disk.vdev in virtio:
            entry.fail(f"{disk.vdev} is given twice", "each disk of a guest needs a vdev of its own")
        images.append(_Image(disk.vdev, disk.path, disk.writable, virtio=True).checked(entry, images))
        virtio[disk.vdev] = disk
    for disk in sorted(virtio.values(), key=lambda disk: disk.number):
        (found.of_qemu if disk.backend == QEMU else found.ours).append(disk)
    return found


@dataclass(frozen=True)
class _Image:
    """What a disk is on, whoever serves it."""

    vdev: str
    path: str
    writable: bool
    virtio: bool

    def checked(self, entry: Atom, others: Sequence[_Image]) -> _Image:
        """Itself; a ConfigError if a virtio disk shares its image, and one of both may write."""
        here = os.path.realpath(self.path)
        for other in others:
            one_writes = (self.writable or other.writable) and (self.virtio or other.virtio)
            if one_writes and os.path.realpath(other.path) == here:
                hint = "make both read-only (access=ro), or give one another image"
                entry.fail(f"{self.vdev} and {other.vdev} are the same image, and one may write", hint)
        return self


def nics(config: GuestConfig, kind: str, guest: str, served: Served) -> Nics:
    """The NICs of a guest of this type and name. Raises ConfigError."""
    found = Nics()
    for entry in config.entries("vif"):
        by = server(entry, kind, served)
        if by is None:
            found.for_xl.append(entry.written)
            continue
        number = len(found.ours) + len(found.of_qemu)
        nic: NicSettings | QemuNic
        if by == QEMU:
            nic = qemu_nic(entry, guest, number)
            _check(nic, entry, found)
            found.of_qemu.append(nic)
            found.for_xl.append(quote(nic.entry))
        else:
            nic = virtio_nic(entry, guest, number)
            _check(nic, entry, found)
            found.ours.append(nic)
    return found


def _check(nic: NicSettings | QemuNic, entry: Atom, others: Nics) -> None:
    taken: list[NicSettings | QemuNic] = [*others.ours, *others.of_qemu]
    for other in taken:
        if nic.mac == other.mac:
            entry.fail(f"the MAC address {nic.mac} is given twice", "leave mac= out, and one is made")
        if nic.vifname is not None and nic.vifname == other.vifname:
            entry.fail(f"vifname={nic.vifname} is given twice", "leave vifname= out, and one is made")
