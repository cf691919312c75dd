"""A disk's backing: what is opened, what is refused and with which words, and who else may use it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from xenvirtio.device.block.config import BlockConfig
from xenvirtio.device.block.image import Image
from xenvirtio.device.factory import make_device
from xenvirtio.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    image = tmp_path / "disk.img"
    image.write_bytes(b"QFI\xfb" + bytes(1020))
    return image


def test_a_raw_image_is_never_probed_for_a_format(path: Path) -> None:
    """It begins like a qcow2 image, which a guest could have written there."""
    with closing(Image(BlockConfig(str(path)))) as image:
        assert image.size == 1024


def test_probing_for_discard_changes_nothing(path: Path) -> None:
    path.write_bytes(os.urandom(1 << 20))
    before, blocks = path.read_bytes(), path.stat().st_blocks
    with closing(Image(BlockConfig(str(path)))) as image:
        assert image.can_discard
    assert path.read_bytes() == before
    assert path.stat().st_size == 1 << 20
    assert path.stat().st_blocks == blocks


@pytest.mark.parametrize("size", [0, 1, 511, 513, 1023])
def test_a_size_that_is_not_whole_sectors_is_refused(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))
    with pytest.raises(UsageError, match=f"its size is {size} bytes") as error:
        Image(BlockConfig(str(path)))
    assert error.value.hint is not None
    assert error.value.hint.startswith("truncate -s ")


def test_a_missing_image_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file") as error:
        Image(BlockConfig(str(tmp_path / "none.img")))
    assert error.value.hint == f"make it: truncate -s 8G {tmp_path}/none.img"


def test_a_folder_a_fifo_and_a_device_without_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory"):
        Image(BlockConfig(str(tmp_path)))
    os.mkfifo(tmp_path / "fifo")
    for path in (str(tmp_path / "fifo"), "/dev/null"):
        with pytest.raises(UsageError, match="neither a file nor a block device"):
            Image(BlockConfig(path))


def test_an_image_has_one_writer_or_any_number_of_readers(path: Path) -> None:
    with closing(Image(BlockConfig(str(path)))):
        for read_only in (False, True):
            with pytest.raises(UsageError, match="in use by another guest or program"):
                Image(BlockConfig(str(path), read_only))
    with (
        closing(Image(BlockConfig(str(path), True))),
        closing(Image(BlockConfig(str(path), True))),
        pytest.raises(UsageError, match="cannot be opened for writing"),
    ):
        Image(BlockConfig(str(path)))
    Image(BlockConfig(str(path))).close()


def test_a_failed_open_leaves_no_lock_behind(path: Path) -> None:
    with closing(Image(BlockConfig(str(path), True))), pytest.raises(UsageError):
        Image(BlockConfig(str(path)))
    Image(BlockConfig(str(path))).close()


@pytest.mark.skipif(shutil.which("qemu-io") is None, reason="qemu-io (package qemu-utils) is not installed")
def test_qemu_sees_our_lock_and_we_see_its(path: Path) -> None:
    def qemu(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["qemu-io", "-f", "raw", *options, "-c", "read 0 512", str(path)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    with closing(Image(BlockConfig(str(path)))):
        assert 'Failed to get "write" lock' in qemu().stderr
    with closing(Image(BlockConfig(str(path), True))):
        assert qemu("-r").returncode == 0
        assert 'Failed to get "write" lock' in qemu().stderr
    command = ["qemu-io", "-f", "raw", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"length\n")
        process.stdin.flush()
        process.stdout.readline()  # it has the image open now
        with pytest.raises(UsageError, match="in use"):
            Image(BlockConfig(str(path)))
        process.stdin.write(b"quit\n")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "no image is given"),
        ({"path": ""}, "no image is given"),
        ({"path": "/x", "mode": "rw"}, "mode is 'rw'"),
        ({"path": "/x", "discard": "yes"}, "discard is 'yes'"),
        ({"path": "/x", "serial": "x" * 21}, "serial"),
        ({"path": "/x", "serial": "é"}, "serial"),
        ({"path": "/x", "serial": "\n"}, "serial"),
    ],
)
def test_settings_are_checked(settings: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        make_device(2, settings, "vda")
    assert error.value.hint
    assert "vda" in str(error.value)


def test_the_factory_reads_what_the_toolstack_writes(path: Path) -> None:
    settings = {"path": str(path), "mode": "r", "discard": "1", "vdev": "vda", "memory-access": "grant"}
    with closing(make_device(2, settings)) as device:
        assert device.device_id == 2


def test_the_factory_refuses_types_that_it_does_not_know() -> None:
    with pytest.raises(UsageError, match="no virtio device of type 77"):
        make_device(77, {})
