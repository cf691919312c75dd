"""`xenvirtio list --json` tells what runs, from the running system."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.lab.lab_rig import GRANT_ONLY, MIB, device_of, until

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend, Guest


def test_each_device_has_its_row_with_what_it_uses(guest: Guest, backend: Backend) -> None:
    assert sorted(row["device"] for row in backend.devices() if row["guest"] == guest.name) == [
        "eth0",
        "vda",
        "vdb",
    ]
    disk = device_of(backend, guest.name, "vda")
    assert (disk["type"], disk["kind"], disk["transport"]) == ("pv", "disk", "xenbus")
    assert disk["memory_access"] == guest.config.memory_access
    assert disk["state"] == "connected"
    assert disk["error"] is None
    assert disk["domid"] == guest.domid()
    assert disk["backing"] == guest.config.disks[0].path
    assert "xenbr0" in str(device_of(backend, guest.name, "eth0")["backing"])


@GRANT_ONLY
def test_counters_grow_with_what_the_guest_does(guest: Guest, backend: Backend) -> None:
    before = counters(backend, guest)
    guest.run("dd if=/dev/zero of=/dev/vda bs=1M count=8 conv=notrunc,fsync", timeout=90)
    after = counters(backend, guest)
    assert after["bytes_written"] - before["bytes_written"] == 8 * MIB
    assert after["writes"] > before["writes"]
    assert after["flushes"] > before["flushes"]


@GRANT_ONLY
def test_rates_are_of_the_time_between_two_readings(guest: Guest, lab: Lab) -> None:
    guest.run(
        "(while [ ! -e /tmp/stop ]; do dd if=/dev/zero of=/dev/vda bs=64k count=64 oflag=direct; done; "
        "rm /tmp/stop) >/dev/null 2>&1 &"
    )
    try:
        listed = lab.run(["xenvirtio", "list", guest.name, "--json", "--interval", "3"]).check().stdout
        table = lab.run(["xenvirtio", "list", guest.name]).check().stdout.splitlines()
    finally:
        guest.run("touch /tmp/stop")
        until(guest, "[ ! -e /tmp/stop ]")  # it writes no more: a later test may take vda away
    rows = {row["device"]: row for row in json.loads(listed)}
    rates, totals = rows["vda"]["rates"], rows["vda"]["totals"]
    assert 3 <= rates["seconds"] < 30
    assert 0 < rates["out_bytes"] * rates["seconds"] <= totals["out_bytes"] + 1
    # whole writes of 64 KiB, in one request each or in a few; both rates are rounded
    assert 4096 <= rates["out_bytes"] / rates["out_requests"] <= 65540
    assert rows["vda"]["per_request"]["hypercalls"] > 0
    assert rows["vdb"]["rates"]["out_bytes"] == 0
    assert "OUT/S" in table[0]
    assert [line.split()[3] for line in table[1:]] == ["vda", "vdb", "eth0"]


def test_a_guest_that_is_not_there(lab: Lab, backend: Backend) -> None:
    assert backend.pid() > 0
    done = lab.run(["xenvirtio", "list", "nobody"])
    assert done.returncode == 2
    assert "'nobody'" in done.stderr
    assert "try:" in done.stderr


def counters(backend: Backend, guest: Guest) -> dict[str, int]:
    """What vda has done so far."""
    found: Any = device_of(backend, guest.name, "vda")["counters"]
    return dict(found)
