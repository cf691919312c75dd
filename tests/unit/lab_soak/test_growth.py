"""A leak is found; what goes up and down is none."""

from __future__ import annotations

from xenvirtio.lab.soak.growth import MIB, growth


def of(metric: str, values: list[int]) -> tuple[int, bool]:
    (found,) = growth([{metric: value} for value in values]).growth
    return found.grown, found.ok


def test_a_steady_leak_is_growth() -> None:
    assert of("worker.7.rss", [20 * MIB + number * MIB // 10 for number in range(60)]) == (2 * MIB, False)


def test_what_the_first_half_took_is_none() -> None:
    assert of("worker.7.rss", [number * MIB for number in range(20)] + [20 * MIB] * 20) == (0, True)


def test_a_spike_is_none() -> None:
    values = [20 * MIB] * 40
    values[-2] = 90 * MIB
    assert of("worker.7.rss", values) == (0, True)


def test_a_spike_among_few_samples_is_none() -> None:
    for place in (8, 9, 14, 15):
        values = [20 * MIB] * 16
        values[place] = 90 * MIB
        assert of("worker.7.rss", values) == (0, True)


def test_less_that_is_free_is_growth() -> None:
    assert of("soak-pv.available", [200 * MIB - number * MIB for number in range(60)]) == (20 * MIB, False)
    assert of("soak-pv.available", [200 * MIB + number * MIB for number in range(60)]) == (-20 * MIB, True)


def test_one_descriptor_or_port_is_too_many() -> None:
    assert of("supervisor.fds", [9] * 30 + [10] * 10) == (1, False)
    assert of("dom0.ports", [40] * 40) == (0, True)


def test_a_few_samples_say_nothing() -> None:
    found = growth([{"supervisor.rss": 1}] * 3)
    assert not found.ok
    assert found.unknown == "3 samples say nothing; 8 are needed"


def test_a_worker_that_came_or_went_is_told() -> None:
    found = growth([{"worker.7.rss": 1}] * 10 + [{"worker.9.rss": 1}] * 10)
    assert not found.ok
    assert found.unknown == "a process came or went under the load: worker.7.rss, worker.9.rss"
