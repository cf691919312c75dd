"""What runs: one row for each virtio device of each guest, from XenStore and the daemon's status."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from xenvirtio.spec.xenbus import KEY_HOST, KEY_MEMORY_ACCESS, KEY_TRANSPORT, MemoryAccess
from xenvirtio.toolstack.nodes import BACKEND, backend_error, printable, state, words
from xenvirtio.toolstack.rates import Interval, Rates, Totals, map_hit_rate
from xenvirtio.transport.xenbus.nodes import DeviceKey, backend_root
from xenvirtio.transport.xenbus.states import XenbusState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenvirtio.xen.interfaces import View

    #: what the daemon tells about each device (worker/status.py), by domain and device number
    Reports = Mapping[tuple[int, int], Mapping[str, Any]]

#: parts of the daemon's report that have a field of their own, or were made into one
OWN_FIELDS = ("devid", "memory_access", "counters", "memory", "at", "age", "recent")


@dataclass(frozen=True)
class DeviceRow:
    """One virtio device of a guest as it is now; None: not known (yet).

    `as_json` has the same names; docs/guide.md promises them.
    """

    guest: str
    domid: int
    type: str | None  #: pv, pvh, hvm
    device: str  #: vda, eth0
    kind: str  #: disk or nic
    transport: str | None
    memory_access: str | None  #: what the guest chose; "?" for what is no mode
    state: str  #: connected, or both sides' states
    error: str | None  #: why the backend closed it
    backing: str  #: image, or tap and bridge
    totals: Totals | None
    rates: Rates | None
    per_request: Mapping[str, float] | None  #: what a request or packet took lately
    map_hit_rate: float | None  #: of the map cache, 0 to 1
    counters: Mapping[str, int]  #: the device's: requests, packets, bytes
    memory: Mapping[str, int]  #: how its memory was reached: grants copied, frames mapped, …
    backend: Mapping[str, Any]  #: what else the daemon tells: queues, features, kicks, …

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def rows(
    view: View, reports: Reports, earlier: Reports | None = None, guest: str | None = None
) -> list[DeviceRow]:
    """All virtio devices that this domain serves, by guest and device number; or one guest's.

    Rates are those since the reports `earlier`; without, those of the workers' last seconds.
    """
    top = backend_root(BACKEND)
    found = []
    for domid in _numbers(view, top):
        if guest is not None and guest not in (str(domid), _name(view, domid)):
            continue
        for number in _numbers(view, f"{top}/{domid}"):
            report = reports.get((domid, number), {})
            before = None if earlier is None else earlier.get((domid, number), {})
            found.append(_row(view, DeviceKey(domid, number), report, Interval.of(report, before)))
    return found


def _name(view: View, domid: int) -> str:
    return printable(view.read(f"/local/domain/{domid}/name") or "(gone)")


def _numbers(view: View, path: str) -> list[int]:
    return sorted(int(name) for name in view.names(path) or [] if name.isascii() and name.isdigit())


def _row(view: View, paths: DeviceKey, report: Mapping[str, Any], lately: Interval | None) -> DeviceRow:
    back = paths.backend(BACKEND)
    host = f"{back}/{KEY_HOST}"
    image = view.read(f"{host}/path")
    bridge = view.read(f"{host}/bridge")
    backing = image if image is not None else f"{view.read(f'{host}/vifname')} in {bridge}"
    error = backend_error(view, back)
    return DeviceRow(
        guest=_name(view, paths.domid),
        domid=paths.domid,
        type=view.read(f"/libxl/{paths.domid}/type"),
        device=view.read(f"{host}/vdev") or str(paths.devid),
        kind="disk" if image is not None else "nic",
        transport=view.read(f"{back}/{KEY_TRANSPORT}"),
        memory_access=_mode(
            report.get("memory_access") or view.read(f"{paths.frontend}/{KEY_MEMORY_ACCESS}")
        ),
        state=_state(state(view, paths.frontend), state(view, back)),
        error=None if error is None else printable(error),
        backing=backing,
        totals=Totals.of(report),
        rates=None if lately is None else lately.rates(),
        per_request=None if lately is None else lately.per_request(),
        map_hit_rate=map_hit_rate(report.get("memory", {})),
        counters=report.get("counters", {}),
        memory=report.get("memory", {}),
        backend={key: value for key, value in report.items() if key not in OWN_FIELDS},
    )


def _mode(written: str | None) -> str | None:
    """The guest may write anything there."""
    known = (MemoryAccess.GRANT, MemoryAccess.FOREIGN)
    return written if written in known or not written else "?"


def _state(front: XenbusState, back: XenbusState) -> str:
    if front is back is XenbusState.CONNECTED:
        return "connected"
    return f"guest {words(front)}, backend {words(back)}"
