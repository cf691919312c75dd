"""Who may open an image: what the kernel itself has claimed is not for guests."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from xenvirtio.device.block.lock import open_image
from xenvirtio.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> str:
    """A block device on which a file system is mounted: it opens, but not exclusively (open(2))."""

    def look(_: str) -> os.stat_result:
        return os.stat_result((stat.S_IFBLK | 0o600, *(0,) * 9))

    def opened(path: str, flags: int) -> int:
        if flags & os.O_EXCL:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
        return os.memfd_create("device", os.MFD_CLOEXEC)

    monkeypatch.setattr("xenvirtio.device.block.lock.os.stat", look)
    monkeypatch.setattr("xenvirtio.device.block.lock.os.open", opened)
    return "/dev/claimed"


def test_a_block_device_that_is_mounted_is_not_opened_for_writing(claimed: str) -> None:
    with pytest.raises(UsageError, match="/dev/claimed: in use on this machine: mounted") as caught:
        open_image(claimed, read_only=False)
    assert "lsblk /dev/claimed" in (caught.value.hint or "")


def test_it_is_for_reading(claimed: str) -> None:
    os.close(open_image(claimed, read_only=True))


def test_a_file_is_opened_as_often_as_its_locks_allow(tmp_path: Path) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(b"x" * 512)
    handles = [open_image(str(image), read_only=False) for _ in range(2)]
    for handle in handles:
        assert os.pread(handle, 1, 0) == b"x"
        os.close(handle)
