"""Guest memory by foreign mapping: a bounded cache that honours every page's own error."""

from __future__ import annotations

import ctypes

import pytest

from xenvirtio.errors import MemoryViolation
from xenvirtio.memory import faults
from xenvirtio.memory.foreign import ForeignMemory
from xenvirtio.memory.local import LocalMemory
from xenvirtio.spec import virtio
from xenvirtio.testing.guest import ForeignGuest
from xenvirtio.testing.pair import Pair

CACHE = 1 << 20


def round_trip(pair: Pair, data: bytes = b"data" * 3000) -> None:
    pair.driver.add([data], [len(data)])
    pair.driver.kick()
    assert pair.take() == 1
    assert pair.batch.fault[0] == 0
    assert pair.read(0) == data
    pair.write(0, data)
    pair.give()
    assert pair.driver.used()[0].data == [data]


def writes_to(address: int) -> bool:
    """Whether a byte can be written at a local address: the kernel tries, and survives."""
    with open("/dev/zero", "rb", buffering=0) as zero:
        return int(ctypes.CDLL(None).read(zero.fileno(), ctypes.c_void_p(address), 1)) == 1


def test_cached_frames_stay_mapped_from_one_batch_to_the_next() -> None:
    guest = ForeignGuest()
    with Pair(guest=guest, memory=guest.memory(CACHE)) as pair:
        round_trip(pair)
        calls = guest.mapper.calls
        for _ in range(5):
            round_trip(pair)
        assert guest.mapper.calls == calls


def test_by_default_each_chains_frames_are_mapped_only_while_the_device_has_it() -> None:
    """A PV guest dies of making a page table of a frame that we have mapped; elsewhere frames change."""
    guest = ForeignGuest()
    with Pair(guest=guest) as pair:
        rings = dict(guest.mapper.mapped)
        round_trip(pair)
        assert guest.mapper.mapped == rings
        for _ in range(4):
            pair.driver.add([b"x" * 5000], [10], indirect=True)
        pair.driver.kick()
        assert pair.take() == 4
        for left in (3, 2, 1, 0):
            pair.queue.give_some(pair.batch, 1)
            assert len(guest.mapper.mapped) == len(rings) + 2 * left  # to read, and to write


def test_what_the_device_only_reads_is_mapped_read_only() -> None:
    """A PV guest may make a page table of a frame that it gave for reading."""
    guest = ForeignGuest()
    with Pair(guest=guest) as pair:
        read, written = (guest.ram.place(2 * 4096, 4096) for _ in range(2))
        guest.ram.write(read, b"r" * 8192)
        pair.driver.write_descriptor(0, guest.share(read, 8192, False), 8192, virtio.DESC_F_NEXT, 1)
        pair.driver.write_descriptor(1, guest.share(written, 8192, True), 8192, virtio.DESC_F_WRITE)
        pair.driver.put_avail(0)
        pair.driver.kick()
        assert pair.take() == 1
        for offset in (read, read + 4096):
            guest.mapper.make_page_table(guest.base + offset // 4096)
        with pytest.raises(AssertionError, match="mapped writable"):
            guest.mapper.make_page_table(guest.base + written // 4096)
        assert pair.read(0) == b"r" * 8192
        assert [writes_to(pair.batch.iov[2 * k]) for k in range(2)] == [False, True]
        pair.give()
        guest.mapper.make_page_table(guest.base + written // 4096)


def test_a_frame_that_is_read_and_written_can_be_written() -> None:
    """As a disk's header and status often lie in one page."""
    guest = ForeignGuest()
    with Pair(guest=guest) as pair:
        place = guest.ram.place(4096, 4096)
        address = guest.share(place, 4096, True)
        pair.driver.write_descriptor(0, address, 16, virtio.DESC_F_NEXT, 1)
        pair.driver.write_descriptor(1, address + 16, 1, virtio.DESC_F_WRITE)
        pair.driver.put_avail(0)
        pair.driver.kick()
        assert pair.take() == 1
        assert pair.write(0, b"\1")
        pair.give()
        assert guest.ram.read(place + 16, 1) == b"\1"


def test_a_page_table_can_be_read_but_not_written() -> None:
    guest = ForeignGuest()
    with Pair(guest=guest) as pair:
        place = guest.ram.place(4096, 4096)
        guest.ram.write(place, b"t" * 4096)
        guest.mapper.make_page_table(guest.base + place // 4096)
        address = guest.share(place, 4096, False)
        pair.driver.write_descriptor(0, address, 4096)
        pair.driver.write_descriptor(1, address, 4096, virtio.DESC_F_WRITE)
        for head in (0, 1):
            pair.driver.put_avail(head)
        pair.driver.kick()
        assert pair.take() == 2
        assert list(pair.batch.fault)[:2] == [0, faults.MEMORY]
        assert pair.read(0) == b"t" * 4096
        local = LocalMemory(4096)
        assert pair.memory.fetch(address, 4096, local.address)
        pair.give()


def test_a_buffer_over_buckets_becomes_several_iovecs() -> None:
    guest = ForeignGuest(256)
    with Pair(guest=guest, memory=ForeignMemory(guest.mapper, guest.domid, CACHE, bucket_pages=4)) as pair:
        place = guest.ram.place(20 * 4096, 4096)
        guest.ram.write(place, bytes(range(256)) * 320)
        pair.driver.write_descriptor(0, guest.share(place, 1, False) + 5, 19 * 4096)
        pair.driver.put_avail(0)
        pair.driver.kick()
        pair.take()
        assert 5 <= pair.batch.iov_read[0] <= 6
        assert pair.read(0) == (bytes(range(256)) * 320)[5 : 5 + 19 * 4096]


def test_the_cache_is_bounded_and_the_oldest_goes_first() -> None:
    guest = ForeignGuest(256)
    memory = ForeignMemory(guest.mapper, guest.domid, 3 * 4 * 4096, bucket_pages=4)
    with guest:
        local = LocalMemory(4096)
        for bucket in (0, 1, 2, 0, 3):
            assert memory.fetch((guest.base + 4 * bucket) << 12, 16, local.address)
        calls = guest.mapper.calls
        assert len(guest.mapper.mapped) == 3
        for bucket in (0, 2, 3):
            assert memory.fetch((guest.base + 4 * bucket) << 12, 16, local.address)
        assert guest.mapper.calls == calls
        assert memory.fetch((guest.base + 4) << 12, 16, local.address)
        assert guest.mapper.calls == calls + 1
        memory.close()
        assert not guest.mapper.mapped
        assert memory.counters.frames_mapped == memory.counters.frames_unmapped == 20


def test_what_a_batch_uses_is_not_unmapped() -> None:
    guest = ForeignGuest(256)
    memory = ForeignMemory(guest.mapper, guest.domid, 12 * 4096, bucket_pages=1)
    with Pair(guest=guest, memory=memory) as pair:
        for k in range(8):
            pair.driver.add([bytes([k]) * 4096], align=4096)
        pair.driver.kick()
        assert pair.take(5) == 5
        memory.invalidate()
        assert pair.take() == 3
        assert [pair.read(k) for k in range(8)] == [bytes([k]) * 4096 for k in range(8)]
        pair.give()
        memory.invalidate()
        assert len(guest.mapper.mapped) == 3  # the rings
        assert len(pair.driver.used()) == 8


def test_a_chain_for_which_the_cache_has_no_room_is_served_without_it() -> None:
    guest = ForeignGuest(256)
    memory = ForeignMemory(guest.mapper, guest.domid, 3 * 4096, bucket_pages=1)
    with Pair(guest=guest, memory=memory) as pair:
        rings = dict(guest.mapper.mapped)
        for k in range(4):
            pair.driver.add([bytes([k]) * 8192], align=4096)
        pair.driver.kick()
        assert pair.take() == 4
        assert [pair.read(k) for k in range(4)] == [bytes([k]) * 8192 for k in range(4)]
        pair.give()
        assert len(guest.mapper.mapped) - len(rings) <= 3


def test_what_chains_map_at_a_time_is_bounded() -> None:
    guest = ForeignGuest(256)
    memory = ForeignMemory(guest.mapper, guest.domid, chain_pages=9)
    with Pair(guest=guest, memory=memory) as pair:
        for k in range(4):
            pair.driver.add([bytes([k]) * 8192], align=4096)
        pair.driver.kick()
        assert pair.take() == 3  # two pages each; a chain that comes is taken for four
        pair.queue.give_some(pair.batch, 1)
        assert pair.take() == 1
        assert pair.read(2) == b"\3" * 8192


def test_what_the_cache_did_is_counted() -> None:
    guest = ForeignGuest(256)
    memory = ForeignMemory(guest.mapper, guest.domid, 2 * 4 * 4096, bucket_pages=4)
    with guest:
        local = LocalMemory(4096)
        for page in (0, 1, 5, 0, 9, 0):  # 9 takes the place of 5
            assert memory.fetch((guest.base + page) << 12, 16, local.address)
        memory.invalidate()
        assert memory.fetch(guest.base << 12, 16, local.address)
        counted = memory.counters.as_dict()
        assert (counted["cache_hits"], counted["cache_misses"]) == (3, 4)
        assert (counted["cache_evictions"], counted["invalidations"]) == (1, 1)
        assert counted["mapped_bytes"] == 4 * 4096
        memory.close()
        assert memory.counters.as_dict()["mapped_bytes"] == 0


@pytest.mark.parametrize("cache", [CACHE, 0], ids=["cached", "uncached"])
def test_a_chain_larger_than_the_cache_is_a_fault_of_its_own(cache: int) -> None:
    guest = ForeignGuest(256)
    memory = ForeignMemory(guest.mapper, guest.domid, cache, bucket_pages=2, chain_pages=16)
    with Pair(guest=guest, memory=memory) as pair:
        pair.driver.write_descriptor(9, guest.base << 12, 0xFFFFFFFF)
        pair.driver.put_avail(9)
        pair.driver.add([b"fine"])
        pair.driver.kick()
        assert pair.take() == 2
        assert list(pair.batch.fault)[:2] == [faults.SIZE, 0]
        assert pair.read(1) == b"fine"


@pytest.mark.parametrize("cache", [CACHE, 0], ids=["cached", "uncached"])
def test_a_frame_that_is_not_the_guests_fails_its_chain_only(cache: int) -> None:
    guest = ForeignGuest(256)
    with Pair(guest=guest, memory=guest.memory(cache)) as pair:
        hole = guest.ram.place(3 * 4096, 4096)
        guest.mapper.holes.add(guest.base + hole // 4096 + 1)
        pair.driver.write_descriptor(9, guest.share(hole, 1, False), 3 * 4096, virtio.DESC_F_NEXT, 10)
        pair.driver.write_descriptor(10, guest.share(hole, 1, True) + 77, 1, virtio.DESC_F_WRITE)
        pair.driver.put_avail(9)
        pair.driver.add([b"fine"])
        pair.driver.kick()
        assert pair.take() == 2
        assert list(pair.batch.fault)[:2] == [faults.MEMORY, 0]
        assert not pair.batch.gather(0, 0, LocalMemory(4 * 4096).address, 3 * 4096)
        assert pair.batch.gather(0, 0, LocalMemory(4096).address, 4096)
        assert pair.read(1) == b"fine"
        assert pair.write(0, b"\1")  # the status can still be told
        pair.queue.give_some(pair.batch, 2)
        assert guest.ram.read(hole + 77, 1) == b"\1"


def test_a_hole_is_tried_again_when_it_is_asked_for() -> None:
    guest = ForeignGuest(256)
    memory = guest.memory(CACHE)
    with guest:
        guest.mapper.holes.add(guest.base + 2)
        local = LocalMemory(3 * 4096)
        assert not memory.fetch((guest.base + 2) << 12, 16, local.address)
        mapped = len(guest.mapper.mapped)
        for _ in range(5):
            assert not memory.fetch((guest.base + 2) << 12, 16, local.address)
        assert len(guest.mapper.mapped) == mapped
        guest.mapper.holes.clear()
        guest.ram.write(4096, b"a" * 4096 + b"b" * 4096 + b"c" * 4096)
        assert memory.fetch((guest.base + 1) << 12, 3 * 4096, local.address)
        assert local.read(0, 3 * 4096) == b"a" * 4096 + b"b" * 4096 + b"c" * 4096
        memory.close()
        assert not guest.mapper.mapped


@pytest.mark.parametrize("cache", [CACHE, 0], ids=["cached", "uncached"])
def test_frames_of_nobody_are_faults_wherever_they_are(cache: int) -> None:
    guest = ForeignGuest(64)
    with Pair(guest=guest, memory=guest.memory(cache)) as pair:
        for k, address in enumerate([0, (guest.base << 12) - 8, (1 << 64) - 4096]):
            pair.driver.write_descriptor(k, address, 16)
            pair.driver.put_avail(k)
        pair.driver.kick()
        assert pair.take() == 3
        assert list(pair.batch.fault)[:3] == [faults.MEMORY] * 3
        pair.queue.give(pair.batch)


def test_rings_need_every_page() -> None:
    guest = ForeignGuest(64)
    with guest:
        memory = guest.memory()
        guest.mapper.holes.add(guest.base + 1)
        with pytest.raises(MemoryViolation, match="frame 0x40001"):
            memory.map(guest.base << 12, 3 * 4096)
        assert not guest.mapper.mapped
        with pytest.raises(MemoryViolation):
            memory.map(guest.base << 12, 0)


@pytest.mark.parametrize("cache", [CACHE, 0], ids=["cached", "uncached"])
def test_closing_unmaps_also_what_was_never_given_back(cache: int) -> None:
    guest = ForeignGuest()
    with Pair(guest=guest, memory=guest.memory(cache)) as pair:
        pair.driver.add([b"x"])
        pair.driver.kick()
        pair.take()
        pair.queue.close()
        pair.memory.close()
        assert not guest.mapper.mapped
