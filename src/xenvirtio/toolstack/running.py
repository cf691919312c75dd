"""Guests that run, and their devices, by the names that people give them."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError, XenError, XenvirtioError
from xenvirtio.toolstack.nodes import plugged

if TYPE_CHECKING:
    from xenvirtio.toolstack.checks import Host
    from xenvirtio.toolstack.create import Toolstack
    from xenvirtio.toolstack.nodes import Plugged
    from xenvirtio.toolstack.records import Record
    from xenvirtio.toolstack.xl import Domain, Xl
    from xenvirtio.xen.interfaces import View

#: what devices of ours are called
OURS = re.compile(r"vd[a-z]{1,2}|eth\d{1,3}")
XLS = re.compile(r"(xvd|hd|sd)[a-z]+\d*")


def find_guest(text: str, xl: Xl) -> Domain:
    """The guest that runs with this domain number, name or UUID; the number counts first, as at xl.

    Raises UsageError if there is none.
    """
    domains = [domain for domain in xl.domains() if not domain.dying]
    found = [domain for domain in domains if text == str(domain.domid)]
    found = found or [domain for domain in domains if text == domain.name]
    found = found or [
        domain for domain in domains if _is_uuid(text) and uuid.UUID(text) == uuid.UUID(domain.uuid)
    ]
    if not found:
        raise UsageError(f"there is no guest {text}", hint="xenvirtio list, or: xl list")
    return found[0]


def find_running(text: str, xl: Xl) -> Domain:
    """A guest whose devices can change. Raises UsageError if there is none, or it has ended."""
    domain = find_guest(text, xl)
    if domain.domid == 0:
        raise UsageError("domain 0 is this machine: it has no virtio devices", hint="xl list")
    if domain.reason is not None:
        raise UsageError(f"guest {domain.name} has ended ({domain.reason})", hint="xl list")
    return domain


def check_daemon(host: Host, otherwise: str = "") -> None:
    """Raises XenvirtioError if nobody serves devices; `otherwise` is another way out."""
    if not host.daemon_runs():
        hint = "xenvirtio daemon"
        raise XenvirtioError(
            "the daemon that serves virtio devices does not run",
            f"{hint}; or: {otherwise}" if otherwise else hint,
        )


def find_device(view: View, domain: Domain, name: str) -> Plugged | None:
    """The guest's virtio device of this name; None if it has none.

    Raises UsageError for what cannot be the name of one.
    """
    devices = plugged(view, domain.domid)
    for device in devices:
        if device.vdev == name:
            return device
    if OURS.fullmatch(name):
        return None
    hint = (
        f"xl block-list {domain.name}"
        if XLS.fullmatch(name)
        else f"xenvirtio list; {_theirs(domain, devices)}"
    )
    whose = "is xl's" if XLS.fullmatch(name) else "is no name of a virtio device"
    raise UsageError(f"'{name}' {whose}: {_theirs(domain, devices)}", hint)


def need_device(view: View, domain: Domain, name: str) -> Plugged:
    """As `find_device`, but a UsageError if the guest has no such device."""
    device = find_device(view, domain, name)
    if device is None:
        theirs = _theirs(domain, plugged(view, domain.domid))
        raise UsageError(f"guest {domain.name} has no device {name}: {theirs}", hint="xenvirtio list")
    return device


def need_record(toolstack: Toolstack, domain: Domain) -> Record:
    """What is remembered of the guest. Raises UsageError if nobody of ours restarts it."""
    record = toolstack.records.load(domain.uuid)
    if record is None or record.domid != domain.domid:
        raise UsageError(
            f"--persist: guest {domain.name} was not started by `xenvirtio create`:"
            " xl's own monitor restarts it, from a configuration that does not know the device",
            hint="leave --persist out, or start the guest with xenvirtio create",
        )
    return record


def refuse_qemu_disk(toolstack: Toolstack, domain: Domain, name: str) -> None:
    """Raises UsageError if the guest has a disk of this name from its QEMU: those stay as long as it runs."""
    record = toolstack.records.load(domain.uuid)
    if record is not None and record.domid == domain.domid and name in record.guest.qemu_disks:
        hint = f"shut {domain.name} down and change its configuration; backend=xenvirtio disks come and go"
        raise UsageError(f"{name} of guest {domain.name} is served by its QEMU, for as long as it runs", hint)


def lost(domain: Domain) -> XenError:
    """The guest went while something was done to it."""
    return XenError(f"guest {domain.name} ended or was restarted meanwhile", hint="xl list")


def _theirs(domain: Domain, devices: list[Plugged]) -> str:
    if not devices:
        return f"guest {domain.name} has no virtio devices"
    return f"the virtio devices of guest {domain.name} are {', '.join(device.vdev for device in devices)}"


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
