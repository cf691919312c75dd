"""Chains are served as virtio 1.3 §2.7 says, whatever the way to the guest's memory."""

from __future__ import annotations

import pytest

from xenvirtio.memory.local import LocalMemory
from xenvirtio.queue.batch import Batch
from xenvirtio.queue.split import SplitQueue
from xenvirtio.spec import virtio
from xenvirtio.testing.guest import KINDS, RegionGuest
from xenvirtio.testing.pair import FEATURES, Pair


@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_goes_round(kind: str, indirect: bool) -> None:
    with Pair(guest=KINDS[kind]()) as pair:
        for turn in range(100):
            data = bytes([turn]) * 5000
            head = pair.driver.add([b"header 16 bytes.", data], [4000, 1], indirect)
            pair.driver.kick()
            assert pair.take() == 1
            assert pair.batch.head[0] == head
            assert (pair.batch.read_bytes[0], pair.batch.write_bytes[0]) == (5016, 4001)
            assert pair.read(0) == b"header 16 bytes." + data
            assert pair.write(0, data[:4000] + b"\x07")
            pair.give()
            (used,) = pair.driver.used()
            assert (used.head, used.length, used.data) == (head, 4001, [data[:4000], b"\x07"])


@pytest.mark.parametrize("kind", KINDS)
def test_all_available_chains_come_at_once_and_in_order(kind: str) -> None:
    with Pair(size=64, guest=KINDS[kind]()) as pair:
        heads = [pair.driver.add([bytes([k]) * 20], [4], indirect=k % 3 == 0) for k in range(32)]
        pair.driver.kick()
        assert pair.take() == 32
        assert list(pair.batch.head)[:32] == heads
        for k in range(32):
            assert pair.read(k) == bytes([k]) * 20
            pair.write(k, bytes([k] * 4))
        pair.give()
        assert [(used.head, used.data) for used in pair.driver.used()] == [
            (head, [bytes([k] * 4)]) for k, head in enumerate(heads)
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_some_are_given_and_the_rest_stays(kind: str) -> None:
    with Pair(guest=KINDS[kind]()) as pair:
        heads = [pair.driver.add([bytes([k])], [3000]) for k in range(6)]
        pair.driver.kick()
        assert pair.take(4) == 4
        pair.write(0, b"a" * 3000)
        pair.write(1, b"b" * 10)
        pair.queue.give_some(pair.batch, 2)
        assert [used.head for used in pair.driver.used()] == heads[:2]
        assert pair.take() == 2
        assert pair.batch.count == 4
        assert [pair.read(i) for i in range(4)] == [bytes([k]) for k in range(2, 6)]
        for i in range(4):
            pair.write(i, bytes([i]) * 3000)
        pair.give()
        assert [used.data for used in pair.driver.used()] == [[bytes([i]) * 3000] for i in range(4)]
        assert pair.batch.count == 0


def test_only_as_many_as_the_batch_holds_come() -> None:
    with Pair(size=16, batch=Batch(3)) as pair:
        for k in range(8):
            pair.driver.add([bytes([k])])
        pair.driver.kick()
        assert pair.take() == 3
        assert pair.queue.available() == 5
        assert pair.take() == 0
        pair.give()
        assert pair.take(2) == 2
        assert pair.read(0) == b"\x03"


def test_a_chain_that_does_not_fit_the_segments_left_waits() -> None:
    with Pair(size=16, batch=Batch(16, 1024)) as pair:
        pair.driver.add([b"x"] * 10)
        pair.driver.add([b"y"] * 1020, indirect=True)
        pair.driver.kick()
        assert pair.take() == 1
        assert pair.take() == 0
        pair.give()
        assert pair.take() == 1
        assert pair.read(0) == b"y" * 1020


def test_a_batch_smaller_than_the_longest_chain_is_refused() -> None:
    with Pair(size=16) as pair, pytest.raises(ValueError, match="too small"):
        pair.queue.take(Batch(4, 1023))
    with Pair(size=16, features=virtio.F_VERSION_1) as pair, pytest.raises(ValueError, match="too small"):
        pair.queue.take(Batch(4, 15))


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_indirect_table_may_be_longer_than_a_small_queue(kind: str) -> None:
    """Linux makes rings smaller when memory is short, and its drivers do not look at that."""
    with Pair(size=4, guest=KINDS[kind]()) as pair:
        pair.driver.add([bytes([k % 251]) for k in range(1020)], [1] * 4, indirect=True)
        pair.driver.kick()
        assert pair.take() == 1
        assert pair.batch.fault[0] == 0
        assert pair.read(0) == bytes(k % 251 for k in range(1020))
        assert pair.write(0, b"done")
        pair.give()
        assert b"".join(pair.driver.used()[0].data) == b"done"


def test_2_7_5_3_2_normal_descriptors_may_come_before_an_indirect_one() -> None:
    with Pair() as pair:
        d = pair.driver
        parts = [d._buffer(4, False, 16, b"abcd"), d._buffer(4, False, 16, b"efgh"), d._buffer(9, True, 16)]
        table = d.table(d.descriptors(parts[1:], range(2)))
        d.write_descriptor(0, parts[0].address, 4, virtio.DESC_F_NEXT, 5)
        d.write_descriptor(5, table.address, table.length, virtio.DESC_F_INDIRECT)
        d.put_avail(0)
        d.kick()
        assert pair.take() == 1
        assert pair.read(0) == b"abcdefgh"
        assert pair.batch.write_bytes[0] == 9


def test_2_7_5_3_2_the_write_flag_of_an_indirect_descriptor_is_ignored() -> None:
    with Pair() as pair:
        d = pair.driver
        table = d.table(d.descriptors([d._buffer(4, False, 16, b"abcd")], range(1)))
        d.write_descriptor(0, table.address, table.length, virtio.DESC_F_INDIRECT | virtio.DESC_F_WRITE)
        d.put_avail(0)
        d.kick()
        assert pair.take() == 1
        assert pair.read(0) == b"abcd"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
def test_empty_buffers_are_served_as_nothing(kind: str, indirect: bool) -> None:
    with Pair(guest=KINDS[kind]()) as pair:
        pair.driver.add([b"", b"ab", b""], [0, 3, 0], indirect)
        pair.driver.add([b""], [], indirect)
        pair.driver.kick()
        assert pair.take() == 2
        assert pair.read(0) == b"ab"
        assert pair.write(0, b"xyz")
        assert (pair.batch.read_bytes[1], pair.batch.write_bytes[1]) == (0, 0)
        assert pair.batch.readable(1) == pair.batch.writable(1) == []
        pair.give()
        assert [(used.length, used.data) for used in pair.driver.used()] == [(3, [b"", b"xyz", b""]), (0, [])]


def test_the_address_of_an_empty_buffer_does_not_matter() -> None:
    with Pair() as pair:
        pair.driver.write_descriptor(0, (1 << 64) - 1, 0)
        pair.driver.put_avail(0)
        pair.driver.kick()
        assert pair.take() == 1
        assert pair.batch.fault[0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_indexes_wrap_at_65536(kind: str) -> None:
    with Pair(size=4, guest=KINDS[kind](), features=FEATURES) as pair:
        pair.queue.wants_kicks(True)
        for turn in range(0x10000 // 4 + 10 if kind == "regions" else 50):
            for k in range(4):
                pair.driver.add([], [1]) if kind != "regions" else _bare(pair, k)
            assert pair.driver.kick()
            assert pair.take() == 4, turn
            pair.give()
            assert pair.queue.should_notify()
            if kind == "regions":
                pair.driver.set_used_event(pair.driver.used_idx)
            else:
                assert len(pair.driver.used()) == 4
            assert not pair.queue.wants_kicks(True)
        assert kind != "regions" or pair.driver.used_idx == 40


def _bare(pair: Pair, k: int) -> None:
    """A chain without the driver's bookkeeping, for speed."""
    pair.driver.write_descriptor(k, 0, 0)
    pair.driver.put_avail(k)


def test_used_length_is_never_more_than_the_chain_can_hold() -> None:
    with Pair() as pair:
        pair.driver.add([], [10])
        pair.driver.kick()
        pair.take()
        pair.batch.written[0] = 11
        pair.give()
        assert pair.driver.used()[0].length == 10


def test_giving_more_than_was_taken_is_refused() -> None:
    with Pair() as pair, pytest.raises(ValueError, match="cannot give 1 of 0"):
        pair.queue.give_some(pair.batch, 1)


def test_gather_and_scatter_cross_the_borders_of_buffers() -> None:
    with Pair() as pair:
        pair.driver.add([b"abc", b"defg", b"h"], [2, 3])
        pair.driver.kick()
        pair.take()
        local = LocalMemory(64)
        assert pair.batch.gather(0, 2, local.address, 5)
        assert local.read(0, 5) == b"cdefg"
        assert pair.batch.gather(0, 8, local.address, 0)
        assert not pair.batch.gather(0, 4, local.address, 5)
        assert not pair.batch.gather(0, 9, local.address, 1)
        assert not pair.batch.gather(0, 1 << 63, local.address, 1)
        assert pair.write(0, b"12", offset=1)
        assert not pair.write(0, b"12", offset=4)
        pair.give()
        assert b"".join(pair.driver.used()[0].data)[1:3] == b"12"


def test_a_buffer_over_regions_that_are_not_neighbours_for_us_is_served() -> None:
    """HOSTILE: CVE-2018-1059."""
    with Pair(guest=RegionGuest(64, split=[8, 9, 20])) as pair:
        place = pair.guest.ram.place(14 * 4096, 4096)
        pair.guest.ram.write(place, bytes(range(256)) * 16 * 14)
        pair.driver.write_descriptor(0, pair.guest.share(place, 14 * 4096, False) + 7, 13 * 4096)
        pair.driver.put_avail(0)
        pair.driver.kick()
        assert pair.take() == 1
        assert pair.batch.iov_read[0] == 3
        assert pair.read(0) == (bytes(range(256)) * 16 * 14)[7 : 7 + 13 * 4096]


def test_a_queue_goes_on_from_its_state() -> None:
    with Pair() as pair:
        for k in range(5):
            pair.driver.add([bytes([k])])
        pair.driver.kick()
        pair.take(3)
        pair.queue.give_some(pair.batch, 2)
        state = pair.queue.state()
        assert (state.last_avail, state.used) == (3, 2)
        with SplitQueue(pair.memory, pair.driver.config, FEATURES, state=state) as queue:
            batch = Batch(16)
            assert queue.take(batch) == 2
            assert bytes(batch.readable(0)[0]) == b"\x03"
            queue.give(batch)
            assert queue.should_notify()  # whatever used_event says: what the driver was told is not known
            assert [used.head for used in pair.driver.used()] == [0, 1, 3, 4]


def test_a_resumed_queue_starts_at_the_used_index() -> None:
    with Pair() as pair:
        for k in range(5):
            pair.driver.add([bytes([k])])
        pair.driver.kick()
        pair.take(3)
        pair.queue.give_some(pair.batch, 1)
        with SplitQueue(pair.memory, pair.driver.config, FEATURES, resume=True) as queue:
            batch = Batch(16)
            assert queue.should_notify()
            assert queue.take(batch) == 4
            assert [bytes(batch.readable(k)[0]) for k in range(4)] == [b"\x01", b"\x02", b"\x03", b"\x04"]
