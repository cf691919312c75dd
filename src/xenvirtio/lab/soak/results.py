"""What a soak found out: the shape of build/soak.json. What could not be shown is not shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from xenvirtio.errors import UsageError
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xenvirtio.lab.soak.growth import Steadiness
    from xenvirtio.lab.soak.load import DiskLoad, TcpLoad
    from xenvirtio.lab.soak.messages import Messages

TYPES = ("pv", "pvh", "hvm")
#: pages by which a guest's grant table may grow under load: 4096 grants, more than its queues have in flight
GRANT_FRAMES = 8
#: pages for dom0's mappings (about 500 in each): a mapping that is not undone takes an entry for good
MAPTRACK_FRAMES = 4


@dataclass(frozen=True)
class Plan:
    """Which guests, (type, memory access) each, and for how long they are under load."""

    minutes: float
    guests: tuple[tuple[str, str], ...]

    @property
    def seconds(self) -> int:
        return round(self.minutes * 60)

    @classmethod
    def of(cls, minutes: float, types: str, access: str) -> Self:
        """Of "pv,hvm" and "grant,foreign": each type in each mode. Raises UsageError."""
        kinds = _chosen("type of guest", types, TYPES)
        modes = _chosen("memory access", access, (MemoryAccess.GRANT, MemoryAccess.FOREIGN))
        return cls(minutes, tuple((kind, mode) for kind in kinds for mode in modes))


def _chosen(what: str, words: str, known: tuple[str, ...]) -> list[str]:
    chosen = list(dict.fromkeys(word.strip() for word in words.split(",")))
    for word in chosen:
        if word not in known:
            raise UsageError(f"no {what} {word!r}", hint=f"of: {', '.join(known)}, with commas between them")
    return chosen


@dataclass(frozen=True)
class GuestResult:
    """One guest. `transport` and `memory_access` are its own words.

    `image_matches`: the image in dom0 holds what the guest reads, after the load. `tcp_checked`: bytes sent
    by TCP, in each direction, under the load, that had the same MD5 at both ends.
    """

    name: str
    type: str
    kernel: str
    transport: str
    memory_access: str
    disk: DiskLoad
    image_matches: bool
    tcp: TcpLoad
    tcp_checked: int
    messages: Messages
    grants: tuple[int, int]  # that the backend has mapped while the guest is idle: before the load, after it
    grant_frames: tuple[int, int]  # pages of its grant table: one holds 512, and none is ever given back

    @property
    def grants_ok(self) -> bool:
        """Nothing stays mapped, and the table is what the load's first seconds need."""
        mapped = self.grants[1] <= self.grants[0]
        return mapped and self.grant_frames[1] - self.grant_frames[0] <= GRANT_FRAMES

    @property
    def ok(self) -> bool:
        checked = self.disk.ok and self.image_matches and self.tcp.ok and self.tcp_checked > 0
        return checked and self.messages.ok and self.grants_ok and self.transport == "xenbus"


@dataclass(frozen=True)
class SoakResult:
    """The whole run; times in seconds."""

    xen: str
    dom0_kernel: str
    accelerator: str
    minutes: float
    seconds: dict[str, float]  # boot, load, total
    guests: tuple[GuestResult, ...]
    dom0_messages: Messages
    xen_messages: Messages
    dom0_maptrack: tuple[int, int]  # pages in which Xen keeps what dom0 maps: before the load, after it
    growth: Mapping[str, Steadiness]  # of dom0 and of each guest
    samples: Mapping[str, Sequence[Mapping[str, int]]]  # likewise

    @property
    def ok(self) -> bool:
        kernels = self.dom0_messages.ok and self.xen_messages.ok
        steady = bool(self.growth) and all(each.ok for each in self.growth.values())
        steady = steady and self.dom0_maptrack[1] - self.dom0_maptrack[0] <= MAPTRACK_FRAMES
        return bool(self.guests) and all(guest.ok for guest in self.guests) and kernels and steady

    def as_json(self) -> dict[str, Any]:
        record = asdict(self)
        for guest, entry in zip(self.guests, record["guests"], strict=True):
            entry["ok"] = guest.ok
        for place, each in self.growth.items():
            record["growth"][place]["ok"] = each.ok
        record["seconds"] = {name: round(value, 1) for name, value in self.seconds.items()}
        return {"ok": self.ok, **record}
