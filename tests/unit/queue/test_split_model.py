"""Random drivers, good and hostile, against a plain model."""

from __future__ import annotations

import contextlib
import struct
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenvirtio.errors import GuestViolation
from xenvirtio.queue.batch import Batch
from xenvirtio.queue.config import QueueState
from xenvirtio.queue.split import SplitQueue
from xenvirtio.spec import virtio
from xenvirtio.testing.guest import KINDS, ForeignGuest, GrantGuest, RegionGuest
from xenvirtio.testing.pair import FEATURES, Pair

if TYPE_CHECKING:
    from collections.abc import Callable

CHAIN = st.tuples(
    st.lists(st.binary(max_size=300), max_size=4),
    st.lists(st.integers(0, 5000), max_size=4),
    st.booleans(),
).filter(lambda chain: bool(chain[0] or chain[1]))

STEP = st.one_of(
    st.tuples(st.just("add"), st.lists(CHAIN, min_size=1, max_size=6)),
    st.tuples(st.just("take"), st.integers(1, 64)),
    st.tuples(st.just("give"), st.integers(1, 8), st.integers(0, 1 << 16)),
    st.tuples(st.just("interrupts"), st.booleans(), st.integers(1, 4)),
)


class Model:
    """What must be available, taken and used, and whether anybody sleeps who should not."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.available: deque[tuple[int, bytes, int]] = deque()
        self.taken: deque[tuple[int, bytes, int]] = deque()
        self.filled = 0

    def add(self, chains: list[tuple[list[bytes], list[int], bool]]) -> None:
        for readable, writable, indirect in chains:
            if indirect and len(readable) + len(writable) > self.pair.queue.size:
                continue
            with contextlib.suppress(BufferError):
                head = self.pair.driver.add(readable, writable, indirect)
                self.available.append((head, b"".join(readable), sum(writable)))
        self.pair.driver.kick()
        assert self.pair.queue.available() == len(self.available)

    def take(self, limit: int) -> None:
        before = self.pair.batch.count
        count = self.pair.take(limit)
        assert count <= limit
        assert count or not self.available or before
        for i in range(before, before + count):
            head, data, room = self.available.popleft()
            assert self.pair.batch.fault[i] == 0
            assert self.pair.batch.head[i] == head
            assert self.pair.batch.write_bytes[i] == room
            self.taken.append((head, data, room))
        for i, (_, data, _) in enumerate(self.taken):  # also the earlier ones are still what they were
            assert self.pair.read(i) == data

    def give(self, count: int, seed: int) -> None:
        count = min(count, len(self.taken))
        expected = []
        for i in range(count):
            head, _, room = self.taken.popleft()
            data = bytes((seed + i + k) & 0xFF for k in range(min(room, seed % 7000)))
            if data:
                assert self.pair.write(i, data)
            expected.append((head, data))
        self.pair.queue.give_some(self.pair.batch, count)
        for used, (head, data) in zip(self.pair.driver.used(), expected, strict=True):
            assert (used.head, used.length) == (head, len(data))
            assert b"".join(used.data)[: len(data)] == data


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(size=st.sampled_from([1, 2, 4, 16, 256, 1024]), steps=st.lists(STEP, max_size=30))
def test_a_good_driver_gets_what_it_asked_for(kind: str, size: int, steps: list[tuple[object, ...]]) -> None:
    guests: dict[str, RegionGuest | GrantGuest | ForeignGuest] = {
        "regions": RegionGuest(512, split=[70, 71, 200]),
        "grant": GrantGuest(512, staging=96 << 10),
        "foreign": ForeignGuest(512),
    }
    for name, guest in guests.items():
        if name != kind:
            guest.close()
    with Pair(size, guest=guests[kind]) as pair:
        model = Model(pair)
        actions: dict[object, Callable[..., None]] = {
            "add": model.add,
            "take": model.take,
            "give": model.give,
            "interrupts": pair.driver.want_interrupts,
        }
        for action, *arguments in steps:
            actions[action](*arguments)
        while model.available or model.taken:
            model.take(1024)
            model.give(1024, 77)
        assert pair.batch.count == 0


@settings(max_examples=40)
@given(
    start=st.integers(0xFFF0, 0xFFFF),
    counts=st.lists(st.integers(1, 8), min_size=1, max_size=20),
)
def test_no_wake_up_is_lost_over_the_wrap(start: int, counts: list[int]) -> None:
    """A device that sleeps after wants_kicks and a driver that sleeps after used_event meet all the same."""
    with Pair(8) as pair:
        d = pair.driver
        d.set_avail_idx(start)
        d._next_avail = d._kicked = d._last_used = start
        with SplitQueue(pair.memory, d.config, FEATURES, state=QueueState(start, start)) as queue:
            assert queue.should_notify()
            batch = Batch(8)
            assert not queue.wants_kicks(True)
            d.want_interrupts(True)
            for count in counts:
                for _ in range(count):
                    d.add([b"x"])
                assert d.kick()
                assert queue.take(batch) == count
                queue.give(batch)
                assert queue.should_notify()
                assert not queue.wants_kicks(True)
                assert len(d.used()) == count


U16 = st.one_of(st.integers(0, 20), st.integers(0, 0xFFFF))
ADDRESS = st.one_of(
    st.integers(0x1_0000_0000 - 64, 0x1_0000_0000 + 16 * 4096 + 64),
    st.integers(0, (1 << 64) - 1),
    st.integers((1 << 64) - 64, (1 << 64) - 1),
)
LENGTH = st.one_of(st.integers(0, 64), st.sampled_from([16, 32, 48, 256]), st.integers(0, 0xFFFFFFFF))
DESCRIPTOR = st.tuples(ADDRESS, LENGTH, st.integers(0, 7), U16)


@pytest.mark.parametrize("features", [FEATURES, virtio.F_VERSION_1], ids=["indirect", "plain"])
@settings(max_examples=150)
@given(
    table=st.lists(DESCRIPTOR, min_size=8, max_size=8),
    inner=st.lists(DESCRIPTOR, max_size=8),
    ring=st.lists(U16, min_size=8, max_size=8),
    idx=U16,
)
def test_garbage_is_served_within_memory_or_refused(
    features: int,
    table: list[tuple[int, int, int, int]],
    inner: list[tuple[int, int, int, int]],
    ring: list[int],
    idx: int,
) -> None:
    """HOSTILE: nothing but GuestViolation, and no iovec outside of what the guest may touch."""
    with Pair(8, features, guest=RegionGuest(16)) as pair:
        pair.guest.ram.write(0x4000, b"".join(struct.pack("<QIHH", *entry) for entry in inner))
        for k in range(8):
            pair.driver.write_descriptor(k, *table[k])
            pair.driver.put_avail(ring[k])
        pair.driver.set_avail_idx(idx)
        assert isinstance(pair.guest, RegionGuest)
        (region,) = pair.guest.regions
        count = -1
        with contextlib.suppress(GuestViolation):
            count = pair.take()
        if count < 0:
            assert pair.batch.count == 0
            return
        assert count <= min(idx, 8)
        for k in range(pair.batch.iov_used):
            base, length = pair.batch.iov[2 * k], pair.batch.iov[2 * k + 1]
            assert region.local <= base
            assert base + length <= region.local + region.length
        for i in range(count):
            assert pair.batch.read_bytes[i] + pair.batch.write_bytes[i] < 1 << 32
            assert sum(len(part) for part in pair.batch.readable(i)) == pair.batch.read_bytes[i]
            assert sum(len(part) for part in pair.batch.writable(i)) == pair.batch.write_bytes[i]
        pair.give()


@pytest.mark.parametrize("kind", ["grant", "foreign"])
@settings(max_examples=60)
@given(
    table=st.lists(DESCRIPTOR, min_size=8, max_size=8),
    high=st.sampled_from([0, 1 << 63, 0x40000 << 12]),
    data=st.data(),
)
def test_garbage_through_xen_is_served_or_refused(
    kind: str, table: list[tuple[int, int, int, int]], high: int, data: st.DataObject
) -> None:
    with Pair(8, guest=KINDS[kind]()) as pair:
        for k, (address, length, flags, following) in enumerate(table):
            small = data.draw(st.integers(0, 0x40 << 12))
            pair.driver.write_descriptor(k, high | small if high else address, length, flags, following)
            pair.driver.put_avail(k)
        pair.driver.set_avail_idx(8)
        with contextlib.suppress(GuestViolation):
            for i in range(pair.take()):
                pair.batch.written[i] = pair.batch.write_bytes[i]
                if pair.batch.fault[i] == 0:
                    assert sum(len(part) for part in pair.batch.readable(i)) == pair.batch.read_bytes[i]
            pair.give()
        pair.batch.clear()
        pair.memory.finish(pair.batch)
