"""The demo's results: when they are ok, as JSON, and as the report for people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xenvirtio.lab.demo.report import report
from xenvirtio.lab.demo.results import DemoResult, DiskProof, GuestResult, NicProof

MIB = 1 << 20


def guest(kind: str) -> GuestResult:
    bytes_each = {"to_guest": 8 * MIB, "from_guest": 8 * MIB}
    return GuestResult(
        name=f"demo-{kind}",
        type=kind,
        kernel="6.12.1",
        transport="xenbus",
        memory_access="grant",
        disk=DiskProof(
            "vda", 128 * MIB, 64 * MIB, 64 * MIB, 64 * MIB, True, {"randread": 9.0, "randwrite": 8.0}
        ),
        nic=NicProof("eth0", "10.77.0.2", 20, 0, 6.4, bytes_each, {"to_guest": 100.0, "from_guest": 60.0}),
        backend={name: {"grants_copied": 5, "frames_mapped": 3} for name in ("vda", "eth0")},
        seconds={"boot": 12.0, "total": 50.0},
    )


def result(*guests: GuestResult) -> DemoResult:
    seconds = {"setup": 1.0, "boot": 12.0, "total": 60.0}
    return DemoResult("4.20", "6.12.1", "tcg", "10.0.2 (Debian 1:10)", seconds, guests)


ALL = result(*(guest(kind) for kind in ("pv", "pvh", "hvm")))


def test_all_guests_are_on_one_screen() -> None:
    lines = report(ALL).splitlines()
    assert len(lines) <= 24
    assert max(len(line) for line in lines) <= 100
    assert "✗" not in report(ALL)
    assert [word for word in lines[2].split() if word != "guest"] == ["PV", "PVH", "HVM"]


def test_every_guest_is_in_the_json() -> None:
    record = ALL.as_json()
    assert record["ok"] is True
    assert [(each["type"], each["ok"]) for each in record["guests"]] == [
        ("pv", True),
        ("pvh", True),
        ("hvm", True),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        replace(guest("hvm"), transport="pci"),
        replace(guest("hvm"), backend={"vda": {"grants_copied": 0, "frames_mapped": 3}}),
        replace(guest("hvm"), disk=replace(guest("hvm").disk, survived_guest_restart=False)),
        replace(guest("hvm"), disk=replace(guest("hvm").disk, bytes_verified_in_dom0=0)),
        replace(guest("hvm"), nic=replace(guest("hvm").nic, ping_lost=1)),
        replace(
            guest("hvm"), nic=replace(guest("hvm").nic, tcp_bytes_verified={"to_guest": 1, "from_guest": 0})
        ),
    ],
    ids=["transport", "counters", "restart", "dom0", "ping", "tcp"],
)
def test_one_thing_that_is_wrong_spoils_it_and_is_marked(bad: GuestResult) -> None:
    spoilt = result(guest("pv"), bad)
    assert spoilt.as_json()["ok"] is False
    assert "✗" in report(spoilt)
    assert "NOT EVERYTHING" in report(spoilt)


def test_no_guest_is_no_success() -> None:
    assert not replace(ALL, guests=()).ok
