"""What is in use, in dom0 and in the guests, at one moment: flat numbers by name, bytes or counts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Guest

#: the daemon is its first process, the workers its children
_DOM0 = r"""
daemon=$(cat /run/xenvirtio-lab/daemon.pid)
for pid in $daemon $(pgrep -P "$daemon"); do
    name=worker.$pid
    [ "$pid" != "$daemon" ] || name=supervisor
    awk -v name="$name" '/^VmRSS:/ { print name ".rss", $2 * 1024 }' "/proc/$pid/status"
    echo "$name.fds $(ls "/proc/$pid/fd" | wc -l)"
    echo "$name.mappings $(wc -l <"/proc/$pid/maps")"
done
awk '/^MemAvailable:/ { print "dom0.available", $2 * 1024 } /^SUnreclaim:/ { print "dom0.slab", $2 * 1024 }' \
    /proc/meminfo
echo "dom0.ports $(/usr/lib/xen-*/bin/lsevtchn 0 | wc -l)"
echo "xen.free $(($(xl info free_memory) * 1048576))"
"""
_GUEST = r"""
awk '/^MemAvailable:/ { print "available", $2 * 1024 } /^SUnreclaim:/ { print "slab", $2 * 1024 }' \
    /proc/meminfo
"""
SECONDS = 120.0


def sample(lab: Lab, guests: Sequence[Guest]) -> dict[str, int]:
    """One of all, taken at once; takes a few seconds under load. Raises LabError, TimeLimit."""

    def of_guest(guest: Guest) -> dict[str, int]:
        return parse(guest.run(_GUEST, timeout=SECONDS).output, f"{guest.name}.")

    with ThreadPoolExecutor() as pool:
        theirs = pool.map(of_guest, guests)
        found = parse(lab.run(_DOM0, timeout=SECONDS).check().stdout)
        for each in theirs:
            found |= each
    return found


def parse(text: str, prefix: str = "") -> dict[str, int]:
    """Of lines "name number"."""
    return {prefix + name: int(number) for name, number in (line.split() for line in text.splitlines())}
