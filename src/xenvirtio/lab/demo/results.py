"""What the demo found out: the shape of build/demo.json.

A proof that could not be finished is a proof that failed: everything starts as not shown.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

#: pings that are sent at least
PINGS = 20


@dataclass(frozen=True)
class DiskProof:
    """Random data through the virtio disk, compared by MD5.

    The guest that wrote them shut down; the next one read them: what it verified had survived. dom0 read the
    image. Sizes in bytes; a count of verified bytes is that of the bytes hashed, 0 if the hash differed.
    """

    device: str
    size: int
    bytes_written: int
    bytes_verified_in_guest: int
    bytes_verified_in_dom0: int
    survived_guest_restart: bool
    iops: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        verified = self.bytes_verified_in_guest == self.bytes_verified_in_dom0 == self.bytes_written
        return self.bytes_written > 0 and verified and self.survived_guest_restart


@dataclass(frozen=True)
class NicProof:
    """Pings from the guest to dom0, and random data by TCP both ways, compared by MD5."""

    device: str
    address: str
    ping_sent: int
    ping_lost: int
    ping_ms: float  # average round trip
    tcp_bytes_verified: dict[str, int]  # to_guest, from_guest
    tcp_mbit: dict[str, float]

    @property
    def ok(self) -> bool:
        both_ways = all(self.tcp_bytes_verified.get(way, 0) > 0 for way in ("to_guest", "from_guest"))
        return self.ping_sent >= PINGS and self.ping_lost == 0 and both_ways


@dataclass(frozen=True)
class GuestResult:
    """One guest. `transport` and `memory_access` are its own words, `backend` the daemon's counters."""

    name: str
    type: str
    kernel: str
    transport: str
    memory_access: str
    disk: DiskProof
    nic: NicProof
    backend: dict[str, dict[str, int]]  # device → how its memory was reached
    seconds: dict[str, float]  # boot, total

    @property
    def reached_as_it_says(self) -> bool:
        """The daemon's counters agree with the access mode: granted pages were copied, or frames mapped."""
        for counters in self.backend.values():
            copied, mapped = counters.get("grants_copied", 0), counters.get("frames_mapped", 0)
            if not (copied > 0 if self.memory_access == "grant" else mapped > 0 and copied == 0):
                return False
        return self.backend.keys() == {self.disk.device, self.nic.device}

    @property
    def ok(self) -> bool:
        return self.transport == "xenbus" and self.reached_as_it_says and self.disk.ok and self.nic.ok

    def as_json(self) -> dict[str, Any]:
        record = asdict(self)
        record["ok"] = self.ok
        return record


@dataclass(frozen=True)
class DemoResult:
    """The whole run; times in seconds."""

    xen: str
    dom0_kernel: str
    accelerator: str
    qemu: str
    seconds: dict[str, float]  # setup, boot (of the slowest guest), total
    guests: tuple[GuestResult, ...]

    @property
    def ok(self) -> bool:
        return bool(self.guests) and all(guest.ok for guest in self.guests)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "xen": self.xen,
            "dom0_kernel": self.dom0_kernel,
            "accelerator": self.accelerator,
            "qemu": self.qemu,
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "guests": [guest.as_json() for guest in self.guests],
        }
