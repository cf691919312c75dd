"""How much a device moves: requests and bytes each way, in all and a second.

The ways are the guest's: `in` is what it reads or receives, `out` what it writes or sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from xenvirtio.worker.readings import difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: the devices' counters of each way: a disk's, a NIC's
IN_BYTES, OUT_BYTES = ("bytes_read", "rx_bytes"), ("bytes_written", "tx_bytes")
IN_REQUESTS, OUT_REQUESTS = ("reads", "rx_packets"), ("writes", "tx_packets")
#: everything else that a guest asks of a disk
OTHER_REQUESTS = ("flushes", "discards", "write_zeroes", "get_ids", "unsupported")


@dataclass(frozen=True)
class Totals:
    """All since the device was opened (by `xenvirtio create`, or by a daemon that was started again)."""

    seconds: float | None  #: for how long that was; None: not known
    in_bytes: int
    in_requests: int  #: reads, or packets
    out_bytes: int
    out_requests: int  #: writes, or packets

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Self | None:
        """Of what the daemon tells about a device; None if that is nothing."""
        counters = report.get("counters")
        return None if counters is None else cls(report.get("age"), *_ways(counters))


@dataclass(frozen=True)
class Rates:
    """A second, over the `seconds` between two readings."""

    seconds: float
    in_bytes: float
    in_requests: float
    out_bytes: float
    out_requests: float


@dataclass(frozen=True)
class Interval:
    """What was counted between two readings of a device, which are so many seconds apart."""

    seconds: float
    counted: Mapping[str, Mapping[str, int]]  # table → name → how many

    @classmethod
    def of(cls, report: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Self | None:
        """From an earlier report on the same device to this one; without, the worker's last seconds.

        None where there are not two readings, or no time between them.
        """
        if before is None:
            recent = report.get("recent")
            if recent is None:
                return None
            seconds, counted = recent["seconds"], {name: recent[name] for name in recent if name != "seconds"}
        else:
            if "at" not in report or "at" not in before:
                return None
            seconds, counted = report["at"] - before["at"], difference(before, report)
        return cls(seconds, counted) if seconds > 0 else None

    def rates(self) -> Rates:
        """Bytes and requests a second."""
        ways = _ways(self.counted.get("counters", {}))
        return Rates(round(self.seconds, 3), *(round(count / self.seconds, 3) for count in ways))

    def per_request(self) -> dict[str, float] | None:
        """What a request or packet took: calls of Xen for memory and for events, events each way.

        Only of what is counted; None if there were no requests.
        """
        counters = self.counted.get("counters", {})
        requests = _sum(counters, (*IN_REQUESTS, *OUT_REQUESTS, *OTHER_REQUESTS))
        if not requests:
            return None
        memory, events = self.counted.get("memory", {}), self.counted.get("events", {})
        counts = {
            "hypercalls": memory.get("hypercalls", 0) + events.get("hypercalls", 0),
            "events_received": events.get("received", 0),
            "events_sent": events.get("sent", 0),
        }
        return {name: round(count / requests, 3) for name, count in counts.items()}


def map_hit_rate(memory: Mapping[str, int]) -> float | None:
    """Of the frames that foreign access needed, the part that was mapped already; None: no cache."""
    hits, misses = memory.get("cache_hits", 0), memory.get("cache_misses", 0)
    return round(hits / (hits + misses), 4) if hits + misses else None


def _ways(counters: Mapping[str, int]) -> tuple[int, int, int, int]:
    return (
        _sum(counters, IN_BYTES),
        _sum(counters, IN_REQUESTS),
        _sum(counters, OUT_BYTES),
        _sum(counters, OUT_REQUESTS),
    )


def _sum(counters: Mapping[str, int], names: Iterable[str]) -> int:
    return sum(counters.get(name, 0) for name in names)
