"""Kernel and hypervisor messages during the load: which are allowed, and why.

A kernel's message counts if its level is warning or worse, or if it is a part of a warning's report. Xen
shows no levels: every line of its own counts. What counts and is not allowed makes the run fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: printk levels (linux/kern_levels.h): 4 is KERN_WARNING, less is worse
WARNING = 4
_RAW = re.compile(r"<(\d+)>(?:\[\s*[\d.]+\]\s?)?(.*)")
_REPORT = re.compile(
    r"WARNING:|\bBUG\b|Oops|Call Trace|RIP:|general protection|blocked for more than|lockup|stall|"
    r"page allocation failure|Out of memory|Tainted|segfault at|traps:",
)
_XEN = re.compile(r"\(XEN\) (?:\[[^]]*\] )?(.*)")


@dataclass(frozen=True)
class Allowed:
    """A message that says nothing about us: where (a kernel's, or Xen's), what, and why it comes."""

    where: str  # linux or xen
    pattern: str
    reason: str


ALLOWED = (
    Allowed(
        "linux",
        r"clocksource: .*|Marking clocksource .* as unstable|TSC .*unstable|sched_clock: .*",
        "emulation bends clocks: the TSC, and the watchdog that compares clocks, see a processor that pauses",
    ),
    Allowed(
        "linux",
        r"hrtimer: interrupt took \d+ ns",
        "one timer interrupt was slow: QEMU's thread did not have the host's processor",
    ),
    Allowed(
        "xen",
        r".*(?:TSC|[Tt]ime(?:r|stamp)?|[Cc]locksource|APIC error).*(?:warp|skew|drift|unstable|calibrat).*",
        "Xen's clock calibration sees the same pauses",
    ),
)


@dataclass(frozen=True)
class Messages:
    """What counts of one log: how many messages each reason allows, and those that none does."""

    allowed: dict[str, int]
    unexpected: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.unexpected


def kernel_messages(log: str) -> Messages:
    """Of `dmesg -r`."""
    counting = []
    for line in log.splitlines():
        found = _RAW.match(line)
        level, text = (int(found[1]) & 7, found[2]) if found else (WARNING, line)
        if text.strip() and (level <= WARNING or _REPORT.search(text)):
            counting.append(text.strip())
    return _sorted("linux", counting)


def xen_messages(log: str) -> Messages:
    """Of a console that Xen writes its lines to, among others."""
    counting = [found[1].strip() for line in log.splitlines() if (found := _XEN.search(line))]
    return _sorted("xen", [text for text in counting if text])


def _sorted(where: str, texts: list[str]) -> Messages:
    allowed: dict[str, int] = {}
    unexpected = []
    for text in texts:
        for each in ALLOWED:
            if each.where == where and re.fullmatch(each.pattern, text):
                allowed[each.reason] = allowed.get(each.reason, 0) + 1
                break
        else:
            unexpected.append(text)
    return Messages(allowed, tuple(unexpected))
