"""A device for a guest that runs: what `create` does at its start, done to it now.

    check → nodes, one transaction → backend ready → guest connects → remembered, if that is wanted

Whatever fails, nothing of the device stays.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError, XenvirtioError
from xenvirtio.spec.xenbus import MemoryAccess
from xenvirtio.toolstack.checks import check_bridge, check_image, check_user
from xenvirtio.toolstack.configuration.disk import DISKS_MAX, virtio_disk
from xenvirtio.toolstack.configuration.grammar import Atom, Source
from xenvirtio.toolstack.configuration.guest import disk_device, nic_device
from xenvirtio.toolstack.configuration.served import XENVIRTIO
from xenvirtio.toolstack.configuration.vif import server, virtio_nic
from xenvirtio.toolstack.connect import wait_for_backends, wait_for_guest
from xenvirtio.toolstack.create import DEFAULT_LIMIT, plug_measured, uninterrupted
from xenvirtio.toolstack.hotplug.detach import UNDO_LIMIT, pull
from xenvirtio.toolstack.nodes import BACKEND, Plugged, plugged, state, words
from xenvirtio.toolstack.running import check_daemon, find_running, lost, need_record, refuse_qemu_disk
from xenvirtio.toolstack.sharing import check_unshared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xenvirtio.toolstack.configuration.guest import VirtioDevice
    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.records import Record
    from xenvirtio.toolstack.xl import Domain
    from xenvirtio.xen.interfaces import View

#: NICs of a guest: their numbers follow those of disks
NICS_MAX = 256
#: settings that only a vif=[…] entry has, and those that only a disk=[…] entry has
NIC_KEYS = frozenset(
    {"model", "mac", "bridge", "vifname", "mtu", "ip", "rate", "gatewaydev", "netdev", "vlan"}
)
DISK_KEYS = frozenset({"vdev", "target", "format", "access", "devtype"})


@dataclass(frozen=True)
class AttachOptions:
    """How to attach a device."""

    limit: float = DEFAULT_LIMIT  #: seconds, for backend and guest, each
    wait: bool = True  #: until the guest has connected it
    persist: bool = False  #: it is there after the guest's reboot, too


@dataclass(frozen=True)
class Attached:
    """A device that the guest has now."""

    domain: Domain
    device: VirtioDevice
    connected: bool  #: false: the guest is paused, or was not waited for


def attach(name: str, entry: Sequence[str], toolstack: Toolstack, options: AttachOptions) -> Attached:
    """Attach a device to the guest `name` (a domain number, name or UUID).

    `entry` is an entry of disk=[…] or vif=[…]; cut into several words, they are put together with commas.
    Raises UsageError before anything is made; XenError, TimeLimit, XenvirtioError and whatever interrupts it
    after all that was made is gone again.
    """
    store, say = toolstack.store, toolstack.say
    check_user(toolstack.host)
    domain = find_running(name, toolstack.xl)
    record = need_record(toolstack, domain) if options.persist else None
    atom = _atom(",".join(entry))
    choose = _nic(atom, domain, store) if _is_nic(atom.text) else _disk(atom, domain)
    check_daemon(toolstack.host)
    device = choose(store)
    if device.is_disk:
        refuse_qemu_disk(toolstack, domain, device.vdev)
        check_unshared(store, device)  # first: it names the guest
        check_image(device)
    else:
        check_bridge(device, toolstack.host)

    def make(view: View) -> VirtioDevice:
        chosen = choose(view)
        plug_measured(view, domain.domid, chosen)
        return chosen

    paused = domain.flags[2] == "p"
    with ExitStack() as undo:
        device = store.transact(make)
        undo.callback(_undo, domain, device, toolstack)
        say(f"plugging {device.vdev} into domain {domain.domid}; the backend gets ready")
        look = partial(toolstack.xl.find_domain, domain.uuid)
        wait_for_backends(store, domain, [device], options.limit, look)
        wait = options.wait and not paused
        if wait:
            say("the guest connects it")
            wait_for_guest(store, domain, [device], options.limit, look)
        if record is not None:
            _remember(toolstack, domain, device)
        undo.pop_all()
    return Attached(domain, device, wait)


def _atom(text: str) -> Atom:
    """The entry, so that mistakes are shown with their place."""
    return Atom(Source("<device>", text), 0, len(text), text, tuple(range(len(text) + 1)))


def _is_nic(text: str) -> bool:
    keys = {part.partition("=")[0].strip() for part in text.split(",") if "=" in part}
    return bool(keys & NIC_KEYS) and not keys & DISK_KEYS


def _disk(atom: Atom, domain: Domain) -> Callable[[View], VirtioDevice]:
    disk = virtio_disk(atom)
    if disk is None:
        atom.fail(
            "this is no virtio disk: those are vda, vdb, …", f"vdev=vda; or: xl block-attach {domain.name} …"
        )
    device = disk_device(disk, MemoryAccess.GRANT)

    def choose(view: View) -> VirtioDevice:
        devices = plugged(view, domain.domid)
        for other in devices:
            if other.number == device.number:
                raise _there_already(view, domain, other)
        return device

    return choose


def _there_already(view: View, domain: Domain, device: Plugged) -> UsageError:
    now = words(state(view, device.back))
    what = device.settings.get("path") or f"a NIC in {device.settings.get('bridge')}"
    return UsageError(
        f"guest {domain.name} has a device {device.vdev} already: {what}, backend {now}",
        hint=f"another vdev; or: xenvirtio detach {domain.name} {device.vdev}",
    )


def _nic(atom: Atom, domain: Domain, view: View) -> Callable[[View], VirtioDevice]:
    said = "model" in {part.partition("=")[0].strip() for part in atom.text.split(",")}
    if said and server(atom, view.read(f"/libxl/{domain.domid}/type") or "pv") != XENVIRTIO:
        atom.fail("this is no virtio NIC of ours", f"model=virtio; or: xl network-attach {domain.name} …")

    def choose(view: View) -> VirtioDevice:
        nics = [device for device in plugged(view, domain.domid) if device.number >= DISKS_MAX]
        taken = {device.number - DISKS_MAX for device in nics}
        macs = _macs_of_xl(view, domain) | {nic.settings.get("mac"): nic.vdev for nic in nics}
        free = [virtio_nic(atom, domain.name, n) for n in range(NICS_MAX) if n not in taken]
        if not free:
            raise UsageError(f"guest {domain.name} has {NICS_MAX} virtio NICs already")
        nic = next((nic for nic in free if nic.mac not in macs), None)  # the MAC that is made goes by number
        if nic is None:
            mac = free[0].mac
            hint = "leave mac= out, and one is made"
            raise UsageError(f"{macs[mac]} of guest {domain.name} has the MAC address {mac}", hint)
        return nic_device(nic, MemoryAccess.GRANT)

    return choose


def _macs_of_xl(view: View, domain: Domain) -> dict[str | None, str]:
    """MAC addresses of the NICs that xl made: netback's and QEMU's."""
    top = f"/local/domain/{BACKEND}/backend/vif/{domain.domid}"
    return {view.read(f"{top}/{name}/mac"): f"xl's NIC {name}" for name in view.names(top) or []}


def _remember(toolstack: Toolstack, domain: Domain, device: VirtioDevice) -> None:
    def add(record: Record) -> Record:
        others = [other for other in record.guest.devices if other.number != device.number]
        devices = tuple(sorted((*others, device), key=lambda each: each.number))
        return replace(record, guest=replace(record.guest, devices=devices))

    if toolstack.records.update(domain.uuid, domain.domid, add) is None:
        raise lost(domain)


def _undo(domain: Domain, device: VirtioDevice, toolstack: Toolstack) -> None:
    """The device goes as it came; an error here is only said, not raised."""
    with uninterrupted():
        try:
            toolstack.say(f"undoing: detaching {device.vdev}")
            settings = device.host_settings(domain.domid)
            made = Plugged(domain.domid, device.number, device.vdev, settings)
            pull(toolstack.store, made, UNDO_LIMIT)
        except XenvirtioError as error:
            again = f"xenvirtio detach {domain.name} {device.vdev} --force"
            toolstack.say(f"could not undo all: {error.message}; run: {again}")
