"""The public fake driver does what a driver must, and notices a device that does not."""

from __future__ import annotations

import pytest

from xenvirtio.errors import XenError
from xenvirtio.memory import raw
from xenvirtio.spec import virtio
from xenvirtio.testing.driver import Driver
from xenvirtio.testing.guest import GrantGuest, RegionGuest
from xenvirtio.testing.pair import Pair


def test_rings_are_aligned_and_apart() -> None:
    with RegionGuest() as guest:
        Driver(guest, 128).config.check()


def test_a_full_queue_says_so_and_loses_nothing() -> None:
    with Pair(size=4) as pair:
        pair.driver.add([b"a", b"b", b"c"])
        with pytest.raises(BufferError):
            pair.driver.add([b"a"], [1])
        pair.driver.add([b"a"] * 3, [1], indirect=True)
        pair.driver.kick()
        assert pair.take() == 2
        pair.give()
        assert len(pair.driver.used()) == 2
        assert len(pair.driver.free) == 4


def test_an_empty_chain_is_refused() -> None:
    with Pair() as pair, pytest.raises(BufferError):
        pair.driver.add()


def test_a_head_that_was_not_given_is_noticed() -> None:
    with Pair() as pair:
        pair.driver.add([b"a"])
        raw.store32(pair.driver._used + 4, 9)
        raw.store16(pair.driver._used + virtio.USED_IDX, 1)
        with pytest.raises(AssertionError, match="head 9"):
            pair.driver.used()


def test_more_written_than_there_is_room_is_noticed() -> None:
    with Pair() as pair:
        head = pair.driver.add([], [4])
        raw.store32(pair.driver._used + 4, head)
        raw.store32(pair.driver._used + 8, 5)
        raw.store16(pair.driver._used + virtio.USED_IDX, 1)
        with pytest.raises(AssertionError, match="more written"):
            pair.driver.used()


def test_memory_is_used_again() -> None:
    with Pair(guest=RegionGuest(8)) as pair:
        for _ in range(100):
            pair.driver.add([bytes(4000)], [100], indirect=True)
            pair.driver.kick()
            pair.take()
            pair.give()
            assert len(pair.driver.used()) == 1


def test_memory_that_is_used_up_says_so() -> None:
    with RegionGuest(2) as guest, pytest.raises(MemoryError, match="2 pages"):
        guest.ram.place(8193)


def test_a_grant_that_is_still_mapped_cannot_end() -> None:
    with GrantGuest(16) as guest:
        address = guest.share(0, 4096, True)
        mapping = guest.memory().map(address, 4096)
        with pytest.raises(AssertionError, match="still mapped"):
            guest.unshare(address, 4096)
        mapping.close()
        guest.unshare(address, 4096)
        assert not guest.table.entries


def test_the_fake_table_refuses_what_xen_refuses() -> None:
    with GrantGuest(16) as guest:
        ref = guest.table.grant([1], writable=False)
        with pytest.raises(XenError):
            guest.table.map([ref], guest.domid, True)
        with pytest.raises(XenError):
            guest.table.map([ref], guest.domid + 1, False)
        with pytest.raises(XenError):
            guest.table.map([ref, ref + 1], guest.domid, False)
        guest.table.unmap(guest.table.map([ref], guest.domid, False), 1)
