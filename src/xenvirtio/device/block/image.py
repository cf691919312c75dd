"""The backing of a disk: a raw file or a block device, opened, locked and measured."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.device import syscalls
from xenvirtio.device.block.lock import lock_image, open_image
from xenvirtio.errors import UsageError
from xenvirtio.spec.block import SECTOR_SIZE

if TYPE_CHECKING:
    from xenvirtio.device.block.config import BlockConfig

# --- linux/fs.h: sizes in bytes ---
_BLKIOMIN = 0x1278
_BLKIOOPT = 0x1279
_BLKPBSZGET = 0x127B
_BLKSSZGET = 0x1268
_BLKALIGNOFF = 0x127A


@dataclass(frozen=True)
class Geometry:
    """Sizes that the backing prefers, in bytes."""

    logical_block: int = SECTOR_SIZE
    physical_block: int = SECTOR_SIZE
    alignment_offset: int = 0
    io_min: int = 0
    io_opt: int = 0
    discard_granularity: int = SECTOR_SIZE


class Image:
    """An open image. `size` is the disk's, in bytes; `fd` is what the engine reads and writes."""

    def __init__(self, config: BlockConfig) -> None:
        """Open, lock and measure. Raises UsageError."""
        self.path = config.path
        self.read_only = config.read_only
        with contextlib.ExitStack() as stack:
            self.fd = _open(config)
            stack.callback(os.close, self.fd)
            mode = os.fstat(self.fd).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
                raise UsageError(
                    f"{self.path}: neither a file nor a block device",
                    "give a raw image file or a block device as the disk's path",
                )
            self.is_device = stat.S_ISBLK(mode)
            end = self._end()
            self.size = end if config.size is None else min(config.size, end)
            lock_image(self.fd, self.path, self.read_only)
            self.geometry = self._measure_device() if self.is_device else self._measure_file()
            self.can_discard = config.discard and not self.read_only and self._probe_discard()
            self._stack = stack.pop_all()

    def _end(self) -> int:
        """Where the image ends now, in bytes. Raises UsageError if no disk can end there."""
        end = os.lseek(self.fd, 0, os.SEEK_END)
        if end == 0 or end % SECTOR_SIZE:
            raise UsageError(
                f"{self.path}: its size is {end} bytes, not a multiple of {SECTOR_SIZE} above zero",
                f"truncate -s {max(1, -(-end // SECTOR_SIZE)) * SECTOR_SIZE} {self.path}",
            )
        return end

    def resize(self, size: int | None) -> bool:
        """Make the disk end at `size` bytes, or where the image ends; whether that changed anything.

        Raises UsageError if the image ends before."""
        end = self._end()
        size = end if size is None else size
        if size > end:
            raise UsageError(
                f"{self.path}: it ends at {end} bytes, the disk was to end at {size}",
                f"truncate -s {size} {self.path}",
            )
        changed, self.size = self.size != size, size
        return changed

    def _measure_file(self) -> Geometry:
        block = max(SECTOR_SIZE, os.fstat(self.fd).st_blksize)
        return Geometry(physical_block=block, io_min=block, discard_granularity=block)

    def _measure_device(self) -> Geometry:
        def size(request: int) -> int:
            return int(struct.unpack("@i", ioctl(self.fd, request, bytes(4)))[0])

        return Geometry(
            size(_BLKSSZGET),
            size(_BLKPBSZGET),
            max(0, size(_BLKALIGNOFF)),
            size(_BLKIOMIN),
            size(_BLKIOOPT),
            max(SECTOR_SIZE, self._queue_limit("discard_granularity")),
        )

    def _queue_limit(self, name: str) -> int:
        """A limit of a block device in sysfs; a partition's is in the whole device's folder."""
        number = os.fstat(self.fd).st_rdev
        folder = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
        for place in (folder, folder.parent):
            with contextlib.suppress(OSError, ValueError):
                return int((place / "queue" / name).read_text())
        return 0

    def _probe_discard(self) -> bool:
        """Ask the backing without touching a byte: a device's limits, or a hole behind a file's end."""
        if self.is_device:
            return self._queue_limit("discard_max_bytes") > 0
        length = self.geometry.discard_granularity
        flags = syscalls.PUNCH_HOLE | syscalls.KEEP_SIZE
        return syscalls.fallocate(self.fd, flags, self._end(), length) == 0

    def close(self) -> None:
        """Close the image, which unlocks it. May be called twice."""
        self._stack.close()


def _open(config: BlockConfig) -> int:
    try:
        fd = open_image(config.path, config.read_only)
    except OSError as error:
        hints = {
            errno.ENOENT: f"make it: truncate -s 8G {config.path}",
            errno.EISDIR: "give the image itself as the disk's path, not its folder",
            errno.EACCES: "check the permissions of the image and of the folders above it",
            errno.EROFS: "give the disk the mode r",
            errno.ETXTBSY: "stop the program that is running from it",
        }
        hint = hints.get(error.errno or 0)
        raise UsageError(f"{config.path}: cannot be opened: {error.strerror}", hint) from error
    os.set_blocking(fd, True)
    return fd
