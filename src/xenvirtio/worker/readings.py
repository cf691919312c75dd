"""Counters over time: what a device did in its last seconds, from readings that carry their own times.

A reading is a report's tables of counters. Of two readings, a counter that is lower in the later one has
begun anew in between (its connection is a new one, or its worker): what it counts now is what came since.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: seconds between the readings that a worker keeps of each device
READING_SECONDS = 5.0
#: tables of a device's report, and those of their counters that are wanted over time (None: all)
TABLES: Mapping[str, tuple[str, ...] | None] = {
    "counters": None,
    "memory": ("hypercalls", "cache_hits", "cache_misses"),
    "events": None,
}


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """What was counted between two reports: by table and name, and nothing that is 0."""
    found: dict[str, dict[str, int]] = {}
    for table, wanted in TABLES.items():
        old, new = before.get(table, {}), after.get(table, {})
        for name in new if wanted is None else wanted:
            now, then = new.get(name, 0), old.get(name, 0)
            if grown := now - then if now >= then else now:
                found.setdefault(table, {})[name] = grown
    return found


class Readings:
    """A device's last two, from READING_SECONDS to twice that ago; times are of time.monotonic().

    So `recent` covers 5 to 10 s, or a younger device's whole life.
    """

    def __init__(self, at: float) -> None:
        self._opened = at
        self._kept: deque[tuple[float, dict[str, Any]]] = deque([(at, {})], maxlen=2)

    def take(self, at: float, report: Mapping[str, Any]) -> None:
        """One more, READING_SECONDS after the last."""
        tables = {table: dict(report[table]) for table in TABLES if table in report}
        self._kept.append((at, tables))

    def report(self, at: float, report: Mapping[str, Any]) -> dict[str, Any]:
        """For the report: when it was made, for how long it has been counted, and what was counted lately."""
        since, before = self._kept[0]
        return {
            "at": round(at, 3),
            "age": round(at - self._opened, 3),
            "recent": {"seconds": round(at - since, 3), **difference(before, report)},
        }
