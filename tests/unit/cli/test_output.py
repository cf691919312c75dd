"""How commands print."""

from __future__ import annotations

import json

import pytest

from xenvirtio.cli.output import amount, print_devices, print_json
from xenvirtio.toolstack.listing import DeviceRow

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
    counters={"bytes_read": 1536, "bytes_written": 64 << 20},
    memory={},
    backend={},
)
NIC = DeviceRow(
    "db", 12, None, "eth0", "nic", "xenbus", None, "closed", "no tap", "vio12.0 in br", {}, {}, {}
)


def test_plain_columns_are_aligned_and_hold_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    print_devices([DISK, NIC])
    heading, disk, nic = capsys.readouterr().out.splitlines()
    assert " ".join(heading.split()) == "GUEST DOMAIN TYPE DEVICE KIND TRANSPORT MEMORY STATE BACKING IN OUT"
    assert disk.split("  ")[0] == "web"
    assert disk.index("connected") == nic.index("closed: no tap") == heading.index("STATE")
    assert disk.endswith("1.5 KiB  64.0 MiB")
    assert nic.split()[2] == "-"
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
    assert json.loads(capsys.readouterr().out)[0]["counters"]["bytes_read"] == 1536


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 30, "3.0 GiB"), (1 << 60, "1048576.0 TiB")],
)
def test_amounts_of_bytes_for_people(count: int, text: str) -> None:
    assert amount(count) == text
