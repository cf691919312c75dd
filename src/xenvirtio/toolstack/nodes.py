"""XenStore nodes of a guest's virtio devices (docs/virtio-xenbus.md).

B  /local/domain/<backend>/backend/virtio/<guest>/<device>     the backend's; B/host only it can read
F  /local/domain/<guest>/device/virtio/<device>                the guest's
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.spec.xenbus import KEY_ERROR, KEY_HOST, KEY_TRANSPORT, KEY_UNLESS_USED, KIND, TRANSPORT
from xenvirtio.transport.xenbus.nodes import UPDATE, UPDATED, DeviceKey, backend_root, is_ours
from xenvirtio.transport.xenbus.states import XenbusState, parse_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xenvirtio.toolstack.configuration.guest import VirtioDevice
    from xenvirtio.xen.interfaces import View

#: the domain that serves devices
BACKEND = 0
#: characters shown of what a guest wrote
GUEST_WORDS_MAX = 200


@dataclass(frozen=True)
class Plugged:
    """A virtio device that a guest has, as B/host has it."""

    domid: int
    number: int
    vdev: str
    settings: Mapping[str, str]

    @property
    def is_disk(self) -> bool:
        return "path" in self.settings

    @property
    def back(self) -> str:
        """B."""
        return DeviceKey(self.domid, self.number).backend(BACKEND)

    @property
    def front(self) -> str:
        """F."""
        return DeviceKey(self.domid, self.number).frontend


def guest_backends(domid: int) -> str:
    """The directory of all backend nodes of a guest."""
    return f"{backend_root(BACKEND)}/{domid}"


def plug(view: View, domid: int, device: VirtioDevice) -> None:
    """Write a device's nodes; both sides start at Initialising. Call it in a transaction."""
    key = DeviceKey(domid, device.number)
    view.remove(error_folder(domid, device.number))  # of an earlier device with its number
    back = key.backend(BACKEND)
    backend = {
        "frontend": key.frontend,
        "frontend-id": str(domid),
        "online": "1",
        "state": str(XenbusState.INITIALISING.value),
        "type": f"virtio,device{device.device_id:x}",
        KEY_TRANSPORT: TRANSPORT,
    }
    frontend = {
        "backend": back,
        "backend-id": str(BACKEND),
        "state": str(XenbusState.INITIALISING.value),
        KEY_TRANSPORT: TRANSPORT,
    }
    readable_by_guest = (f"n{BACKEND}", f"r{domid}")
    _write(view, back, backend, readable_by_guest)
    _write(view, f"{back}/{KEY_HOST}", device.host_settings(domid), (f"n{BACKEND}",))
    _write(view, key.frontend, frontend, (f"n{domid}", f"r{BACKEND}"))


def _write(view: View, folder: str, values: Mapping[str, str], permissions: Sequence[str]) -> None:
    view.mkdir(folder)
    view.set_permissions(folder, permissions)
    for key, value in values.items():
        path = f"{folder}/{key}"
        view.write(path, value)
        view.set_permissions(path, permissions)


def plugged(view: View, domid: int) -> list[Plugged]:
    """The devices of ours that a guest has, by their numbers."""
    found = []
    names = view.names(guest_backends(domid)) or []
    for number in sorted(int(name) for name in names if name.isascii() and name.isdigit()):
        back = DeviceKey(domid, number).backend(BACKEND)
        if is_ours(view, DeviceKey(domid, number), BACKEND):
            host = f"{back}/{KEY_HOST}"
            settings = {name: view.read(f"{host}/{name}") or "" for name in view.names(host) or []}
            found.append(Plugged(domid, number, settings.get("vdev", str(number)), settings))
    return found


def ask_to_close(view: View, device: Plugged, *, insist: bool) -> None:
    """Ask the guest to let a device go (XB-22), unless it uses it (XB-27). Call it in a transaction."""
    view.remove(error_folder(device.domid, device.number))
    if view.read(f"{device.back}/state") is not None:
        if insist:
            view.remove(f"{device.back}/{KEY_UNLESS_USED}")
        else:
            view.write(f"{device.back}/{KEY_UNLESS_USED}", "1")
            view.set_permissions(f"{device.back}/{KEY_UNLESS_USED}", (f"n{BACKEND}", f"r{device.domid}"))
        view.write(f"{device.back}/online", "0")
        view.write(f"{device.back}/state", str(XenbusState.CLOSING.value))


def take_back(view: View, device: Plugged) -> bool:
    """Withdraw `ask_to_close` from a guest that has not begun; whether that was possible."""
    if (state(view, device.back), state(view, device.front)) != (XenbusState.CLOSING, XenbusState.CONNECTED):
        return False
    view.remove(error_folder(device.domid, device.number))
    view.remove(f"{device.back}/{KEY_UNLESS_USED}")
    view.write(f"{device.back}/online", "1")
    view.write(f"{device.back}/state", str(XenbusState.CONNECTED.value))
    return True


def in_use(view: View, device: Plugged) -> str | None:
    """Why the guest keeps a device that it was asked for, in its words; None if it does not say so."""
    code, _, why = (frontend_error(view, device.domid, device.number) or "").partition(" ")
    return why if code == str(errno.EBUSY) else None


def unplug(view: View, device: Plugged) -> None:
    """Remove all nodes of a device, and the folders that are empty then. Call it in a transaction."""
    view.remove(device.front)
    view.remove(device.back)
    view.remove(error_folder(device.domid, device.number))
    for path in (device.front, device.back):
        folder = path.rpartition("/")[0]
        if view.names(folder) == []:
            view.remove(folder)


def change(view: View, device: Plugged, settings: Mapping[str, str | None]) -> str:
    """Change settings of a device that is served (None removes one). Call it in a transaction.

    Returns the number of this change, for `changed`."""
    host = f"{device.back}/{KEY_HOST}"
    update = str(int(view.read(f"{host}/{UPDATE}") or 0) + 1)
    for key, value in {**settings, UPDATE: update}.items():
        if value is None:
            view.remove(f"{host}/{key}")
        else:
            view.write(f"{host}/{key}", value)
            view.set_permissions(f"{host}/{key}", (f"n{BACKEND}",))
    return update


def changed(view: View, device: Plugged, update: str) -> str | None:
    """What the daemon has answered to a change: nothing (None), done (empty), or why not."""
    number, _, words = (view.read(f"{device.back}/{KEY_HOST}/{UPDATED}") or "").partition(" ")
    if not number.isdigit() or int(number) < int(update):
        return None
    return words


def unplug_all(view: View, domid: int) -> None:
    """Remove all nodes that a guest which is gone has left; none may be there."""
    view.remove(guest_backends(domid))


def state(view: View, path: str) -> XenbusState:
    """The state in a device's directory; a guest may write anything there."""
    return parse_state(view.read(f"{path}/state"))


def frontend_error(view: View, domid: int, number: int) -> str | None:
    """Why the guest's driver gave a device up, in its words, made fit to print."""
    text = view.read(f"{error_folder(domid, number)}/error")
    if not text:
        return None
    return printable(text)


def error_folder(domid: int, number: int) -> str:
    """Where a guest's driver says what went wrong."""
    return f"/local/domain/{domid}/error/device/{KIND}/{number}"


def printable(text: str) -> str:
    """What somebody else wrote, fit for a terminal: no control characters, and not endless."""
    return "".join(char if char.isprintable() else "?" for char in text[:GUEST_WORDS_MAX])


def words(state: XenbusState) -> str:
    """A state as Xen spells it, with the number that XenStore shows: InitWait (2)."""
    return f"{state.label} ({state.value})"


def backend_error(view: View, path: str) -> str | None:
    """Why the backend closed a device, in its words."""
    return view.read(f"{path}/{KEY_ERROR}")
