"""What tests on the real Xen share: images in dom0, guests, and what a guest leaves behind."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import LabError
from xenvirtio.lab import Completed
from xenvirtio.lab.guest import TOOLS_DISK, Disk, Guest, GuestConfig, Nic
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend

MIB = 1 << 20
#: for tests of the session's guest that memory access has nothing to do with
GRANT_ONLY = pytest.mark.parametrize("guest", [MemoryAccess.GRANT], indirect=True)
DISK_BYTES = 512 * MIB
ADDRESS = "10.77.0.2/24"
#: waits, in a guest, at most 30 s for vda
DISK_APPEARS = "n=0; until [ -b /dev/vda ]; do n=$((n + 1)); [ $n -lt 60 ] || exit 1; sleep 0.5; done"

#: one line for everything that a guest of ours makes in dom0
_TRACES = r"""
xl list | awk 'NR > 2 { print "domain " $1 }'
for guest in $(xenstore-list /local/domain/0/backend/virtio 2>/dev/null); do
    for device in $(xenstore-list "/local/domain/0/backend/virtio/$guest"); do
        echo "node backend/virtio/$guest/$device"
    done
done
for tap in /sys/class/net/*/tun_flags; do
    [ ! -e "$tap" ] || { tap=${tap%/*}; echo "tap ${tap##*/}"; }
done
if [ -e /run/xenvirtio-lab/daemon.pid ]; then
    ps --ppid "$(cat /run/xenvirtio-lab/daemon.pid)" -o comm= | sed 's/^/worker /'
fi
ps -eo pid=,comm=,args= | awk '$2 != "sh" && $2 != "awk" && / lifecycle/ { print "lifecycle " $1 }'
"""
#: seconds for a guest's traces to go; a worker has one second, and commands in dom0 are slow
TRACES_LIMIT = 15.0


def traces(lab: Lab) -> list[str]:
    """Guests, backend nodes, taps, workers and attending processes, now."""
    return sorted(lab.run(_TRACES).check().stdout.splitlines())


def traces_after(lab: Lab, wanted: list[str], limit: float = TRACES_LIMIT) -> list[str]:
    """The traces, as soon as they are the wanted ones, or after the limit."""
    end = time.monotonic() + limit
    while (found := traces(lab)) != wanted and time.monotonic() < end:
        time.sleep(1)
    return found


def worker_of(lab: Lab, guest: Guest) -> int:
    """The process that serves the guest now; raises LabError if none does."""
    return int(lab.run(["pgrep", "-x", f"xenvirtio-{guest.domid()}"]).check().stdout)


def kill_worker(lab: Lab, guest: Guest) -> None:
    """kill -9 of the guest's worker, and of no other's."""
    lab.run(["kill", "-KILL", str(worker_of(lab, guest))]).check()


def make_image(lab: Lab, path: str, size: int = DISK_BYTES) -> str:
    """A new, empty, sparse image of `size` bytes in dom0; returns its path."""
    lab.run(["sh", "-c", 'rm -f "$1" && truncate -s "$2" "$1"', "sh", path, str(size)]).check()
    return path


def md5_in_dom0(lab: Lab, path: str, offset: int, length: int) -> str:
    """Digest of a part of a file, both in whole MiB, as the host's kernel has it."""
    command = f"dd if={path} bs=1M skip={offset // MIB} count={length // MIB} status=none | md5sum"
    return lab.run(command, timeout=120).check().stdout.split()[0]


@dataclass(frozen=True)
class GuestMaker:
    """Makes guests that live until `stack` closes."""

    lab: Lab
    backend: Backend
    stack: ExitStack

    def create(self, config: GuestConfig) -> Guest:
        """Starts a guest. If it fails, the daemon's last words go with the error."""
        try:
            guest = Guest.create(self.lab, config)
        except LabError as error:
            error.add_note(f"the daemon's log ends:\n{self.backend.log()}")
            raise
        return self.stack.enter_context(guest)

    def usual(self, name: str, mode: str, address: str = ADDRESS) -> Guest:
        """A guest with vda (512 MiB, empty), the tools as vdb and mounted, and eth0 with an address."""
        guest = self.create(usual_config(self.lab, name, mode, address))
        guest.mount_tools()
        return guest


def usual_config(lab: Lab, name: str, mode: str, address: str = ADDRESS) -> GuestConfig:
    """The configuration of GuestMaker.usual, with a new image."""
    image = make_image(lab, f"/root/{name}.img")
    return GuestConfig(
        name, disks=(Disk(image), TOOLS_DISK), nics=(Nic(),), address=address, memory_access=mode
    )


#: in dom0: commands of xenvirtio in one process; Python's start takes longest there. argv: their words, JSON
_EACH = """
import contextlib, io, json, sys
from xenvirtio.cli.main import main
done = []
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            main(words)
            status = 0
        except SystemExit as exit:
            status = exit.code
    done.append((status, said.getvalue()))
print(json.dumps(done))
"""


def create_each(lab: Lab, configs: Sequence[GuestConfig]) -> list[Completed]:
    """`xenvirtio create` of configurations with mistakes, one after the other: what it said of each."""
    paths = [f"/run/create-each/{number}.cfg" for number in range(len(configs))]
    texts = "".join(config.text() + "\0" for config in configs)
    split = "import sys; [open(p, 'w').write(t) for p, t in zip(sys.argv[1:], sys.stdin.read().split('\\0'))]"
    lab.run("mkdir -p /run/create-each").check()
    lab.run(["python3", "-c", split, *paths], stdin=texts).check()
    return xenvirtio_each(lab, [["create", path] for path in paths])


def xenvirtio_each(lab: Lab, commands: Sequence[Sequence[str]]) -> list[Completed]:
    """Commands of xenvirtio that are refused, one after the other: what each said."""
    argv = [python(lab), "-c", _EACH, json.dumps([list(words) for words in commands])]
    output = lab.run(argv, timeout=30 + 10 * len(commands)).check().stdout
    answers = json.loads(output.splitlines()[-1])
    return [
        Completed(("xenvirtio", *words), status, "", said)
        for words, (status, said) in zip(commands, answers, strict=True)
    ]


def python(lab: Lab) -> str:
    """That of the xenvirtio in dom0."""
    return lab.run("sed -n '1s/^#!//p' \"$(command -v xenvirtio)\"").check().stdout.strip()


def wait_for_address(guest: Guest) -> None:
    """Until the guest's eth0 is up with its address, at most 30 s."""
    there = f"ip address show eth0 | grep -q '{guest.config.address}' && [ -e /sys/class/net/eth0/carrier ]"
    guest.run(f"n=0; until {there}; do n=$((n + 1)); [ $n -lt 60 ] || exit 1; sleep 0.5; done", timeout=60)


def device_of(backend: Backend, guest: str, device: str) -> dict[str, object]:
    """A device's row of `xenvirtio list --json`."""
    rows = [row for row in backend.devices() if (row["guest"], row["device"]) == (guest, device)]
    assert len(rows) == 1, backend.devices()
    return rows[0]


def until_served(backend: Backend, guest: Guest, device: str) -> None:
    """Until the guest's worker, which may be a new one, tells of the device, at most 60 s."""
    end = time.monotonic() + 60
    while "kicks" not in str(device_of(backend, guest.name, device)["backend"]):
        assert time.monotonic() < end, device_of(backend, guest.name, device)
        time.sleep(1)


# --- hotplug ---

HOT = "/root/hot.img"
HOT_MIB = 64
#: seconds for a command whose own limits are shorter
COMMAND = 180.0
#: waits, in a guest, at most 60 s until the test after it is true
UNTIL = "n=0; until {}; do n=$((n + 1)); [ $n -lt 120 ] || exit 1; sleep 0.5; done"


def xenvirtio(lab: Lab, *words: str) -> Completed:
    """The command, in dom0."""
    return lab.run(["xenvirtio", *words], timeout=COMMAND)


def until(guest: Guest, condition: str) -> None:
    """Until a shell's condition holds in the guest, at most 60 s."""
    guest.run(UNTIL.format(condition), timeout=90)


def entry(vdev: str = "vdb", access: str = "rw", path: str = HOT) -> str:
    """A disk for `xenvirtio attach`."""
    return f"format=raw,vdev={vdev},access={access},target={path}"
