"""The block device on which a guest's boot loader sees the guest's image."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import MissingDependency, XenvirtioError
from xenvirtio.toolstack.boot import disk as boot_disk
from xenvirtio.toolstack.boot.disk import LOOP_CONTROL, read_only_device

if TYPE_CHECKING:
    from pathlib import Path

USER = 0x7000_0001


def test_an_image_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with (
        pytest.raises(XenvirtioError, match=r"cannot open .*/none: No such file"),
        read_only_device(f"{tmp_path}/none", USER, "node", tmp_path),
    ):
        pass


def test_a_machine_without_loop_devices_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot_disk, "LOOP_CONTROL", tmp_path / "no-control")
    image = tmp_path / "image"
    image.write_bytes(bytes(4096))
    with pytest.raises(MissingDependency) as caught, read_only_device(str(image), USER, "node", tmp_path):
        pass
    assert caught.value.hint == "modprobe loop"
    assert not (tmp_path / "node").exists()


def test_the_loop_configuration_is_as_long_as_the_kernels() -> None:
    assert boot_disk.LOOP_CONFIG.size == 304  # include/uapi/linux/loop.h: 8 + 232 + 64
    packed = boot_disk.LOOP_CONFIG.pack(1, 0, 5)
    assert packed[8 + 52] == 5  # struct loop_info64, lo_flags


@pytest.mark.skipif(os.geteuid() != 0 or not LOOP_CONTROL.exists(), reason="needs root and loop devices")
def test_root_sees_the_image_and_cannot_write_it(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x" * 512 + bytes(8192 - 512))
    try:
        with read_only_device(str(image), USER, "node", tmp_path) as node:
            found = node.stat()
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (USER, 0o400)
            assert stat.S_ISBLK(found.st_mode)
            assert node.read_bytes()[:1024] == b"x" * 512 + bytes(512)
            with pytest.raises(OSError, match=r"denied|Read-only|not permitted|Input/output"):
                _write(node)
        assert image.read_bytes()[:512] == b"x" * 512
    except MissingDependency as error:
        pytest.skip(f"no loop devices here: {error.message}")
    except PermissionError:
        pytest.skip("device nodes cannot be opened here")
    assert not (tmp_path / "node").exists()


def _write(node: Path) -> None:
    handle = os.open(node, os.O_WRONLY)
    try:
        os.write(handle, bytes(4096))
        os.fsync(handle)
    finally:
        os.close(handle)
