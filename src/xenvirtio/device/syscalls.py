"""System calls on local addresses, for the engines: interpreted twin of syscalls.pxd.

Each returns what the system call returned, or -errno. `iov` is the address of `count` struct iovec;
offsets and lengths are bytes.
"""

from __future__ import annotations

import ctypes

KEEP_SIZE = 1  # linux/falloc.h
PUNCH_HOLE = 2
ZERO_RANGE = 0x10

_BLKDISCARD = 0x1277  # linux/fs.h

_LIBC = ctypes.CDLL(None, use_errno=True)
for _name in ("preadv64", "pwritev64", "pwrite64", "readv", "writev"):
    getattr(_LIBC, _name).restype = ctypes.c_ssize_t


def _result(value: int) -> int:
    return value if value >= 0 else -ctypes.get_errno()


def preadv(fd: int, iov: int, count: int, offset: int) -> int:
    """preadv(2)"""
    return _result(_LIBC.preadv64(fd, ctypes.c_void_p(iov), count, ctypes.c_int64(offset)))


def pwritev(fd: int, iov: int, count: int, offset: int) -> int:
    """pwritev(2)"""
    return _result(_LIBC.pwritev64(fd, ctypes.c_void_p(iov), count, ctypes.c_int64(offset)))


def pwrite(fd: int, source: int, length: int, offset: int) -> int:
    """pwrite(2)"""
    return _result(
        _LIBC.pwrite64(fd, ctypes.c_void_p(source), ctypes.c_size_t(length), ctypes.c_int64(offset))
    )


def readv(fd: int, iov: int, count: int) -> int:
    """readv(2)"""
    return _result(_LIBC.readv(fd, ctypes.c_void_p(iov), count))


def writev(fd: int, iov: int, count: int) -> int:
    """writev(2)"""
    return _result(_LIBC.writev(fd, ctypes.c_void_p(iov), count))


def fdatasync(fd: int) -> int:
    """fdatasync(2)"""
    return _result(_LIBC.fdatasync(fd))


def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
    """fallocate(2)"""
    return _result(_LIBC.fallocate64(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def discard(fd: int, offset: int, length: int) -> int:
    """ioctl BLKDISCARD, on a block device"""
    span = (ctypes.c_uint64 * 2)(offset, length)
    return _result(_LIBC.ioctl(fd, ctypes.c_ulong(_BLKDISCARD), ctypes.byref(span)))
