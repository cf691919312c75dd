"""Loads and stores on local addresses, as compiled and interpreted code both have them."""

from __future__ import annotations

from xenvirtio.memory import raw
from xenvirtio.memory.local import PAGE_SIZE, LocalMemory, view


def test_values_are_little_endian_and_of_their_own_width() -> None:
    memory = LocalMemory(64)
    at = memory.address
    raw.fill(at, 0xEE, 64)
    for offset, store, load, value, size in (
        (0, raw.store8, raw.load8, 0x81, 1),
        (8, raw.store16, raw.load16, 0x8182, 2),
        (16, raw.store32, raw.load32, 0x81828384, 4),
        (24, raw.store64, raw.load64, 0x8182838485868788, 8),
    ):
        store(at + offset, value)
        assert load(at + offset) == value
        assert memory.read(offset, 8) == value.to_bytes(size, "little") + b"\xee" * (8 - size)


def test_copy_may_overlap() -> None:
    memory = LocalMemory(16)
    memory.write(0, b"abcdef")
    raw.copy(memory.address + 2, memory.address, 6)
    assert memory.read(0, 8) == b"ababcdef"


def test_fences_return() -> None:
    raw.fence_acquire()
    raw.fence_release()
    raw.fence_full()


def test_local_memory_is_whole_zeroed_pages() -> None:
    memory = LocalMemory(PAGE_SIZE + 1)
    assert memory.length == 2 * PAGE_SIZE
    assert memory.address % PAGE_SIZE == 0
    assert memory.read(0, memory.length) == bytes(2 * PAGE_SIZE)
    assert LocalMemory(0).length == PAGE_SIZE


def test_a_view_is_the_memory_itself() -> None:
    memory = LocalMemory(16)
    view(memory.address, 4)[:] = b"seen"
    assert memory.read(0, 4) == b"seen"
