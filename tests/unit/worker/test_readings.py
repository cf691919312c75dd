"""A device's counters over its last seconds."""

from __future__ import annotations

from xenvirtio.worker.readings import Readings, difference


def test_a_young_device_is_told_about_since_it_was_opened() -> None:
    readings = Readings(100.0)
    said = readings.report(102.0, {"counters": {"reads": 4, "errors": 0}, "status": 15})
    assert said == {"at": 102.0, "age": 2.0, "recent": {"seconds": 2.0, "counters": {"reads": 4}}}


def test_later_reports_go_back_one_reading_more_than_the_last() -> None:
    readings = Readings(100.0)
    for number in range(1, 5):
        readings.take(100.0 + 5 * number, {"counters": {"reads": 10 * number}})
    said = readings.report(122.0, {"counters": {"reads": 42}})
    assert said["age"] == 22.0
    assert said["recent"] == {"seconds": 7.0, "counters": {"reads": 12}}


def test_a_reading_does_not_change_with_the_counters() -> None:
    counters = {"reads": 1}
    readings = Readings(0.0)
    readings.take(5.0, {"counters": counters})
    readings.take(10.0, {"counters": counters})
    counters["reads"] = 8
    assert readings.report(11.0, {"counters": counters})["recent"]["counters"] == {"reads": 7}


def test_only_what_is_counted_is_compared() -> None:
    before = {"counters": {"reads": 1}, "memory": {"hypercalls": 5, "mapped_bytes": 8192}, "kicks": 1}
    after = {"counters": {"reads": 1}, "memory": {"hypercalls": 7, "mapped_bytes": 4096}, "kicks": 9}
    assert difference(before, after) == {"memory": {"hypercalls": 2}}


def test_a_new_connection_counts_from_nothing() -> None:
    after = {"memory": {"hypercalls": 2}, "counters": {"reads": 9}}
    assert difference({"memory": {"hypercalls": 50}, "counters": {"reads": 5}}, after) == {
        "memory": {"hypercalls": 2},
        "counters": {"reads": 4},
    }
