"""Loads, stores and fences on local addresses: the interpreted twin of raw.pxd.

Addresses are integers; nothing is checked, as in C: whoever calls has translated them. Values are
little-endian, as the machines that Xen runs on are. Each load is one access: what a guest writes is read
exactly once, into local storage (XSA-155).
"""

from __future__ import annotations

import ctypes
from threading import Lock


def load8(address: int) -> int:
    return ctypes.c_uint8.from_address(address).value


def load16(address: int) -> int:
    return ctypes.c_uint16.from_address(address).value


def load32(address: int) -> int:
    return ctypes.c_uint32.from_address(address).value


def load64(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def store8(address: int, value: int) -> None:
    ctypes.c_uint8.from_address(address).value = value


def store16(address: int, value: int) -> None:
    ctypes.c_uint16.from_address(address).value = value


def store32(address: int, value: int) -> None:
    ctypes.c_uint32.from_address(address).value = value


def store64(address: int, value: int) -> None:
    ctypes.c_uint64.from_address(address).value = value


def copy(destination: int, source: int, length: int) -> None:
    """Copies `length` bytes; the two may overlap."""
    ctypes.memmove(destination, source, length)


def fill(address: int, byte: int, length: int) -> None:
    ctypes.memset(address, byte, length)


def fence_acquire() -> None:
    """Later accesses stay later."""
    fence_full()


def fence_release() -> None:
    """Earlier accesses stay earlier."""
    fence_full()


def fence_full() -> None:
    """Nothing moves across, not even a load before an earlier store: taking a lock is an atomic operation."""
    Lock().acquire()
