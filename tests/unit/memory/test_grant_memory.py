"""Guest memory by grants: one copy call a batch each way, and every way in which a guest gets it wrong."""

from __future__ import annotations

import pytest

from xenvirtio.errors import MemoryViolation, QueueViolation, XenError
from xenvirtio.memory import faults, raw
from xenvirtio.memory.local import LocalMemory
from xenvirtio.queue.batch import Batch
from xenvirtio.spec import grants, virtio
from xenvirtio.spec.xenbus import GRANT_ADDRESS
from xenvirtio.testing.guest import GrantGuest
from xenvirtio.testing.pair import Pair

NEXT, WRITE, INDIRECT = virtio.DESC_F_NEXT, virtio.DESC_F_WRITE, virtio.DESC_F_INDIRECT


def ref(address: int) -> int:
    return (address >> 12) & 0xFFFFFFFF


def revoke(pair: Pair, head: int, buffer: int) -> None:
    """The guest ends the grant of one buffer of a chain behind the device's back."""
    assert isinstance(pair.guest, GrantGuest)
    chain = pair.driver.chains[head]
    pair.guest.table.entries.pop(ref(chain.buffers[buffer].address))
    pair.guest.unshare = lambda *_: None  # type: ignore[method-assign]


def test_a_batch_is_one_copy_in_and_one_out() -> None:
    guest = GrantGuest()
    with Pair(128, guest=guest) as pair:
        for k in range(30):
            pair.driver.add([b"h" * 16, bytes([k]) * 6000], [1])
        pair.driver.kick()
        assert pair.take() == 30
        assert guest.table.copies == 1
        for i in range(30):
            pair.write(i, b"\0")
        pair.give()
        assert guest.table.copies == 2


def test_indirect_tables_of_a_batch_come_in_one_copy_more() -> None:
    guest = GrantGuest()
    with Pair(64, guest=guest) as pair:
        for k in range(30):
            pair.driver.add([b"h" * 16, bytes([k])], [1], indirect=True)
        pair.driver.kick()
        assert pair.take() == 30
        assert guest.table.copies == 2
        assert [pair.read(k) for k in range(30)] == [b"h" * 16 + bytes([k]) for k in range(30)]


def test_nothing_written_needs_no_copy_out() -> None:
    guest = GrantGuest()
    with Pair(guest=guest) as pair:
        pair.driver.add([b"x"], [4096])
        pair.driver.kick()
        pair.take()
        pair.give()
        assert guest.table.copies == 1


def test_only_what_was_written_reaches_the_guest() -> None:
    with Pair(guest=GrantGuest()) as pair:
        pair.driver.add([], [3000, 3000])
        pair.driver.kick()
        pair.take()
        for part in pair.batch.writable(0):
            part[:] = b"!" * len(part)
        pair.batch.written[0] = 3001
        pair.give()
        (used,) = pair.driver.used()
        assert used.data == [b"!" * 3000, b"!" + bytes(2999)]


def test_what_is_aligned_in_the_guest_is_aligned_for_us() -> None:
    with Pair(guest=GrantGuest()) as pair:
        pair.driver.add([b"odd"] + [bytes(4096)] * 3, [512], align=512)
        pair.driver.kick()
        pair.take()
        bases = [pair.batch.iov[2 * k] for k in range(5)]
        assert [base % 512 for base in bases[1:]] == [0] * 4


@pytest.mark.parametrize("table", [False, True], ids=["buffer", "table"])
@pytest.mark.parametrize(
    "address",
    [0, 0x1000, (1 << 63) - 1, 1 << 62, GRANT_ADDRESS | 1 << 44, GRANT_ADDRESS | 1 << 62, (1 << 64) - 4096],
)
def test_an_address_that_is_no_grant_stops_the_device(address: int, table: bool) -> None:
    with Pair(guest=GrantGuest()) as pair:
        pair.driver.write_descriptor(0, address, 16, INDIRECT if table else 0)
        pair.driver.put_avail(0)
        pair.driver.kick()
        with pytest.raises((MemoryViolation, QueueViolation)):
            pair.take()
        assert pair.batch.count == 0


def test_references_that_run_over_stop_the_device() -> None:
    with Pair(guest=GrantGuest()) as pair:
        pair.driver.write_descriptor(0, GRANT_ADDRESS | 0xFFFFFFFF << 12, 4097)
        pair.driver.put_avail(0)
        pair.driver.kick()
        with pytest.raises(MemoryViolation):
            pair.take()


@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
def test_a_bad_grant_fails_its_own_chain_and_no_other(indirect: bool) -> None:
    """HOSTILE: grants that fail half-way in a batch."""
    with Pair(guest=GrantGuest()) as pair:
        heads = [pair.driver.add([b"head", bytes([k]) * 5000], [1], indirect) for k in range(3)]
        revoke(pair, heads[1], 1)
        pair.driver.kick()
        assert pair.take() == 3
        assert list(pair.batch.fault)[:3] == [0, faults.MEMORY, 0]
        assert not pair.batch.gather(1, 0, LocalMemory(16).address, 4)
        assert pair.read(1) == b""
        assert pair.read(2) == b"head" + b"\x02" * 5000
        for i, status in enumerate(b"\0\1\0"):
            assert pair.write(i, bytes([status]))
        pair.give()
        assert [used.data for used in pair.driver.used()] == [[b"\0"], [b"\1"], [b"\0"]]


def test_a_table_that_cannot_be_fetched_fails_its_own_chain() -> None:
    guest = GrantGuest()
    with Pair(guest=guest) as pair:
        heads = [pair.driver.add([bytes([k])], [1], True) for k in range(3)]
        table = pair.driver.chains[heads[1]].table
        assert table is not None
        entry = guest.table.entries.pop(ref(table.address))
        pair.driver.kick()
        assert pair.take() == 3
        assert list(pair.batch.fault)[:3] == [0, faults.TABLE, 0]
        assert pair.batch.write_bytes[1] == 0
        assert pair.read(2) == b"\2"
        guest.table.entries[ref(table.address)] = entry
        pair.give()
        assert [used.length for used in pair.driver.used()] == [0, 0, 0]


def test_data_that_cannot_be_written_turns_the_status() -> None:
    """A read-only, foreign or revoked page: the status that was meant for success must not arrive."""
    with Pair(guest=GrantGuest()) as pair:
        heads = [pair.driver.add([b"read"], [4096, 1], align=4096) for _ in range(3)]
        revoke(pair, heads[1], 1)
        pair.driver.kick()
        assert pair.take() == 3
        for i in range(3):
            assert pair.write(i, b"D" * 4096 + b"\0")
            pair.batch.on_fault[i] = 7
        pair.give()
        used = pair.driver.used()
        assert [one.data[1] for one in used] == [b"\0", b"\7", b"\0"]
        assert [one.data[0] for one in used] == [b"D" * 4096, bytes(4096), b"D" * 4096]


def test_a_read_only_grant_cannot_be_written() -> None:
    guest = GrantGuest()
    with Pair(guest=guest) as pair:
        place = guest.ram.place(4096, 4096)
        pair.driver.write_descriptor(0, guest.share(place, 8, False), 8, WRITE)
        pair.driver.put_avail(0)
        pair.driver.kick()
        assert pair.take() == 1
        assert pair.write(0, b"whatever")
        pair.memory.finish(pair.batch)
        assert pair.batch.fault[0] == faults.MEMORY
        assert guest.ram.read(place, 8) == bytes(8)
        assert pair.batch.written[0] == 0  # there is no status that could tell


def test_data_that_cannot_be_written_is_used_with_length_0_where_no_status_tells() -> None:
    """XB-81: an entropy device's, for one."""
    with Pair(guest=GrantGuest()) as pair:
        heads = [pair.driver.add([], [4096], align=4096) for _ in range(2)]
        revoke(pair, heads[0], 0)
        pair.driver.kick()
        assert pair.take() == 2
        for i in range(2):
            assert pair.write(i, b"D" * 4096)
        pair.give()
        assert [one.length for one in pair.driver.used()] == [0, 4096]


def test_a_chain_with_a_fault_lets_out_only_its_last_byte() -> None:
    with Pair(guest=GrantGuest()) as pair:
        head = pair.driver.add([b"gone"], [600, 1])
        revoke(pair, head, 0)
        pair.driver.kick()
        pair.take()
        assert pair.batch.fault[0] == faults.MEMORY
        pair.write(0, b"\1", offset=600)
        pair.give()
        (used,) = pair.driver.used()
        assert used.data == [bytes(600), b"\1"]


def test_a_full_arena_leaves_chains_in_the_ring() -> None:
    with Pair(32, guest=GrantGuest(staging=64 << 10)) as pair:
        for k in range(10):
            pair.driver.add([bytes([k]) * 8192], [8192, 1])
        pair.driver.kick()
        seen = 0
        while seen < 10:
            count = pair.take()
            assert 0 < count <= 4
            for i in range(count):
                assert pair.read(i) == bytes([seen + i]) * 8192
                pair.write(i, bytes([seen + i]) * 8193)
            assert pair.take() == 0
            pair.give()
            seen += count
        assert [used.data[0][:1] for used in pair.driver.used()] == [bytes([k]) for k in range(10)]


def test_the_arena_goes_round_while_chains_stay_in_it() -> None:
    with Pair(64, guest=GrantGuest(2048, staging=64 << 10)) as pair:
        sent = got = 0
        while got < 200:
            while sent - got < 20:
                pair.driver.add([bytes([sent & 0xFF]) * (1 + sent * 37 % 5000)], [1 + sent * 91 % 4500])
                sent += 1
            pair.driver.kick()
            pair.take()
            for i in range(pair.batch.count):
                assert pair.read(i) == bytes([got + i & 0xFF]) * (1 + (got + i) * 37 % 5000)
            pair.write(0, bytes([got & 0xFF]) * int(pair.batch.write_bytes[0]))
            pair.queue.give_some(pair.batch, 1)
            (used,) = pair.driver.used()
            assert used.data == [bytes([got & 0xFF]) * (1 + got * 91 % 4500)]
            got += 1


def test_a_chain_larger_than_the_arena_is_a_fault_of_its_own() -> None:
    with Pair(guest=GrantGuest(staging=64 << 10)) as pair:
        pair.driver.add([b"before"], [1])
        pair.driver.add([b"header", bytes(60000)], [60000, 1])
        pair.driver.add([b"after"], [1])
        pair.driver.kick()
        assert pair.take() == 1
        assert pair.read(0) == b"before"
        pair.write(0, b"\0")
        pair.give()
        assert pair.take() == 2
        assert list(pair.batch.fault)[:2] == [faults.SIZE, 0]
        assert pair.write(0, b"\1", offset=60000)
        pair.write(1, b"\0")
        pair.give()
        used = pair.driver.used()
        assert [one.data[-1] for one in used] == [b"\0", b"\1", b"\0"]
        assert used[1].data[0] == bytes(60000)


def test_no_copy_crosses_a_page_on_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = GrantGuest()
    copy, seen = guest.table.copy, []

    def watch(segments: int, count: int) -> None:
        for at in range(segments, segments + 24 * count, 24):
            source = raw.load16(at + grants.COPY_FLAGS) == grants.GNTCOPY_SOURCE_GREF
            local = raw.load64(at + (grants.COPY_DEST if source else grants.COPY_SOURCE))
            seen.append((local % 4096) + raw.load16(at + grants.COPY_LEN))
        copy(segments, count)

    monkeypatch.setattr(guest.table, "copy", watch)
    with Pair(32, guest=guest, batch=Batch(32)) as pair:
        for size in (1, 500, 4095, 4097, 9000):
            pair.driver.add([bytes(size), bytes(511)], [size, 3])
        pair.driver.kick()
        pair.take()
        for i in range(5):
            pair.write(i, bytes(int(pair.batch.write_bytes[i])))
        pair.give()
        assert len(seen) > 20
        assert max(seen) <= 4096


def test_a_call_that_xen_refuses_whole_leaves_the_chains_in_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = GrantGuest()
    with Pair(guest=guest) as pair:
        pair.driver.add([b"later"])
        pair.driver.kick()
        with monkeypatch.context() as patch:

            def refuse(segments: int, count: int) -> None:  # noqa: ARG001
                raise XenError("grant copy: Cannot allocate memory")

            patch.setattr(guest.table, "copy", refuse)
            with pytest.raises(XenError):
                pair.take()
        assert pair.batch.count == 0
        assert pair.take() == 1
        assert pair.read(0) == b"later"


def test_rings_of_several_pages_with_an_offset_are_mapped_and_let_go() -> None:
    guest = GrantGuest()
    guest.ram.place(192)
    with Pair(512, guest=guest) as pair:
        assert sum(len(refs) for refs in guest.table.mapped.values()) >= 5
        assert pair.driver.config.desc % 4096 or pair.driver.config.driver % 4096
        pair.driver.add([b"over"])
        pair.driver.kick()
        assert pair.take() == 1
        pair.give()
        pair.queue.close()
        assert not guest.table.mapped
        counters = pair.memory.counters.as_dict()
        assert counters["frames_mapped"] == counters["frames_unmapped"] >= 5


@pytest.mark.parametrize(
    "address", [GRANT_ADDRESS | 99999 << 12, 0x1000, GRANT_ADDRESS | 0xFFFFFFFF << 12 | 8]
)
def test_a_ring_that_cannot_be_mapped_is_a_violation(address: int) -> None:
    with GrantGuest() as guest, pytest.raises(MemoryViolation):
        guest.memory().map(address, 4096)


def test_counters_tell_what_was_copied() -> None:
    with Pair(guest=GrantGuest()) as pair:
        pair.driver.add([b"r" * 100], [50])
        pair.driver.kick()
        before = pair.memory.counters.as_dict()
        pair.take()
        pair.write(0, b"w" * 20)
        pair.give()
        after = pair.memory.counters.as_dict()
        grown = {name: after[name] - before[name] for name in after}
        assert grown["bytes_copied"] == 120
        assert grown["hypercalls"] == 2
        assert 2 <= grown["grants_copied"] <= 4
