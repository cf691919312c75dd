"""A guest's image for a program that may do nothing else: a block device of its own, read-only.

The image may be readable by root only, as it should be, while the program which reads it runs as nobody. A
read-only loop device on it (block devices need none) gets a device node that belongs to that user. The loop
device is gone with the last one who has it open, also if this process dies.

Source: Linux, include/uapi/linux/loop.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import MissingDependency, XenvirtioError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: not below /var or /run: device nodes are often disabled there
NODES = Path("/dev")
LOOP_CONTROL = Path("/dev/loop-control")
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_READ_ONLY, LO_FLAGS_AUTOCLEAR = 1, 4
#: struct loop_config: fd, block size, struct loop_info64 (only lo_flags is set), 8 reserved u64
LOOP_CONFIG = struct.Struct("=II 52x I 176x 64x")
#: a free loop device may be taken by somebody else before we have it
TRIES = 10


@contextmanager
def read_only_device(image: str, user: int, name: str, nodes: Path = NODES) -> Iterator[Path]:
    """A block device node `nodes`/`name` with the image's content, which `user` may read; gone afterwards.

    Raises XenvirtioError if the image cannot be opened, MissingDependency without loop devices.
    """
    try:
        handle = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise XenvirtioError(f"cannot open {image}: {error.strerror}") from error
    node = nodes / name
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            loop = _loop_device(handle)
            os.close(handle)
            handle = loop
        _make_node(node, os.fstat(handle).st_rdev, user)
        yield node
    finally:
        node.unlink(missing_ok=True)
        os.close(handle)


def _make_node(node: Path, device: int, user: int) -> None:
    try:
        node.unlink(missing_ok=True)  # of a process that was killed
        os.mknod(node, stat.S_IFBLK | 0o400, device)
        os.chown(node, user, -1)
    except OSError as error:
        raise XenvirtioError(f"cannot make the device node {node}: {error.strerror}") from error


def _loop_device(image: int) -> int:
    """A descriptor of a loop device on the image; it lasts as long as somebody has it open."""
    flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR
    try:
        control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MissingDependency(
            f"no loop devices, which show a guest's image to its boot loader: {error.strerror}",
            hint="modprobe loop",
        ) from error
    try:
        for _ in range(TRIES):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            loop = os.open(f"/dev/loop{number}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(loop, LOOP_CONFIGURE, LOOP_CONFIG.pack(image, 0, flags))
            except OSError as error:
                os.close(loop)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return loop
    except OSError as error:
        raise XenvirtioError(f"cannot make a loop device: {error.strerror}", hint="losetup --list") from error
    finally:
        os.close(control)
    raise XenvirtioError(f"no loop device was free {TRIES} times", hint="losetup --list")
