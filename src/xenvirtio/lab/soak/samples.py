"""What is in use, in dom0 and in the guests, again and again: flat numbers by name, bytes or counts.

Each place counts for itself, in a loop that was started before the load: asking under the load would take
longer than what is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Guest

FOLDER = "/run/soak"
#: the daemon is its first process, the workers its children
_DOM0 = r"""
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
#: a sample that the end cuts off has no END
END = "--"
_LOOP = """
cd FOLDER
echo $$ >sampler.pid
daemon=$(cat /run/xenvirtio-lab/daemon.pid 2>/dev/null)
left=COUNT
while [ $left -gt 0 ]; do
    left=$((left - 1))
    sleep EVERY
    ONE
    echo END
done >samples 2>samples.log
"""


def start(lab: Lab, guests: Sequence[Guest], count: int, every: float) -> None:
    """Begins in dom0 and in each guest: at most `count` samples, with `every` seconds between them."""
    start = f"cd {FOLDER}; setsid PRIORITY sh sampler </dev/null >/dev/null 2>&1 &"
    # dom0's work for the guests would starve it
    lab.run(_written(_DOM0, count, every) + start.replace("PRIORITY", "nice -n -10")).check()
    for guest in guests:
        guest.run(_written(_GUEST, count, every) + start.replace("PRIORITY", ""))


def _written(one: str, count: int, every: float) -> str:
    words = {"FOLDER": FOLDER, "COUNT": str(count), "EVERY": f"{every:.1f}", "ONE": one, "END": END}
    script = _LOOP
    for word, value in words.items():
        script = script.replace(word, value)
    return f"mkdir -p {FOLDER}; rm -f {FOLDER}/samples; cat >{FOLDER}/sampler <<'XV'\n{script}\nXV\n"


def collect(lab: Lab, guests: Sequence[Guest]) -> dict[str, list[dict[str, int]]]:
    """Ends it, and returns each place's samples, by "dom0" or the guest's name. Raises LabError."""
    read = f"cd {FOLDER}; kill $(cat sampler.pid) 2>/dev/null; cat samples"
    found = {"dom0": parse(lab.run(read).check().stdout)}
    for guest in guests:
        found[guest.name] = parse(guest.run(read, timeout=120).output, f"{guest.name}.")
    return found


def parse(text: str, prefix: str = "") -> list[dict[str, int]]:
    """Of lines "name number", with END after each sample."""
    *whole, _ = text.split(f"{END}\n")
    return [
        {prefix + name: int(number) for name, number in (line.split() for line in each.splitlines())}
        for each in whole
    ]
