"""Who tells whom, and when: virtio 1.3 §2.7.7 (interrupts) and §2.7.10 (kicks)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenvirtio.memory import raw
from xenvirtio.spec import virtio
from xenvirtio.testing.pair import FEATURES, Pair

PLAIN = virtio.F_VERSION_1


def serve(pair: Pair, count: int = 1) -> None:
    for _ in range(count):
        pair.driver.add([b"x"])
    pair.driver.kick()
    assert pair.take() == count
    pair.give()


@pytest.mark.parametrize("features", [PLAIN, FEATURES], ids=["flags", "event idx"])
def test_nothing_used_needs_no_interrupt(features: int) -> None:
    with Pair(features=features) as pair:
        assert not pair.queue.should_notify()


def test_2_7_7_no_interrupt_flag_is_honoured() -> None:
    with Pair(features=PLAIN) as pair:
        serve(pair)
        assert pair.queue.should_notify()
        assert not pair.queue.should_notify()
        pair.driver.want_interrupts(False)
        serve(pair)
        assert not pair.queue.should_notify()


def test_2_7_7_2_used_event_says_when() -> None:
    with Pair(features=FEATURES) as pair:
        serve(pair)
        assert pair.queue.should_notify()
        pair.driver.used()
        pair.driver.want_interrupts(True, after=3)
        serve(pair)
        assert not pair.queue.should_notify()
        serve(pair)
        assert not pair.queue.should_notify()
        serve(pair)
        assert pair.queue.should_notify()
        serve(pair)
        assert not pair.queue.should_notify()


def test_used_event_within_a_batch_is_seen() -> None:
    with Pair(features=FEATURES) as pair:
        pair.driver.want_interrupts(True, after=5)
        serve(pair, 8)
        assert pair.queue.should_notify()


def test_with_event_idx_the_flag_means_nothing() -> None:
    with Pair(features=FEATURES) as pair:
        raw.store16(pair.driver._avail, virtio.AVAIL_F_NO_INTERRUPT)
        serve(pair)
        assert pair.queue.should_notify()


@given(used=st.integers(0, 0xFFFF), count=st.integers(1, 16), event=st.integers(0, 0xFFFF))
def test_used_event_is_met_when_an_index_in_it_is_passed(used: int, count: int, event: int) -> None:
    from xenvirtio.queue.batch import Batch
    from xenvirtio.queue.config import QueueState
    from xenvirtio.queue.split import SplitQueue

    with Pair(features=FEATURES) as pair:
        pair.driver.set_avail_idx(used)
        with SplitQueue(pair.memory, pair.driver.config, FEATURES, state=QueueState(used, used)) as queue:
            assert queue.should_notify()
            for k in range(16):
                raw.store16(pair.driver._avail + 4 + 2 * k, k)
            pair.driver.set_avail_idx(used + count)
            batch = Batch(16)
            assert queue.take(batch) == count
            queue.give(batch)
            pair.driver.set_used_event(event)
            assert queue.should_notify() == (event in [(used + k) & 0xFFFF for k in range(count)])


def test_2_7_10_flags_ask_for_kicks_or_spare_them() -> None:
    with Pair(features=PLAIN) as pair:
        assert not pair.queue.wants_kicks(False)
        pair.driver.add([b"x"])
        assert not pair.driver.kick()
        assert pair.queue.wants_kicks(True)
        pair.take()
        assert not pair.queue.wants_kicks(True)
        pair.driver.add([b"x"])
        assert pair.driver.kick()


def test_2_7_10_avail_event_asks_for_the_next_kick() -> None:
    with Pair(features=FEATURES) as pair:
        assert not pair.queue.wants_kicks(True)
        pair.driver.add([b"x"])
        assert pair.driver.kick()
        pair.driver.add([b"x"])
        assert not pair.driver.kick()
        pair.take()
        pair.queue.wants_kicks(False)
        pair.driver.add([b"x"])
        assert not pair.driver.kick()
        assert pair.queue.wants_kicks(True)
        pair.take()
        assert not pair.queue.wants_kicks(True)
        assert pair.driver.avail_event == 3
        pair.driver.add([b"x"])
        assert pair.driver.kick()


def test_asking_for_kicks_with_a_mad_index_is_safe() -> None:
    with Pair(features=FEATURES) as pair:
        pair.driver.set_avail_idx(0x9000)
        assert pair.queue.wants_kicks(True)
        assert pair.queue.available() == 0x9000
