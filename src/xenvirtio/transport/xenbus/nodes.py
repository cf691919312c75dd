"""Reading the nodes of a device, B and F of docs/virtio-xenbus.md.

What stands in B was written by the toolstack; what stands in F by the guest, at any time, with any content:
each node is read once, numbers and lengths are bounded, and nonsense is a NodeError whose words go to
B/error.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.errors import XenError, XenvirtioError
from xenvirtio.spec import xenbus
from xenvirtio.transport.xenbus.states import XenbusState, parse_state

if TYPE_CHECKING:
    from xenvirtio.xen.interfaces import View

#: domids from here on are reserved (xen/include/public/xen.h, DOMID_FIRST_RESERVED)
DOMID_LIMIT = 0x7FF0
#: device numbers: libxl's encoding of a vdev fits in 28 bits
DEVID_LIMIT = 1 << 28
#: ports of the FIFO event channel ABI (xen/include/public/event_channel.h, EVTCHN_FIFO_NR_CHANNELS)
PORT_LIMIT = 1 << 17
#: settings of one device that the toolstack writes
HOST_SETTINGS_LIMIT = 64
#: longest B/error, bytes: below XenStore's 4096 whatever the words are
ERROR_BYTES = 1024

#: in B/host: a number that the toolstack raises when it changes settings of a device that is served; and, by
#: the daemon, the last one that was carried out, followed by a blank and why not, if it could not be
UPDATE = "update"
UPDATED = "updated"

ACCESS_MODES = (xenbus.MemoryAccess.GRANT, xenbus.MemoryAccess.FOREIGN)


class NodeError(XenvirtioError):
    """A node holds what it must not hold, or is missing."""


@dataclass(frozen=True, order=True)
class DeviceKey:
    """Which device: the guest's domain and the device's number in it."""

    domid: int
    devid: int

    def __str__(self) -> str:
        return f"{self.domid}/{self.devid}"

    def backend(self, own: int) -> str:
        """B, `own` being the backend's domain."""
        return f"{backend_root(own)}/{self}"

    @property
    def frontend(self) -> str:
        """F."""
        return f"/local/domain/{self.domid}/device/{xenbus.KIND}/{self.devid}"


@dataclass(frozen=True)
class Settings:
    """What the toolstack wrote about a device."""

    device_id: int
    """virtio device ID (virtio 1.3 §5)"""
    access: tuple[str, ...]
    """memory-access modes allowed, preferred first"""
    host: dict[str, str]
    """B/host: path, mac, …; for the device to understand"""
    update: str = ""
    """which state of them this is"""


@dataclass(frozen=True)
class Offer:
    """What the frontend offers to connect with."""

    access: str
    page: int
    """grant reference of the device page"""
    port: int
    """the frontend's event channel port"""


@dataclass(frozen=True)
class Snapshot:
    """The nodes that the walk of states depends on, read once."""

    exists: bool
    """it is there, and ours"""
    online: bool
    backend: XenbusState
    frontend: XenbusState
    error: bool = False


def backend_root(own: int) -> str:
    """The directory of all devices that domain `own` serves."""
    return f"/local/domain/{own}/backend/{xenbus.KIND}"


def parse_number(text: str | None, limit: int) -> int | None:
    """A decimal number below `limit`, as a toolstack or an honest guest writes it; None for anything else."""
    if text is None or not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII):
        return None
    value = int(text)
    return value if value < limit else None


def parse_key(path: str, own: int) -> tuple[int | None, int | None]:
    """(domid, devid) of a path at or below `backend_root(own)`; None for what the path does not reach."""
    parts = path.removeprefix(backend_root(own)).strip("/").split("/")
    domid = parse_number(parts[0], DOMID_LIMIT)
    devid = parse_number(parts[1], DEVID_LIMIT) if len(parts) > 1 and domid is not None else None
    return domid, devid


def read_guest(view: View, path: str) -> str | None:
    """A node of the guest's: one whose permissions it has taken from us is as good as missing."""
    try:
        return view.read(path)
    except XenError as error:
        if error.errno == errno.EACCES:
            return None
        raise


def is_ours(view: View, key: DeviceKey, own: int) -> bool:
    """There is a device, and its transport is XenBus: other transports have theirs under the same names."""
    base = key.backend(own)
    ours = view.read(f"{base}/{xenbus.KEY_TRANSPORT}") == xenbus.TRANSPORT
    return ours and view.read(f"{base}/state") is not None


def snapshot(view: View, key: DeviceKey, own: int) -> Snapshot:
    """The states now. Raises XenError, never for what the guest did to its nodes."""
    base = key.backend(own)
    return Snapshot(
        exists=is_ours(view, key, own),
        online=view.read(f"{base}/online") == "1",
        backend=parse_state(view.read(f"{base}/state")),
        frontend=parse_state(read_guest(view, f"{key.frontend}/state")),
        error=view.read(f"{base}/{xenbus.KEY_ERROR}") is not None,
    )


def remove_devices(view: View, domid: int, own: int) -> None:
    """Removes the devices of a guest that is gone, none of another transport; call it in a transaction."""
    directory = f"{backend_root(own)}/{domid}"
    for name in view.names(directory) or []:
        if view.read(f"{directory}/{name}/{xenbus.KEY_TRANSPORT}") in (None, xenbus.TRANSPORT):
            view.remove(f"{directory}/{name}")
    if not view.names(directory):
        view.remove(directory)


def read_settings(view: View, key: DeviceKey, own: int) -> Settings:
    """B as the toolstack wrote it. Raises NodeError."""
    base = key.backend(own)
    if view.read(f"{base}/{xenbus.KEY_TRANSPORT}") != xenbus.TRANSPORT:
        raise NodeError(f"{base}/{xenbus.KEY_TRANSPORT} is not {xenbus.TRANSPORT!r}")
    if parse_number(view.read(f"{base}/frontend-id"), DOMID_LIMIT) != key.domid:
        raise NodeError(f"{base}/frontend-id is not {key.domid}")
    kind = re.fullmatch(r"virtio,device([0-9a-f]{1,4})", view.read(f"{base}/type") or "")
    if not kind:
        raise NodeError(f"{base}/type is not virtio,device<hexadecimal ID>")
    host = f"{base}/{xenbus.KEY_HOST}"
    names = view.names(host) or []
    if len(names) > HOST_SETTINGS_LIMIT:
        raise NodeError(f"{host} has more than {HOST_SETTINGS_LIMIT} nodes")
    settings = {name: view.read(f"{host}/{name}") or "" for name in names}
    access = tuple(settings.pop(xenbus.KEY_MEMORY_ACCESS, "").split()) or (xenbus.MemoryAccess.GRANT,)
    if unknown := [mode for mode in access if mode not in ACCESS_MODES]:
        raise NodeError(f"{host}/{xenbus.KEY_MEMORY_ACCESS}: {unknown[0]!r} is not one of {ACCESS_MODES}")
    settings.pop(UPDATED, None)
    return Settings(int(kind[1], 16), access, settings, settings.pop(UPDATE, ""))


def read_update(view: View, key: DeviceKey, own: int) -> str:
    """Which state of the settings is in B/host; empty: the first."""
    return view.read(f"{key.backend(own)}/{xenbus.KEY_HOST}/{UPDATE}") or ""


def publish_update(view: View, key: DeviceKey, own: int, update: str, error: str | None = None) -> None:
    """Tells the toolstack that this state of the settings holds, or why not; call it in a transaction."""
    path = f"{key.backend(own)}/{xenbus.KEY_HOST}/{UPDATED}"
    words = update if error is None else f"{update} {error}"
    words = words.encode(errors="replace")[:ERROR_BYTES].decode(errors="ignore")
    if is_ours(view, key, own) and view.read(path) != words:
        view.write(path, words)
        view.set_permissions(path, [f"n{own}"])


def note_error(view: View, key: DeviceKey, own: int, error: str) -> None:
    """Writes B/error and leaves B/state as it is; call it in a transaction."""
    if is_ours(view, key, own):
        _write_error(view, key, own, error)


def _write_error(view: View, key: DeviceKey, own: int, error: str) -> None:
    path = f"{key.backend(own)}/{xenbus.KEY_ERROR}"
    view.write(path, error.encode(errors="replace")[:ERROR_BYTES].decode(errors="ignore"))
    view.set_permissions(path, [f"n{own}"])  # host's paths are not the guest's business


def read_offer(view: View, key: DeviceKey, allowed: tuple[str, ...]) -> Offer:
    """F as the guest wrote it. Raises NodeError."""
    base = key.frontend
    version = read_guest(view, f"{base}/{xenbus.KEY_VERSION}")
    if version != str(xenbus.VERSION):
        raise NodeError(f"{base}/{xenbus.KEY_VERSION} is not {xenbus.VERSION}")
    access = read_guest(view, f"{base}/{xenbus.KEY_MEMORY_ACCESS}")
    if access not in allowed:
        raise NodeError(f"{base}/{xenbus.KEY_MEMORY_ACCESS} is not one of: {' '.join(allowed)}")
    page = parse_number(read_guest(view, f"{base}/{xenbus.KEY_DEVICE_PAGE}"), 1 << 32)
    if page is None:
        raise NodeError(f"{base}/{xenbus.KEY_DEVICE_PAGE} is not a grant reference")
    port = parse_number(read_guest(view, f"{base}/{xenbus.KEY_EVENT_CHANNEL}"), PORT_LIMIT)
    if not port:
        raise NodeError(f"{base}/{xenbus.KEY_EVENT_CHANNEL} is not an event channel port")
    return Offer(access, page, port)


def publish(
    view: View,
    key: DeviceKey,
    own: int,
    state: XenbusState,
    access: tuple[str, ...] = (),
    error: str | None = None,
) -> None:
    """Writes B/state, with what belongs to it; call it in a transaction.

    Does nothing where the toolstack has removed B, or has said online=0 while the device was opening.
    """
    base = key.backend(own)
    now = view.read(f"{base}/state")
    if not is_ours(view, key, own):
        return
    opening = state in (XenbusState.INIT_WAIT, XenbusState.CONNECTED)
    if opening and view.read(f"{base}/online") != "1":
        return
    if error is not None:
        _write_error(view, key, own, error)
    elif opening:
        view.remove(f"{base}/{xenbus.KEY_ERROR}")
    if state is XenbusState.INIT_WAIT:
        view.write(f"{base}/{xenbus.KEY_VERSION}", str(xenbus.VERSION))
        view.write(f"{base}/{xenbus.KEY_MEMORY_ACCESS}", " ".join(access))
        view.write(f"{base}/{xenbus.KEY_QUEUE_EVENT_CHANNELS}", "1")
    if now != str(state.value):
        view.write(f"{base}/state", str(state.value))


def guest_error(view: View, key: DeviceKey) -> str | None:
    """Why the frontend gave up, in at most 512 printable characters of its own (XB-15), if it says so."""
    words = read_guest(view, f"/local/domain/{key.domid}/error/device/{xenbus.KIND}/{key.devid}/error")
    return "".join(c for c in words[:512] if c.isprintable()) if words else None


def guest_name(view: View, domid: int) -> str:
    """The guest's name for people, at most 64 printable characters; `domain 5` if it has none."""
    name = read_guest(view, f"/local/domain/{domid}/name") or ""
    return "".join(c for c in name[:64] if c.isprintable()) or f"domain {domid}"


def guest_uuid(view: View, domid: int) -> str:
    """What tells this guest from a later one with the same domid."""
    return (read_guest(view, f"/local/domain/{domid}/vm") or "")[:64]
