"""Devices plugged with xenstore-write into a guest that runs: entropy, which needs nothing else of dom0."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xenvirtio.lab import Lab

CONNECTED, CLOSED = "4", "6"

#: $1 the guest's domain, $2 the device's number; $3 the memory access that is allowed
_PLUG = """
back=/local/domain/0/backend/virtio/$1/$2 front=/local/domain/$1/device/virtio/$2
xenstore-write $back/frontend $front $back/frontend-id $1 $back/online 1 $back/type virtio,device4 \
    $back/transport xenbus $back/host/memory-access "$3" \
    $front/backend $back $front/backend-id 0 $front/transport xenbus
xenstore-chmod -r $back n0 r$1
xenstore-chmod -r $front n$1 r0
xenstore-write $back/state 1 $front/state 1
"""
#: waits, at most 30 s, until the frontend is in the state $3 or Closed
_STATE = """
n=0
until s=$(xenstore-read /local/domain/$1/device/virtio/$2/state) && { [ $s = $3 ] || [ $s = 6 ]; }; do
    n=$((n + 1)); [ $n -lt 60 ] || break; sleep 0.5
done
echo $s
"""
_UNPLUG = """
back=/local/domain/0/backend/virtio/$1/$2
xenstore-write $back/online 0 $back/state 5
n=0; until [ "$(xenstore-read $back/state)" = 6 ]; do n=$((n + 1)); [ $n -lt 60 ] || exit 1; sleep 0.5; done
xenstore-rm $back
xenstore-rm /local/domain/$1/device/virtio/$2
"""
_ERROR = "xenstore-read /local/domain/$1/error/device/virtio/$2/error"


def plug(lab: Lab, domid: int | None, devid: int, access: str) -> None:
    """A new entropy device."""
    _in_dom0(lab, _PLUG, domid, devid, access)


def state(lab: Lab, domid: int | None, devid: int, wanted: str) -> str:
    """The frontend's state, when it is the wanted one or Closed, or after 30 s."""
    return _in_dom0(lab, _STATE, domid, devid, wanted)


def error(lab: Lab, domid: int | None, devid: int) -> str:
    """Why the frontend gave up (XB-15)."""
    return _in_dom0(lab, _ERROR, domid, devid)


def unplug(lab: Lab, domid: int | None, devid: int) -> None:
    """Detaches it (XB-22) and removes its nodes."""
    _in_dom0(lab, _UNPLUG, domid, devid)


def _in_dom0(lab: Lab, script: str, *arguments: object) -> str:
    words = [str(argument) for argument in arguments]
    return lab.run(["sh", "-euc", script, "sh", *words], timeout=60).check().stdout.strip()
