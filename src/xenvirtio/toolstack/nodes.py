"""XenStore nodes of a guest's virtio devices (docs/virtio-xenbus.md).

B  /local/domain/<backend>/backend/virtio/<guest>/<device>     the backend's; B/host only it can read
F  /local/domain/<guest>/device/virtio/<device>                the guest's
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.spec.xenbus import KEY_ERROR, KEY_HOST, KEY_TRANSPORT, KIND, TRANSPORT
from xenvirtio.transport.xenbus.nodes import DeviceKey, backend_root
from xenvirtio.transport.xenbus.states import XenbusState, parse_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xenvirtio.toolstack.guest import VirtioDevice
    from xenvirtio.xen.interfaces import View

#: the domain that serves devices
BACKEND = 0
#: characters shown of what a guest wrote
GUEST_WORDS_MAX = 200


def guest_backends(domid: int) -> str:
    """The directory of all backend nodes of a guest."""
    return f"{backend_root(BACKEND)}/{domid}"


def plug(view: View, domid: int, device: VirtioDevice) -> None:
    """Write a device's nodes; both sides start at Initialising. Call it in a transaction."""
    key = DeviceKey(domid, device.number)
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


def unplug_all(view: View, domid: int) -> None:
    """Remove all nodes that a guest which is gone has left; none may be there."""
    view.remove(guest_backends(domid))


def state(view: View, path: str) -> XenbusState:
    """The state in a device's directory; a guest may write anything there."""
    return parse_state(view.read(f"{path}/state"))


def frontend_error(view: View, domid: int, number: int) -> str | None:
    """Why the guest's driver gave a device up, in its words, made fit to print."""
    text = view.read(f"/local/domain/{domid}/error/device/{KIND}/{number}/error")
    if not text:
        return None
    return printable(text)


def printable(text: str) -> str:
    """What somebody else wrote, fit for a terminal: no control characters, and not endless."""
    return "".join(char if char.isprintable() else "?" for char in text[:GUEST_WORDS_MAX])


def words(state: XenbusState) -> str:
    """A state as Xen spells it, with the number that XenStore shows: InitWait (2)."""
    return f"{state.label} ({state.value})"


def backend_error(view: View, path: str) -> str | None:
    """Why the backend closed a device, in its words."""
    return view.read(f"{path}/{KEY_ERROR}")
