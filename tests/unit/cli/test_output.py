"""How commands print."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from xenvirtio.cli.output import amount, print_devices, print_json
from xenvirtio.toolstack.listing import DeviceRow
from xenvirtio.toolstack.rates import Rates, Totals

DISK = DeviceRow(
    guest="web",
    domid=5,
    type="pv",
    device="vda",
    kind="disk",
    transport="xenbus",
    memory_access="grant",
    state="connected",
    error=None,
    backing="/srv/[a].img",
    totals=Totals(60.0, 1536, 3, 64 << 20, 64),
    rates=Rates(5.0, 307.2, 0.6, 13421772.8, 12.8),
    per_request=None,
    map_hit_rate=None,
    counters={"bytes_read": 1536},
    memory={},
    backend={},
)
NIC = replace(
    DISK,
    guest="db",
    domid=12,
    type=None,
    device="eth0",
    kind="nic",
    memory_access=None,
    state="guest Closed (6), backend Closed (6)",
    error="no tap",
    backing="vio12.0 in br",
    totals=None,
    rates=None,
)


def test_plain_columns_are_aligned_and_hold_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    print_devices([DISK, NIC])
    heading, disk, nic, error = capsys.readouterr().out.splitlines()
    assert " ".join(heading.split()) == (
        "GUEST DOMAIN TYPE DEVICE TRANSPORT MEMORY STATE IN/S REQ/S OUT/S REQ/S IN OUT BACKING"
    )
    assert disk.split("  ")[0] == "web"
    assert disk.index("connected") == nic.index("failed") == heading.index("STATE")
    numbers = ["307 B", "0.6", "12.8 MiB", "13", "1.5 KiB", "64.0 MiB", "/srv/[a].img"]
    assert re.split(" {2,}", disk)[7:] == numbers
    assert nic.split()[2] == "-"
    assert nic.endswith("-      -      -         -      -        -         vio12.0 in br")
    assert error == "db eth0: no tap (guest Closed (6), backend Closed (6))"
    assert "\x1b" not in disk


def test_a_terminal_gets_a_table_that_shows_names_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_devices([DISK])
    assert "/srv/[a].img" in capsys.readouterr().out


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([DISK.as_json()])
    row = json.loads(capsys.readouterr().out)[0]
    assert row["counters"]["bytes_read"] == 1536
    assert row["rates"]["out_bytes"] == 13421772.8


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 30, "3.0 GiB"), (1 << 60, "1048576.0 TiB")],
)
def test_amounts_of_bytes_for_people(count: int, text: str) -> None:
    assert amount(count) == text
