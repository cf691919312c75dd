"""Who may use an image: locks that other xenvirtio workers and QEMU see.

QEMU locks single bytes of an image through its open file description (OFD locks, fcntl(2)), see
block/file-posix.c, and so do we. Byte 100+n, locked for reading: "I use permission n". Byte 200+n: "I let
nobody else use permission n". Whoever opens an image takes its bytes first and then tests whether somebody
holds the counterpart of one of them. Permissions are those of include/block/block-common.h: 0 read, 1
write, 2 write unchanged data, 3 resize.

The kernel knows of no such locks. What it uses itself (a mounted file system, LVM, md, swap) it has claimed,
which only an exclusive open of the block device meets (open(2), O_EXCL).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from xenvirtio.errors import UsageError

USED = 100
UNSHARED = 200
READ = 0
WRITE = 1
RESIZE = 3

#: struct flock: l_type, l_whence, l_start, l_len, l_pid
_FLOCK = struct.Struct("@hhqqi4x")


def lock_image(fd: int, path: str, read_only: bool) -> None:
    """Lock the open image for one writer, or for any number of readers; lasts until its open file
    description is closed. Raises UsageError if somebody uses the image in a way that excludes this."""
    uses = (READ,) if read_only else (READ, WRITE)
    for byte in (*(USED + n for n in uses), UNSHARED + WRITE, UNSHARED + RESIZE):
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, byte, 1, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise _in_use(path, read_only) from error
            raise UsageError(f"{path}: cannot be locked: {error.strerror}") from error
    for byte in (*(UNSHARED + n for n in uses), USED + WRITE, USED + RESIZE):
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0))
        if _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK:
            raise _in_use(path, read_only)


def open_image(path: str, read_only: bool) -> int:
    """Open an image, a block device for writing exclusively; raises OSError, or UsageError if it is claimed.

    The descriptor is not blocking: a fifo given by mistake must not hold us up.
    """
    flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK
    if not read_only and stat.S_ISBLK(os.stat(path).st_mode):
        flags |= os.O_EXCL
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise UsageError(
            f"{path}: in use on this machine: mounted, a part of a volume, or held by a program",
            f"`lsblk {path}` and `fuser -v {path}` show by what; end that, or give the disk read-only",
        ) from error


def _in_use(path: str, read_only: bool) -> UsageError:
    wanted = "reading" if read_only else "writing"
    return UsageError(
        f"{path}: in use by another guest or program, so it cannot be opened for {wanted}",
        f"stop what uses it; `fuser -v {path}` or `lslocks` names the process",
    )
