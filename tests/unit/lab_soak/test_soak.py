"""The soak's run on guests and a lab that answer from a table."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from xenvirtio.lab.guest import Disk, GuestConfig, tcp
from xenvirtio.lab.results import Completed
from xenvirtio.lab.soak import load, results, soak
from xenvirtio.lab.soak.report import report
from xenvirtio.lab.stages import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from xenvirtio.lab.soak.results import SoakResult

CONFIG = GuestConfig("soak-pv-grant", disks=(Disk("/var/tmp/soak/a.img"),))
MD5 = "0123456789abcdef0123456789abcdef"
GRANTS = """(XEN) grant-table for remote d0 (v1)
(XEN)   1 frames (64 max), 2 maptrack frames (1024 max)
(XEN) grant-table for remote d3 (v1)
(XEN)   4 frames (64 max), 0 maptrack frames (1024 max)
(XEN) [0x000]      0 0x1234ab 0x00000001          0 0x0ff000 0x19
(XEN) gnttab_usage_print_all ] done
"""
IPERF = {
    "end": {
        "sum_sent": {"bytes": 10, "retransmits": 0},
        "sum_received": {"bytes": 10, "seconds": 4.0},
        "sum_sent_bidir_reverse": {"bytes": 20, "retransmits": 0},
        "sum_received_bidir_reverse": {"bytes": 20},
    }
}


@dataclass(frozen=True)
class Answer:
    output: str


@dataclass
class FakeGuest:
    """Answers commands by the first key that they hold."""

    name: str = "soak-pv-grant"
    config: GuestConfig = CONFIG
    answers: dict[str, str] = field(
        default_factory=lambda: {
            "cat samples": "available 4096\nslab 8192\n--\n" * 12,
            "uname -r": "6.12\nxenbus\ngrant\n",
            "cat passes": " 512 512 0\n--\n",
            "iperf.status": "0\n" + json.dumps(IPERF),
            "md5sum": f"{MD5}  -\n",
            "dmesg": "<6>[ 1.0] fine\n",
        }
    )

    def run(self, command: str, timeout: float = 0) -> Answer:
        assert timeout >= 0
        return Answer(next((said for key, said in self.answers.items() if key in command), ""))

    def domid(self) -> int:
        return 3


class FakeLab:
    """dom0; `console` is where Xen writes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, {"dmesg": "<6>[ 1.0] fine\n"}
        (folder / "console.log").write_text("(XEN) Xen version 4.20\n")

    def log(self) -> Path:
        return self.folder

    def write(self, text: str) -> None:
        with (self.folder / "console.log").open("a") as file:
            file.write(text)

    def run(self, command: Any, timeout: float = 0) -> Completed:
        assert timeout >= 0
        text = command if isinstance(command, str) else " ".join(command)
        if "debug-keys" in text:
            self.write(GRANTS)
        answers = {
            "cat samples": "supervisor.rss 1000\nworker.5.fds 9\ndom0.ports 40\n--\n" * 12,
            "xl info xen_version": "4.20.0\n6.12\n",
            "md5sum": f"{MD5}  /var/tmp/soak/a.img\n",
            **self.said,
        }
        return Completed((), 0, next((said for key, said in answers.items() if key in text), ""), "")

    def status(self) -> Any:
        return type("Status", (), {"accelerator": "tcg"})


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    monkeypatch.setattr(tcp, "to_guest", lambda *_: None)
    monkeypatch.setattr(tcp, "from_guest", lambda *_: None)
    return FakeLab(tmp_path)


def run(lab: FakeLab, guest: FakeGuest) -> SoakResult:
    plan = results.Plan(1 / 60, (("pv", "grant"),))
    return soak.Soak(lab, plan, [guest], Progress()).run(0.0)  # type: ignore[arg-type, list-item]


def test_all_is_well(lab: FakeLab) -> None:
    result = run(lab, FakeGuest())
    assert result.ok, report(result)
    record = result.as_json()
    assert json.loads(json.dumps(record))["guests"][0]["disk"]["bytes_verified"] == 512
    assert record["guests"][0]["tcp_checked"] == soak.CHECKS * soak.CHECKED_BYTES
    assert record["guests"][0]["grants"] == (1, 1)
    assert "Everything was checked" in report(result)


@pytest.mark.parametrize(
    ("key", "said", "words"),
    [
        ("cat passes", " 100 512 0\n--\nverify: bad magic\n", "bad magic"),
        ("iperf.status", '1\n{"end": {}, "error": "broken pipe"}', "broken pipe"),
        ("md5sum", f"{MD5[::-1]}  -\n", "✗ the image in dom0"),
        ("dmesg", "<4>[ 9.0] WARNING: CPU: 0 PID: 1 at virtio_ring.c:1\n", "virtio_ring.c:1"),
        ("uname -r", "6.12\npci\ngrant\n", "transport pci"),
    ],
)
def test_whatever_goes_wrong_in_a_guest_is_not_ok_and_told(
    lab: FakeLab, key: str, said: str, words: str
) -> None:
    guest = FakeGuest()
    guest.answers[key] = said
    result = run(lab, guest)
    assert not result.ok
    assert words in report(result)
    assert "NOT EVERYTHING IS RIGHT" in report(result)


def test_what_xen_and_dom0_say_under_load_counts(lab: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.said["dmesg"] = "<3>[ 9.0] xen:grant_table: WARNING: leaking g.e.\n"
    monkeypatch.setattr(load, "wait", lambda *_: lab.write("(XEN) grant_table.c:1: Bad flags\n"))
    result = run(lab, FakeGuest())
    assert result.xen_messages.unexpected == ("grant_table.c:1: Bad flags",)
    assert not result.dom0_messages.ok
    assert not result.ok


def test_too_few_samples_do_not_hide_the_rest(lab: FakeLab) -> None:
    guest = FakeGuest()
    guest.answers["cat samples"] = "available 4096\n--\navailable 40"
    result = run(lab, guest)
    assert not result.ok
    assert result.as_json()["guests"][0]["ok"]
    assert "whether anything grows in soak-pv-grant is not known: 1 samples" in report(result)
    assert "4 figures" not in report(result)
    assert "3 figures of dom0, 12 times: 0 have grown" in report(result)


def test_a_plan_reads_minutes() -> None:
    assert results.Plan(2, ()).seconds == 120
