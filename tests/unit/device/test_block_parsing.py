"""Parsing alone, against a second opinion: which requests reach the disk, and where (virtio 1.3 §5.2.6)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xenvirtio.device.block.requests import Requests
from xenvirtio.device.block.space import DATA_MAX
from xenvirtio.errors import GuestViolation
from xenvirtio.queue.batch import Batch
from xenvirtio.queue.split import SplitQueue
from xenvirtio.spec import block as spec
from xenvirtio.testing.driver import Driver
from xenvirtio.testing.guest import RegionGuest

SECTORS = 1000
PENDING = 0xFF
FEATURES = spec.F_DISCARD | spec.F_WRITE_ZEROES
KINDS = [spec.T_IN, spec.T_OUT, spec.T_FLUSH, spec.T_GET_ID, spec.T_DISCARD, spec.T_WRITE_ZEROES]

sectors = st.one_of(
    st.integers(0, SECTORS + 2), st.integers(0, (1 << 64) - 1), st.sampled_from([1 << 54, 1 << 55, 1 << 63])
)
lengths = st.lists(st.one_of(st.sampled_from([512, 1024, 4096]), st.integers(1, 2000)), max_size=5)


def expected(kind: int, sector: int, read: int, write: int, features: int) -> int:
    """The status before any I/O, in the words of the specification; sizes without header and status."""
    read_only = bool(features & spec.F_RO)
    if kind in (spec.T_IN, spec.T_OUT):
        length, other = (write, read) if kind == spec.T_IN else (read, write)
        whole = length % 512 == 0 and length <= DATA_MAX and sector + length // 512 <= SECTORS
        return PENDING if whole and not other and not (read_only and kind == spec.T_OUT) else spec.S_IOERR
    if kind in (spec.T_DISCARD, spec.T_WRITE_ZEROES):
        if not features & (spec.F_DISCARD if kind == spec.T_DISCARD else spec.F_WRITE_ZEROES):
            return spec.S_UNSUPP
        good = read and read % 16 == 0 and read <= 16 * 16 and not read_only
        return PENDING if good else spec.S_IOERR
    return PENDING if kind in (spec.T_FLUSH, spec.T_GET_ID) else spec.S_UNSUPP


@given(
    kind=st.one_of(st.sampled_from(KINDS), st.integers(0, (1 << 32) - 1)),
    sector=sectors,
    read=lengths,
    write=lengths,
    features=st.sampled_from([0, FEATURES, spec.F_RO, spec.F_RO | FEATURES]),
    cut=st.integers(1, 15),
)
@example(kind=spec.T_IN, sector=SECTORS - 1, read=[], write=[512], features=0, cut=8)
@example(kind=spec.T_IN, sector=(1 << 64) - 1, read=[], write=[512], features=0, cut=8)
@example(kind=spec.T_OUT, sector=SECTORS, read=[], write=[], features=0, cut=8)
def test_only_what_the_specification_allows_reaches_the_disk(
    kind: int, sector: int, read: list[int], write: list[int], features: int, cut: int
) -> None:
    header = struct.pack("<IIQ", kind, 0, sector)
    with RegionGuest(64) as guest:
        driver = Driver(guest, 16)
        driver.add([header[:cut], header[cut:], *(bytes(n) for n in read)], [*write, 1])
        driver.kick()
        with SplitQueue(guest.memory(), driver.config, driver.features) as queue:
            batch = Batch(16)
            requests = Requests(batch.chains, batch.iovecs, SECTORS, features)
            assert queue.take(batch) == 1
            requests.parse(batch)
        status = expected(kind, sector, sum(read), sum(write), features)
        assert requests.status[0] == status
        if status == PENDING and kind in (spec.T_IN, spec.T_OUT):
            length = sum(write) if kind == spec.T_IN else sum(read)
            first, count = requests.iov_first[0], requests.iov_count[0]
            sizes = [requests.iov[2 * k + 1] for k in range(first, first + count)]
            assert requests.offset[0] == sector * 512
            assert requests.length[0] == length == sum(sizes)
            assert all(sizes)


@given(
    rows=st.lists(
        st.tuples(sectors, st.integers(0, (1 << 32) - 1), st.integers(0, 5)), min_size=1, max_size=16
    ),
    discard=st.booleans(),
)
@example(rows=[(0, SECTORS, 0), (SECTORS, 0, 0)], discard=True)
def test_ranges_lie_on_the_disk_and_have_known_flags(rows: list[tuple[int, int, int]], discard: bool) -> None:
    kind = spec.T_DISCARD if discard else spec.T_WRITE_ZEROES
    with RegionGuest(64) as guest:
        driver = Driver(guest, 16)
        driver.add(
            [struct.pack("<IIQ", kind, 0, 0), b"".join(struct.pack("<QII", *row) for row in rows)], [1]
        )
        driver.kick()
        with SplitQueue(guest.memory(), driver.config, driver.features) as queue:
            batch = Batch(16)
            requests = Requests(batch.chains, batch.iovecs, SECTORS, FEATURES)
            queue.take(batch)
            requests.parse(batch)
            count = requests.ranges(batch, 0)
    allowed = 0 if discard else spec.RANGE_FLAG_UNMAP
    good = all(sector + number <= SECTORS and not flags & ~allowed for sector, number, flags in rows)
    assert count == len(rows) if good else count in (-spec.S_IOERR, -spec.S_UNSUPP)
    if good:
        found = [(requests.range_offset[k], requests.range_length[k]) for k in range(count)]
        assert found == [(sector * 512, number * 512) for sector, number, _ in rows]


@given(length=st.integers(0, 15), room=st.integers(0, 3))
def test_a_short_header_is_a_violation(length: int, room: int) -> None:
    if not length and not room:
        return
    with RegionGuest(16) as guest:
        driver = Driver(guest, 16)
        driver.add([bytes(length)] if length else [], [room] if room else [])
        driver.kick()
        with SplitQueue(guest.memory(), driver.config, driver.features) as queue:
            batch = Batch(16)
            queue.take(batch)
            with pytest.raises(GuestViolation):
                Requests(batch.chains, batch.iovecs, SECTORS, 0).parse(batch)
