"""One event channel a device, or one for each queue beside it: both work, and what each costs is counted.

The figures of the same fio job both ways are printed (pytest -s) and, if $XENVIRTIO_FIGURES names a folder,
written to it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.lab_rig import DISK_APPEARS, MIB, GuestMaker, device_of, make_image
from xenvirtio.lab.guest import TOOLS_DISK, Disk, GuestConfig
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from xenvirtio.lab.guest import Backend, Guest

VDA = "/sys/bus/xen/devices/virtio-0"
#: reads of 4 KiB in one job, at each depth
REQUESTS = 300
DEPTHS = (1, 8)
PARAMETER = "/sys/module/virtio_xenbus/parameters/queue_event_channels"


def connect_with(guest: Guest, channels: str) -> None:
    """Connects vda anew, with an event channel for its queue (Y) or without (N)."""
    guest.run(
        f"set -e; echo {channels} >{PARAMETER}; cd /sys/bus/xen/drivers/virtio_xenbus; "
        f"echo virtio-0 >unbind; [ ! -e /sys/block/vda ]; echo virtio-0 >bind; {DISK_APPEARS}",
        timeout=90,
    )


def counted(guest: Guest, backend: Backend) -> dict[str, int]:
    """All counters of both sides, now."""
    names = ("kicks", "events", "events_spurious")
    lines = guest.run(" ".join(["cat", *(f"{VDA}/{name}" for name in names)])).output.split()
    row: dict[str, Any] = device_of(backend, guest.name, "vda")
    return {
        "requests": row["counters"]["reads"],
        **{f"guest {name}": int(line) for name, line in zip(names, lines, strict=True)},
        **{f"backend events {name}": value for name, value in row["backend"]["events"].items()},
        "backend memory hypercalls": row["memory"]["hypercalls"],
    }


def measured(guest: Guest, backend: Backend, depth: int) -> dict[str, float]:
    """What one read costs, by counter."""
    before = counted(guest, backend)
    guest.run(
        f"fio --name=cost --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth={depth} --rw=randread "
        f"--bs=4k --number_ios={REQUESTS} --thread >/tmp/fio.txt || {{ tail -n 20 /tmp/fio.txt; exit 1; }}",
        timeout=240,
    )
    after = counted(guest, backend)
    requests = after.pop("requests") - before["requests"]
    assert requests >= REQUESTS
    cost = {name: round((value - before[name]) / requests, 3) for name, value in after.items()}
    # what either side sends is a hypercall, and so is each use of the grant table (or each mapping)
    cost["hypercalls"] = round(
        cost["guest kicks"] + cost["backend events sent"] + cost["backend memory hypercalls"], 3
    )
    return cost


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", [MemoryAccess.GRANT])
def test_the_same_job_with_one_event_channel_and_with_two(
    guests: GuestMaker, backend: Backend, mode: str
) -> None:
    """XB-60 against XB-67: for a disk of one queue, two channels are the layout of 2011."""
    image = make_image(guests.lab, "/root/events.img", 64 * MIB)
    guest = guests.create(GuestConfig("events", disks=(Disk(image), TOOLS_DISK), memory_access=mode))
    guest.mount_tools()
    figures: dict[str, dict[str, float]] = {}
    for channels, setting in ((1, "N"), (2, "Y")):
        connect_with(guest, setting)
        row: dict[str, Any] = device_of(backend, guest.name, "vda")
        assert row["backend"]["queue_channels"] == channels - 1
        interrupts = guest.run("grep -c 'virtio-0' /proc/interrupts").output.strip()
        assert int(interrupts) == channels
        for depth in DEPTHS:
            figures[f"{channels} channels, depth {depth}"] = measured(guest, backend, depth)
    text = json.dumps(figures, indent=4)
    print(text)
    if folder := os.environ.get("XENVIRTIO_FIGURES"):
        (Path(folder) / f"event-channels-{mode}.json").write_text(text + "\n")
    for cost in figures.values():
        # every kick and every notification is an event on the other side, or shares one that is pending
        assert 0 < cost["backend events received"] <= cost["guest kicks"] + 0.05
        assert 0 < cost["guest events"] <= cost["backend events sent"] + 0.05
        # suppression works: never more than an event a request each way
        assert cost["guest kicks"] <= 1.05
        assert cost["backend events sent"] <= 1.05
        assert cost["hypercalls"] > cost["backend memory hypercalls"] > 0
    assert "error" not in guest.run("dmesg | grep -i 'vda\\|virtio' || true").output.lower()
