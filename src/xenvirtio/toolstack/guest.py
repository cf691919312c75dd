"""A configuration as a guest: its virtio devices, what happens when it stops, and what xl gets to see.

An HVM guest may have virtio devices as well: they come over XenBus, as on PV and PVH, so it needs our module.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xenvirtio.spec import block, net
from xenvirtio.spec.xenbus import MemoryAccess
from xenvirtio.toolstack.disk import DISKS_MAX, DiskSettings, other_image, virtio_disk
from xenvirtio.toolstack.vif import NicSettings, is_virtio, virtio_nic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xenvirtio.toolstack.config import GuestConfig
    from xenvirtio.toolstack.grammar import Atom

#: event → its default action (xl.cfg(5))
LIFECYCLE = {"poweroff": "destroy", "reboot": "restart", "crash": "destroy", "watchdog": "destroy"}
#: longest name of a guest, bytes: its log is a file of that name
NAME_BYTES = 200
ACTIONS = ("destroy", "restart", "preserve", "coredump-destroy", "coredump-restart")


@dataclass(frozen=True)
class VirtioDevice:
    """One virtio device of a guest, ready to be written to XenStore."""

    number: int  #: devid in the XenStore paths: disks from 0, NICs from 256
    vdev: str  #: vda, eth0
    device_id: int  #: virtio 1.3 §5
    memory_access: str
    settings: Mapping[str, str]  #: B/host (docs/virtio-xenbus.md), less what depends on the domain's number

    @property
    def is_disk(self) -> bool:
        return self.device_id == block.DEVICE_ID

    def host_settings(self, domid: int) -> dict[str, str]:
        """B/host of this device for a domain."""
        settings = {"memory-access": self.memory_access, "vdev": self.vdev, **self.settings}
        if not self.is_disk:
            settings.setdefault("vifname", f"vio{domid}.{self.vdev.removeprefix('eth')}")
        return settings


@dataclass(frozen=True)
class Guest:
    """What `create` makes."""

    name: str
    uuid: str
    type: str  #: pv, pvh or hvm
    devices: tuple[VirtioDevice, ...]
    actions: Mapping[str, str]  #: poweroff, reboot, crash, watchdog → what follows
    xl_config: str  #: the configuration that xl gets
    files: tuple[str, ...] = ()  #: kernel and ramdisk, which must be there
    warnings: tuple[str, ...] = field(default=(), compare=False)


def guest_from(config: GuestConfig) -> Guest:
    """The guest that a configuration describes.

    Raises ConfigError.
    """
    name = config.string("name")
    if not name:
        config.fail("name", "the guest has no name", 'add name = "…"')
    if not name.isprintable() or len(name.encode()) > NAME_BYTES:
        hint = f"printable characters, at most {NAME_BYTES} bytes: xl list prints it as it is"
        config.fail("name", "this cannot be the name of a guest", hint)
    kind = _type(config)
    access = _memory_access(config)
    disks, xl_disks = _disks(config)
    nics, xl_vifs = _nics(config, kind, name)
    devices = (*(_disk_device(disk, access) for disk in disks), *(_nic_device(nic, access) for nic in nics))
    lists: dict[str, Sequence[Atom]] = {}
    if disks:
        lists["disk"] = xl_disks
    if nics:
        lists["vif"] = xl_vifs
    identity = _uuid(config)
    extra = {} if config.string("uuid") else {"uuid": identity}
    return Guest(
        name=name,
        uuid=identity,
        type=kind,
        devices=devices,
        actions={event: _action(config, event) for event in LIFECYCLE},
        xl_config=config.for_xl(without=frozenset({"memory_access"}), lists=lists, extra=extra),
        files=tuple(path for key in ("kernel", "ramdisk") if (path := config.string(key))),
        warnings=tuple(_warnings(config, kind, devices)),
    )


def _type(config: GuestConfig) -> str:
    kind = config.string("type")
    if kind is None:
        kind = {"hvm": "hvm", "generic": "pv", None: "pv"}.get(config.string("builder"))
        if kind is None:
            config.fail("builder", "builder is hvm or generic", 'type = "pv", "pvh" or "hvm"')
    if kind not in ("pv", "pvh", "hvm"):
        config.fail("type", f"unknown guest type '{kind}'", "pv, pvh or hvm")
    return kind


def _memory_access(config: GuestConfig) -> str:
    access = config.string("memory_access") or MemoryAccess.GRANT
    if access not in (MemoryAccess.GRANT, MemoryAccess.FOREIGN):
        config.fail("memory_access", f"unknown memory_access '{access}'", "grant or foreign")
    return access


def _uuid(config: GuestConfig) -> str:
    given = config.string("uuid")
    if given is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(given))
    except ValueError:
        config.fail("uuid", f"'{given}' is no UUID", "leave it out, and one is made")


def _action(config: GuestConfig, event: str) -> str:
    action = config.string(f"on_{event}") or LIFECYCLE[event]
    if action not in ACTIONS:
        config.fail(
            f"on_{event}",
            f"on_{event} = '{action}' cannot be done for a guest with virtio devices",
            ", ".join(ACTIONS),
        )
    return action


def _disks(config: GuestConfig) -> tuple[list[DiskSettings], list[Atom]]:
    """Ours, and what stays with xl."""
    ours: dict[str, DiskSettings] = {}
    left: list[Atom] = []
    images: list[_Image] = []
    for entry in config.entries("disk"):
        disk = virtio_disk(entry)
        if disk is None:
            left.append(entry)
            other = other_image(entry)
            if other is not None:
                images.append(_Image(*other, ours=False).checked(entry, images))
            continue
        if disk.vdev in ours:
            entry.fail(f"{disk.vdev} is given twice", "each disk of a guest needs a vdev of its own")
        images.append(_Image(disk.vdev, disk.path, disk.writable, ours=True).checked(entry, images))
        ours[disk.vdev] = disk
    return sorted(ours.values(), key=lambda disk: disk.number), left


@dataclass(frozen=True)
class _Image:
    """What a disk is on, whoever serves it."""

    vdev: str
    path: str
    writable: bool
    ours: bool

    def checked(self, entry: Atom, others: Sequence[_Image]) -> _Image:
        """Itself; a ConfigError if a disk of ours shares its image, and one of both may write."""
        here = os.path.realpath(self.path)
        for other in others:
            one_writes = (self.writable or other.writable) and (self.ours or other.ours)
            if one_writes and os.path.realpath(other.path) == here:
                hint = "make both read-only (access=ro), or give one another image"
                entry.fail(f"{self.vdev} and {other.vdev} are the same image, and one may write", hint)
        return self


def _nics(config: GuestConfig, kind: str, guest: str) -> tuple[list[NicSettings], list[Atom]]:
    """Ours, and what stays with xl."""
    ours: list[NicSettings] = []
    left: list[Atom] = []
    for entry in config.entries("vif"):
        if not is_virtio(entry, kind):
            left.append(entry)
            continue
        nic = virtio_nic(entry, guest, len(ours))
        for other in ours:
            if nic.mac == other.mac:
                entry.fail(f"the MAC address {nic.mac} is given twice", "leave mac= out, and one is made")
            if nic.vifname is not None and nic.vifname == other.vifname:
                entry.fail(f"vifname={nic.vifname} is given twice", "leave vifname= out, and one is made")
        ours.append(nic)
    return ours, left


def _disk_device(disk: DiskSettings, access: str) -> VirtioDevice:
    settings = {"path": disk.path, "mode": "w" if disk.writable else "r", "discard": str(int(disk.discard))}
    return VirtioDevice(disk.number, disk.vdev, block.DEVICE_ID, disk.memory_access or access, settings)


def _nic_device(nic: NicSettings, access: str) -> VirtioDevice:
    settings = {"mac": nic.mac, "bridge": nic.bridge}
    if nic.vifname is not None:
        settings["vifname"] = nic.vifname
    if nic.mtu is not None:
        settings["mtu"] = str(nic.mtu)
    return VirtioDevice(
        DISKS_MAX + nic.number, nic.vdev, net.DEVICE_ID, nic.memory_access or access, settings
    )


def _warnings(config: GuestConfig, kind: str, devices: Sequence[VirtioDevice]) -> list[str]:
    """Said, not done: a changed command line would be a changed guest."""
    if kind != "pv" or all(device.memory_access == MemoryAccess.GRANT for device in devices):
        return []
    parts = (
        [config.string("cmdline")]
        if config.last("cmdline")
        else [config.string("root"), config.string("extra")]
    )
    if "iommu=soft" in " ".join(part or "" for part in parts).split():
        return []
    line = f'{"cmdline" if config.last("cmdline") else "extra"} += " iommu=soft"'
    why = "memory_access=foreign on a PV guest needs iommu=soft on its kernel's command line"
    return [f"{why}; add this line to {config.name}:  {line}"]
