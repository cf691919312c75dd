"""A configuration as a guest: its virtio devices, what happens when it stops, and what xl gets to see.

An HVM guest may have virtio devices as well: over XenBus, as on PV and PVH, with our module; or, with
`backend=qemu`, from its own QEMU, which needs nothing in the guest.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from xenvirtio.spec import block, net
from xenvirtio.spec.xenbus import KEY_MAP_CACHE, MAP_CACHE_MAX, MemoryAccess
from xenvirtio.toolstack.configuration import bootloader, entries, qemu, xm
from xenvirtio.toolstack.configuration.disk import DISKS_MAX
from xenvirtio.toolstack.configuration.served import KEY, XENVIRTIO, served

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xenvirtio.toolstack.configuration.configuration import GuestConfig
    from xenvirtio.toolstack.configuration.disk import DiskSettings
    from xenvirtio.toolstack.configuration.entries import Disks, Nics
    from xenvirtio.toolstack.configuration.vif import NicSettings

#: event → its default action (xl.cfg(5))
LIFECYCLE = {"poweroff": "destroy", "reboot": "restart", "crash": "destroy", "watchdog": "destroy"}
#: reason and action of a guest that gives way to another kernel (kexec, kdump)
SOFT_RESET = "soft-reset"
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
    actions: Mapping[str, str]  #: poweroff, reboot, crash, watchdog, soft-reset → what follows
    xl_config: str  #: the configuration that xl gets
    files: tuple[str, ...] = ()  #: kernel and ramdisk, which must be there
    bootloader: bootloader.Bootloader | None = None  #: finds kernel and ramdisk, at each start
    warnings: tuple[str, ...] = field(default=(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)  #: what was added to the configuration
    #: disks that the guest's QEMU serves: vdev → path, mode (r, w), format
    qemu_disks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def images(self) -> list[tuple[str, str, bool]]:
        """vdev, path, and whether it is written, of each virtio disk's image."""
        disks = {device.vdev: device.settings for device in self.devices if device.is_disk} | dict(
            self.qemu_disks
        )
        return [(vdev, disk["path"], disk["mode"] == "w") for vdev, disk in disks.items()]


def guest_from(config: GuestConfig, machine: str = XENVIRTIO) -> Guest:
    """The guest that a configuration describes; `machine` is who serves, if the configuration does not say.

    Raises ConfigError.
    """
    name = config.string("name")
    if not name:
        config.fail("name", "the guest has no name", 'add name = "…"')
    if not name.isprintable() or len(name.encode()) > NAME_BYTES:
        hint = f"printable characters, at most {NAME_BYTES} bytes: xl list prints it as it is"
        config.fail("name", "this cannot be the name of a guest", hint)
    xm.refuse(config)
    kind = _type(config)
    access = _memory_access(config)
    who = served(config, kind, machine)
    disks, nics = entries.disks(config, who), entries.nics(config, kind, name, who)
    devices = _cached(
        [
            *(disk_device(disk, access) for disk in disks.ours),
            *(nic_device(nic, access) for nic in nics.ours),
        ],
        _map_cache(config),
    )
    kept = qemu.keep_plugged(config, [disk.vdev for disk in disks.of_qemu], bool(nics.of_qemu))
    loader = bootloader.bootloader(config, kind)
    identity = _uuid(config)
    return Guest(
        name=name,
        uuid=identity,
        type=kind,
        devices=devices,
        actions=_actions(config, kind),
        xl_config=config.for_xl(
            without=frozenset({"memory_access", "map_cache", KEY})
            | (bootloader.SETTINGS if loader else frozenset()),
            lists=_lists(config, disks, nics),
            extra={} if config.string("uuid") else {"uuid": identity},
            appended=kept.appended,
        ),
        files=() if loader else _files(config, kind),
        bootloader=loader,
        warnings=(*_warnings(config, kind, devices), *_order(disks), *kept.warnings),
        notes=kept.notes,
        qemu_disks={disk.vdev: _qemu_disk(disk) for disk in disks.of_qemu},
    )


def _lists(config: GuestConfig, disks: Disks, nics: Nics) -> dict[str, Sequence[str]]:
    """The lists that xl gets in place of the configuration's."""
    lists: dict[str, Sequence[str]] = {}
    if disks.ours or disks.of_qemu:
        lists["disk"] = disks.of_xl
    if nics.ours or nics.of_qemu:
        lists["vif"] = nics.for_xl
    if disks.of_qemu or nics.of_qemu:
        lists[qemu.ARGUMENTS] = qemu.device_model_arguments(config, disks.of_qemu)
    return lists


def _files(config: GuestConfig, kind: str) -> tuple[str, ...]:
    """Kernel and ramdisk; xl takes no notice of what xm called the kernel of an HVM guest."""
    if kind == "hvm" and qemu.direct_kernel(config) is None:
        return ()
    return tuple(path for key in ("kernel", "ramdisk") if (path := config.string(key)))


def _order(disks: Disks) -> list[str]:
    return qemu.disk_names([disk.vdev for disk in disks.of_qemu], [disk.vdev for disk in disks.ours])


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


def _map_cache(config: GuestConfig) -> str | None:
    """MiB of the guest that each device in mode foreign may keep mapped; None: the daemon's default."""
    text = config.string("map_cache")
    if text is not None and not (
        text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAP_CACHE_MAX
    ):
        hint = f"MiB for each device, at most {MAP_CACHE_MAX}; 0: nothing stays mapped"
        config.fail("map_cache", f"map_cache = '{text}' is no size", hint)
    return text


def _cached(devices: Sequence[VirtioDevice], size: str | None) -> tuple[VirtioDevice, ...]:
    if size is None:
        return tuple(devices)
    return tuple(
        replace(device, settings={**device.settings, KEY_MAP_CACHE: str(int(size))})
        if device.memory_access == MemoryAccess.FOREIGN
        else device
        for device in devices
    )


def _uuid(config: GuestConfig) -> str:
    given = config.string("uuid")
    if given is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(given))
    except ValueError:
        config.fail("uuid", f"'{given}' is no UUID", "leave it out, and one is made")


def _actions(config: GuestConfig, kind: str) -> dict[str, str]:
    found = {event: _action(config, f"on_{event}", usual) for event, usual in LIFECYCLE.items()}
    # an HVM guest's QEMU would begin anew as well, which only xl's own monitor has libxl do
    usual, possible = (SOFT_RESET, (*ACTIONS, SOFT_RESET)) if kind == "pvh" else (found["reboot"], ACTIONS)
    return {**found, SOFT_RESET: _action(config, "on_soft_reset", usual, possible)}


def _action(config: GuestConfig, key: str, usual: str, possible: tuple[str, ...] = ACTIONS) -> str:
    action = config.string(key) or usual
    if action not in possible:
        config.fail(
            key,
            f"{key} = '{action}' cannot be done for a guest with virtio devices",
            ", ".join(possible),
        )
    return action


def disk_device(disk: DiskSettings, access: str) -> VirtioDevice:
    """A disk as XenStore gets it; `access` is the memory access of a disk that does not say one."""
    settings = {"path": disk.path, "mode": "w" if disk.writable else "r", "discard": str(int(disk.discard))}
    return VirtioDevice(disk.number, disk.vdev, block.DEVICE_ID, disk.memory_access or access, settings)


def _qemu_disk(disk: DiskSettings) -> dict[str, str]:
    return {"path": disk.path, "mode": "w" if disk.writable else "r", "format": disk.format}


def nic_device(nic: NicSettings, access: str) -> VirtioDevice:
    """A NIC as XenStore gets it; `access` is the memory access of a NIC that does not say one."""
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
    warnings = qemu.arguments_without_use(config) if kind != "hvm" else []
    if kind != "pv" or all(device.memory_access == MemoryAccess.GRANT for device in devices):
        return warnings
    setting, line = config.command_line()
    if "iommu=soft" in line.split():
        return warnings
    why = "memory_access=foreign on a PV guest needs iommu=soft on its kernel's command line"
    return [*warnings, f'{why}; add this line to {config.name}:  {setting} += " iommu=soft"']
