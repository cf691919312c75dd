"""No growth: what is in use at the end of the load against the middle, each with a bound that is stated.

The first half warms up caches and pools. Of the second, the least of its first third is compared with the
least of its last: a leak shows in both, a spike in neither.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KIB, MIB = 1 << 10, 1 << 20
#: fewer samples say nothing
SAMPLES_MIN = 8


@dataclass(frozen=True)
class Bound:
    """How much more of what `metric` (a pattern) names may be in use, and why so much.

    `free`: the number is of what is left, and less of it is growth.
    """

    metric: str
    limit: int
    reason: str
    free: bool = False


#: the first that fits counts
BOUNDS = (
    Bound("*.fds", 0, "a connected device opens nothing"),
    Bound("dom0.ports", 0, "a connected device binds nothing"),
    Bound("worker.*.mappings", 64, "foreign access maps what is in flight"),
    Bound("supervisor.mappings", 0, "the supervisor maps no guest memory"),
    Bound("*.rss", 512 * KIB, "Python's allocator keeps free blocks"),
    Bound("dom0.slab", 8 * MIB, "the kernel frees in batches"),
    Bound("dom0.available", 32 * MIB, "pages of the images that wait to be written back", free=True),
    Bound("xen.free", 4 * MIB, "Xen counts in MiB; its grant tables grow by pages", free=True),
    Bound("*.slab", 3 * MIB, "the kernel frees in batches"),
    Bound("*.available", 12 * MIB, "fio's passes take and give back", free=True),
)


@dataclass(frozen=True)
class Growth:
    """One metric over the second half of the load."""

    metric: str
    middle: int
    end: int
    grown: int
    bound: int
    reason: str

    @property
    def ok(self) -> bool:
        return self.grown <= self.bound


@dataclass(frozen=True)
class Steadiness:
    """One place's figures; `unknown` says why nothing can be told of them."""

    growth: tuple[Growth, ...] = ()
    unknown: str | None = None

    @property
    def ok(self) -> bool:
        return bool(self.growth) and all(each.ok for each in self.growth)


def growth(samples: Sequence[Mapping[str, int]]) -> Steadiness:
    """Of one place's samples, at even distances."""
    if len(samples) < SAMPLES_MIN:
        return Steadiness(unknown=f"{len(samples)} samples say nothing; {SAMPLES_MIN} are needed")
    metrics = samples[0].keys()
    for each in samples:
        if each.keys() != metrics:
            changed = ", ".join(sorted(each.keys() ^ metrics))
            return Steadiness(unknown=f"a process came or went under the load: {changed}")
    half = samples[len(samples) // 2 :]
    third = len(half) // 3
    return Steadiness(tuple(_of(metric, [each[metric] for each in half], third) for metric in metrics))


def _of(metric: str, values: Sequence[int], third: int) -> Growth:
    bound = next(each for each in BOUNDS if fnmatch.fnmatch(metric, each.metric))
    least = max if bound.free else min  # in use
    middle, end = least(values[:third]), least(values[-third:])
    grown = middle - end if bound.free else end - middle
    return Growth(metric, middle, end, grown, bound.limit, bound.reason)
