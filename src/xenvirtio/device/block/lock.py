"""Who may use an image: locks that other xenvirtio workers and QEMU see.

QEMU locks single bytes of an image through its open file description (OFD locks, fcntl(2)), see
block/file-posix.c, and so do we. Byte 100+n, locked for reading: "I use permission n". Byte 200+n: "I let
nobody else use permission n". Whoever opens an image takes its bytes first and then tests whether somebody
holds the counterpart of one of them. Permissions are those of include/block/block-common.h: 0 read, 1
write, 2 write unchanged data, 3 resize.
"""

from __future__ import annotations

import errno
import fcntl
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


def _in_use(path: str, read_only: bool) -> UsageError:
    wanted = "reading" if read_only else "writing"
    return UsageError(
        f"{path}: in use by another guest or program, so it cannot be opened for {wanted}",
        f"stop what uses it; `fuser -v {path}` or `lslocks` names the process",
    )
