"""What no driver may do stops the device: HOSTILE "Queues", titled by the rule of virtio 1.3."""

from __future__ import annotations

import pytest

from xenvirtio.errors import GuestViolation, MemoryViolation, QueueViolation
from xenvirtio.memory import faults
from xenvirtio.queue import rules
from xenvirtio.queue.batch import Batch
from xenvirtio.queue.config import QueueConfig, QueueState
from xenvirtio.queue.split import SplitQueue
from xenvirtio.spec import virtio
from xenvirtio.testing.guest import RegionGuest
from xenvirtio.testing.pair import FEATURES, Pair

NEXT, WRITE, INDIRECT = virtio.DESC_F_NEXT, virtio.DESC_F_WRITE, virtio.DESC_F_INDIRECT


def refused(pair: Pair, rule: int) -> None:
    """Showing what was prepared is answered by this rule, and leaves the batch as it was."""
    pair.driver.kick()
    before = pair.batch.count
    with pytest.raises(QueueViolation) as caught:
        pair.take()
    assert caught.value.rule == rules.TEXT[rule]
    assert pair.batch.count == before


def base(pair: Pair) -> int:
    return pair.guest.share(0, 16, True)


def test_2_7_13_3_avail_idx_moves_by_more_than_the_queue_size() -> None:
    """CVE-2016-5403."""
    with Pair(size=16) as pair:
        pair.driver.set_avail_idx(17)
        with pytest.raises(QueueViolation) as caught:
            pair.take()
        assert caught.value.rule == rules.TEXT[rules.AVAIL_IDX]


def test_avail_idx_moving_by_exactly_the_queue_size_is_legal() -> None:
    with Pair(size=16) as pair:
        for _ in range(16):
            pair.driver.add([b"x"])
        pair.driver.kick()
        assert pair.take() == 16


def test_avail_idx_going_backwards_is_a_move_by_more_than_the_size() -> None:
    with Pair(size=16) as pair:
        pair.driver.add([b"x"])
        pair.driver.kick()
        pair.take()
        pair.driver.set_avail_idx(0)
        with pytest.raises(QueueViolation):
            pair.take()


@pytest.mark.parametrize("head", [16, 17, 0x8000, 0xFFFF])
def test_2_7_6_head_is_not_below_the_queue_size(head: int) -> None:
    with Pair(size=16) as pair:
        pair.driver.put_avail(head)
        refused(pair, rules.HEAD)


@pytest.mark.parametrize("following", [16, 0xFFFF])
def test_2_7_5_next_is_not_below_the_queue_size(following: int) -> None:
    with Pair(size=16) as pair:
        pair.driver.write_descriptor(0, base(pair), 8, NEXT, following)
        pair.driver.put_avail(0)
        refused(pair, rules.NEXT)


@pytest.mark.parametrize("length", [0, 8], ids=["of empty buffers", "of buffers"])
@pytest.mark.parametrize("loop", [1, 2, 16])
def test_2_7_5_3_1_chain_is_a_loop(loop: int, length: int) -> None:
    """CVE-2019-9547."""
    with Pair(size=16) as pair:
        for k in range(loop):
            pair.driver.write_descriptor(k, base(pair), length, NEXT, (k + 1) % loop)
        pair.driver.put_avail(0)
        refused(pair, rules.LOOP)


def test_a_chain_as_long_as_the_queue_is_legal() -> None:
    with Pair(size=16) as pair:
        pair.driver.add([b"x"] * 16)
        pair.driver.kick()
        assert pair.take() == 1
        assert pair.batch.depth[0] == 16


def test_2_7_4_2_readable_after_writable() -> None:
    with Pair() as pair:
        pair.driver.write_descriptor(0, base(pair), 8, NEXT | WRITE, 1)
        pair.driver.write_descriptor(1, base(pair), 8)
        pair.driver.put_avail(0)
        refused(pair, rules.ORDER)


def test_2_7_4_2_readable_in_a_table_after_writable_before_it() -> None:
    with Pair() as pair:
        table = pair.driver.table([(base(pair), 8, 0, 0)])
        pair.driver.write_descriptor(0, base(pair), 8, NEXT | WRITE, 1)
        pair.driver.write_descriptor(1, table.address, 16, INDIRECT)
        pair.driver.put_avail(0)
        refused(pair, rules.ORDER)


@pytest.mark.parametrize(("address", "length"), [((1 << 64) - 1, 2), ((1 << 64) - 4096, 4097), (1 << 63, 0)])
def test_2_7_5_address_and_length_overflow(address: int, length: int) -> None:
    """CVE-2019-18960 and its like."""
    with Pair() as pair:
        pair.driver.write_descriptor(0, address, length)
        pair.driver.put_avail(0)
        if length:
            refused(pair, rules.OVERFLOW)
        else:
            pair.driver.kick()
            assert pair.take() == 1


def test_an_indirect_table_that_overflows_the_address_space() -> None:
    with Pair() as pair:
        pair.driver.write_descriptor(0, (1 << 64) - 16, 32, INDIRECT)
        pair.driver.put_avail(0)
        refused(pair, rules.OVERFLOW)


@pytest.mark.parametrize("lengths", [(0xFFFFFFFF, 1), (1 << 31, 1 << 31), (0x80000000, 0x7FFFFFFF, 1)])
def test_2_7_5_a_chain_of_2_to_the_32_bytes(lengths: tuple[int, ...]) -> None:
    with Pair() as pair:
        for k, length in enumerate(lengths):
            more = k + 1 < len(lengths)
            pair.driver.write_descriptor(k, 0x1000, length, NEXT if more else WRITE, k + 1 if more else 0)
        pair.driver.put_avail(0)
        refused(pair, rules.BYTES)


def test_2_7_5_3_1_indirect_without_the_feature() -> None:
    with Pair(features=virtio.F_VERSION_1) as pair:
        pair.driver.write_descriptor(0, base(pair), 16, INDIRECT)
        pair.driver.put_avail(0)
        refused(pair, rules.INDIRECT_OFF)


def test_2_7_5_3_1_indirect_with_next() -> None:
    with Pair() as pair:
        pair.driver.write_descriptor(0, base(pair), 16, INDIRECT | NEXT, 1)
        pair.driver.put_avail(0)
        refused(pair, rules.INDIRECT_NEXT)


@pytest.mark.parametrize("length", [0, 1, 15, 17, 0xFFFFFFFF])
def test_2_7_5_3_indirect_table_empty_or_not_whole(length: int) -> None:
    with Pair() as pair:
        pair.driver.write_descriptor(0, base(pair), length, INDIRECT)
        pair.driver.put_avail(0)
        refused(pair, rules.INDIRECT_LENGTH)


@pytest.mark.parametrize("length", [1025 * 16, 1 << 20, 0xFFFFFFF0])
def test_2_7_5_3_1_indirect_table_larger_than_any_queue_here(length: int) -> None:
    with Pair(size=16) as pair:
        pair.driver.write_descriptor(0, base(pair), length, INDIRECT)
        pair.driver.put_avail(0)
        refused(pair, rules.INDIRECT_HUGE)


def test_2_7_5_3_1_indirect_within_indirect() -> None:
    with Pair() as pair:
        table = pair.driver.table([(base(pair), 16, INDIRECT, 0)])
        pair.driver.write_descriptor(0, table.address, 16, INDIRECT)
        pair.driver.put_avail(0)
        refused(pair, rules.INDIRECT_NESTED)


@pytest.mark.parametrize("following", [2, 15, 0xFFFF])
def test_2_7_5_3_next_outside_of_its_table(following: int) -> None:
    """Below the queue size is not enough."""
    with Pair() as pair:
        table = pair.driver.table([(base(pair), 8, NEXT, following), (base(pair), 8, 0, 0)])
        pair.driver.write_descriptor(0, table.address, 32, INDIRECT)
        pair.driver.put_avail(0)
        refused(pair, rules.NEXT)


@pytest.mark.parametrize("length", [0, 8], ids=["of empty buffers", "of buffers"])
def test_2_7_5_3_1_loop_within_a_table(length: int) -> None:
    with Pair() as pair:
        table = pair.driver.table([(base(pair), length, NEXT, 1), (base(pair), length, NEXT, 0)])
        pair.driver.write_descriptor(0, table.address, 32, INDIRECT)
        pair.driver.put_avail(0)
        refused(pair, rules.LOOP)


def test_2_7_5_3_1_descriptors_and_table_together_longer_than_any_chain_may_be() -> None:
    with Pair(size=4) as pair:
        entries = [(base(pair), 8, NEXT, k + 1) for k in range(1022)]
        table = pair.driver.table([*entries, (base(pair), 8, 0, 0)])
        pair.driver.write_descriptor(0, base(pair), 8, NEXT, 1)
        pair.driver.write_descriptor(1, base(pair), 8, NEXT, 2)
        pair.driver.write_descriptor(2, table.address, table.length, INDIRECT)
        pair.driver.put_avail(0)
        refused(pair, rules.LOOP)


@pytest.mark.parametrize("indirect", [False, True], ids=["buffer", "table"])
@pytest.mark.parametrize("place", ["hole below", "ends past memory", "hole above"])
def test_a_buffer_or_table_outside_of_memory(place: str, indirect: bool) -> None:
    with Pair(guest=RegionGuest(16, base=0x100000)) as pair:
        end = 0x100000 + 16 * 4096
        address = {"hole below": 0x100000 - 16, "ends past memory": end - 16, "hole above": end}[place]
        pair.driver.write_descriptor(0, address, 32, INDIRECT if indirect else 0)
        pair.driver.put_avail(0)
        pair.driver.kick()
        with pytest.raises(MemoryViolation, match="outside of the guest's memory"):
            pair.take()
        assert pair.batch.count == 0


def test_the_last_byte_of_memory_is_legal() -> None:
    with Pair(guest=RegionGuest(16, base=(1 << 64) - 16 * 4096)) as pair:
        pair.guest.ram.write(16 * 4096 - 3, b"end")
        pair.driver.write_descriptor(0, (1 << 64) - 3, 3)
        pair.driver.put_avail(0)
        pair.driver.kick()
        assert pair.take() == 1
        assert pair.read(0) == b"end"


def test_chains_before_a_bad_one_do_not_stay_in_the_batch() -> None:
    with Pair() as pair:
        pair.driver.add([b"good"])
        pair.driver.kick()
        pair.take()
        pair.driver.add([b"good"])
        pair.driver.put_avail(99)
        refused(pair, rules.HEAD)
        assert pair.batch.count == 1
        assert pair.read(0) == b"good"


def test_xsa_155_what_changes_after_the_take_is_not_looked_at() -> None:
    with Pair() as pair:
        head = pair.driver.add([b"good"], [4], indirect=True)
        pair.driver.add([b"fine"], [4])
        pair.driver.kick()
        assert pair.take() == 2
        table = pair.driver.chains[head].table
        assert table is not None
        pair.guest.ram.write(table.offset, b"\xff" * table.length)
        for k in range(pair.driver.size):
            pair.driver.write_descriptor(k, 0xDEAD0000, 0xFFFFFFFF, NEXT, 0xFFFF)
        assert (pair.read(0), pair.read(1)) == (b"good", b"fine")
        assert pair.write(0, b"abcd")
        pair.give()
        assert pair.driver.used()[0].data == [b"abcd"]


def configs() -> list[tuple[str, QueueConfig]]:
    d, a, u = 0x1_0000_0000, 0x1_0000_1000, 0x1_0000_2000
    return [
        ("queue size 0 is not a power of two", QueueConfig(0, 0, d, a, u)),
        ("queue size -4 is not", QueueConfig(0, -4, d, a, u)),
        ("queue size 3 is not", QueueConfig(0, 3, d, a, u)),
        ("queue size 65536 is not", QueueConfig(0, 65536, d, a, u)),
        ("descriptor table at 0x100000008 is not aligned to 16", QueueConfig(0, 4, d + 8, a, u)),
        ("available ring at 0x100001001 is not aligned to 2", QueueConfig(0, 4, d, a + 1, u)),
        ("used ring at 0x100002002 is not aligned to 4", QueueConfig(0, 4, d, a, u + 2)),
        ("available ring at 0x100000030 overlaps the descriptor table", QueueConfig(0, 4, d, d + 48, u)),
        ("used ring at 0x100001004 overlaps the available ring", QueueConfig(0, 4, d, a, a + 4)),
        ("ends beyond the address space", QueueConfig(0, 4, d, a, (1 << 64) - 4)),
        ("overlaps", QueueConfig(0, 4, d, d, d)),
    ]


@pytest.mark.parametrize(("words", "config"), configs(), ids=[words for words, _ in configs()])
def test_2_7_queue_layouts_that_are_refused(words: str, config: QueueConfig) -> None:
    """CVE-2026-5747."""
    with RegionGuest(16) as guest, pytest.raises(QueueViolation, match=words):
        SplitQueue(guest.memory(), config, FEATURES)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_2_7_rings_outside_of_memory_are_refused(which: int) -> None:
    areas = [0x1_0000_0000, 0x1_0000_1000, 0x1_0000_2000]
    areas[which] = 0x1_0001_0000 - 16
    with RegionGuest(16) as guest, pytest.raises(MemoryViolation):
        SplitQueue(guest.memory(), QueueConfig(0, 256, *areas), FEATURES)


def test_a_used_index_that_the_guest_forged_cannot_be_resumed_from() -> None:
    with Pair(size=16) as pair:
        pair.driver.set_avail_idx(40)
        with pytest.raises(QueueViolation):
            SplitQueue(pair.memory, pair.driver.config, FEATURES, resume=True)
        with pytest.raises(QueueViolation):
            SplitQueue(pair.memory, pair.driver.config, FEATURES, state=QueueState(41, 0))


def test_violations_are_one_family() -> None:
    assert issubclass(QueueViolation, GuestViolation)
    assert issubclass(MemoryViolation, GuestViolation)


def test_every_rule_cites_its_section() -> None:
    numbers = [
        value for name, value in vars(rules).items() if name.isupper() and name not in ("TEXT", "FULL")
    ]
    assert sorted(numbers) == sorted(rules.TEXT)
    assert all("virtio 1.3 §" in text for text in rules.TEXT.values())


def test_a_chain_of_more_iovecs_than_there_are_is_a_fault_of_its_own() -> None:
    with Pair(size=4, guest=RegionGuest(64, split=range(8, 64)), batch=Batch(4, 1024, 6)) as pair:
        place = pair.guest.ram.place(20 * 4096, 4096)
        pair.driver.write_descriptor(3, pair.guest.share(place, 1, False) + 8 * 4096, 10 * 4096)
        pair.driver.put_avail(3)
        pair.driver.add([b"ok"], indirect=True)
        pair.driver.kick()
        assert pair.take() >= 1
        assert pair.batch.fault[0] == faults.SIZE
        assert pair.batch.iov_read[0] == 0
