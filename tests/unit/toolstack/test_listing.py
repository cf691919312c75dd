"""Throughput as `list` tells it: from two readings of the worker's counters and their own times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from xenvirtio.errors import UsageError
from xenvirtio.testing.xen import FakeXen
from xenvirtio.toolstack import local
from xenvirtio.toolstack.configuration.configuration import GuestConfig
from xenvirtio.toolstack.configuration.grammar import Source, parse
from xenvirtio.toolstack.configuration.guest import guest_from
from xenvirtio.toolstack.listing import rows
from xenvirtio.toolstack.nodes import plug
from xenvirtio.toolstack.rates import Interval, Rates, Totals, map_hit_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.xen.interfaces import View

TEXT = "name='web'; disk=['/srv/a.img,,vda']; vif=['model=virtio,mac=0:16:3e:0:0:1']"
#: keys that docs/guide.md promises
KEYS = {
    *("guest", "domid", "type", "device", "kind", "transport", "memory_access", "state", "error"),
    *("backing", "totals", "rates", "per_request", "map_hit_rate", "counters", "memory", "backend"),
}


def report(at: float, **counters: int) -> dict[str, Any]:
    return {"at": at, "age": at, "counters": counters}


@pytest.fixture
def xen() -> Iterator[FakeXen]:
    devices = guest_from(GuestConfig("g", parse(Source("g", TEXT)))).devices

    def plug_all(view: View) -> None:
        for domid in (5, 7):
            for device in devices:
                plug(view, domid, device)

    with FakeXen() as xen:
        xen.start_domain(5, "web")
        xen.start_domain(7, "db")
        xen.connect(0).transact(plug_all)
        yield xen


def test_rates_are_what_was_counted_over_the_time_that_the_readings_say() -> None:
    before = report(100.0, reads=10, bytes_read=4096, writes=1, bytes_written=512)
    now = report(104.0, reads=30, bytes_read=86016, writes=1, bytes_written=512)
    interval = Interval.of(now, before)
    assert interval is not None
    assert interval.rates() == Rates(4.0, in_bytes=20480.0, in_requests=5.0, out_bytes=0.0, out_requests=0.0)


def test_a_nic_counts_packets() -> None:
    before = report(1.0, rx_packets=0, rx_bytes=0, tx_packets=0, tx_bytes=0)
    interval = Interval.of(report(3.0, rx_packets=4, rx_bytes=600, tx_packets=2, tx_bytes=120), before)
    assert interval is not None
    assert interval.rates() == Rates(2.0, in_bytes=300.0, in_requests=2.0, out_bytes=60.0, out_requests=1.0)


def test_a_worker_that_was_started_again_counts_from_nothing() -> None:
    interval = Interval.of(report(12.0, reads=6), report(10.0, reads=1000))
    assert interval is not None
    assert interval.rates().in_requests == 3.0


@pytest.mark.parametrize(
    ("now", "before"),
    [
        ({}, {}),  # the daemon does not run
        (report(1.0, reads=1), {}),  # the device is new
        (report(1.0, reads=1), report(1.0, reads=1)),  # the worker did not answer in time: its last words
        ({"counters": {}}, None),
    ],
)
def test_without_two_readings_there_are_no_rates(now: dict[str, Any], before: dict[str, Any] | None) -> None:
    assert Interval.of(now, before) is None


def test_what_a_request_took() -> None:
    recent = {
        "seconds": 8.0,
        "counters": {"reads": 3, "writes": 3, "flushes": 2, "bytes_read": 1},
        "memory": {"hypercalls": 4},
        "events": {"received": 2, "sent": 8, "hypercalls": 8},
    }
    interval = Interval.of({"recent": recent})
    assert interval is not None
    assert interval.per_request() == {"hypercalls": 1.5, "events_received": 0.25, "events_sent": 1.0}
    idle = Interval.of({"recent": {"seconds": 8.0}})
    assert idle is not None
    assert idle.per_request() is None


def test_the_map_caches_hit_rate() -> None:
    assert map_hit_rate({"cache_hits": 3, "cache_misses": 1}) == 0.75
    assert map_hit_rate({"cache_hits": 0, "cache_misses": 0}) is None
    assert map_hit_rate({}) is None


def test_totals_are_since_the_device_was_opened() -> None:
    assert Totals.of(report(60.0, reads=3, bytes_read=1536)) == Totals(60.0, 1536, 3, 0, 0)
    assert Totals.of({}) is None


def test_each_row_has_the_documented_keys_and_raw_numbers(xen: FakeXen) -> None:
    now = {**report(9.0, reads=8, bytes_read=4096), "recent": {"seconds": 5.0, "counters": {"reads": 5}}}
    disk, *others = rows(xen.connect(0), {(5, 0): now})
    record = disk.as_json()
    assert record.keys() == KEYS
    assert record["rates"] == {
        "seconds": 5.0,
        "in_bytes": 0.0,
        "in_requests": 1.0,
        "out_bytes": 0.0,
        "out_requests": 0.0,
    }
    assert record["totals"]["in_bytes"] == 4096
    assert "recent" not in record["backend"]
    assert all(row.as_json().keys() == KEYS and row.rates is None for row in others)


def test_rates_since_earlier_reports(xen: FakeXen) -> None:
    disk, *_ = rows(xen.connect(0), {(5, 0): report(9.0, reads=8)}, {(5, 0): report(7.0, reads=4)})
    assert disk.rates is not None
    assert (disk.rates.seconds, disk.rates.in_requests) == (2.0, 2.0)


@pytest.mark.parametrize("guest", ["db", "7"])
def test_one_guest_by_name_or_number(xen: FakeXen, guest: str) -> None:
    assert [row.domid for row in rows(xen.connect(0), {}, guest=guest)] == [7, 7]


def test_a_guest_that_has_none_is_the_users_mistake(xen: FakeXen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xenvirtio.xen.store.XenStore", lambda: xen.connect(0))
    monkeypatch.setattr(local, "check_user", lambda _: None)
    monkeypatch.setattr(local, "counters", dict)
    assert len(local.local_rows("web")) == 2
    with pytest.raises(UsageError, match="'mail'"):
        local.local_rows("mail")
