"""The initramfs: a well-formed archive, modules in an order that loads."""

from __future__ import annotations

import lzma
import stat
from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import LabError
from xenvirtio.lab import initramfs
from xenvirtio.lab.initramfs import Newc, module_order

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "6.12.1-amd64"
DEPENDENCIES = """\
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/lib/crc16.ko.xz:
kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/lib/virtio.ko.xz
kernel/drivers/virtio/virtio_ring.ko.xz: kernel/lib/virtio.ko.xz
kernel/lib/virtio.ko.xz:
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    modules = tmp_path / "usr/lib/modules" / VERSION
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(DEPENDENCIES)
    for line in DEPENDENCIES.splitlines():
        path = modules / line.partition(":")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(path.name.encode()))
    (tmp_path / "usr/bin").mkdir()
    (tmp_path / "usr/bin/busybox").write_bytes(b"busybox!")
    return tmp_path


def entries(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Name → (mode, content), read as the kernel does."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, length = fields[6], fields[11]
        name = archive[at + 110 : at + 110 + length - 1].decode()
        at += (110 + length + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], archive[at : at + size])
        at += (size + 3) & ~3


def test_entries_of_every_length_are_aligned() -> None:
    archive = Newc()
    wanted = {}
    for length in range(9):
        archive.file("f" * (length + 1), b"x" * length)
        wanted["f" * (length + 1)] = (stat.S_IFREG | 0o644, b"x" * length)
    assert entries(archive.finish()) == wanted


def test_each_module_comes_after_what_it_needs(tree: Path) -> None:
    order = [path.name for path in module_order(tree / "usr/lib/modules" / VERSION, ("virtio-blk", "ext4"))]
    assert order == [
        "virtio.ko.xz",
        "virtio_ring.ko.xz",
        "virtio_blk.ko.xz",
        "jbd2.ko.xz",
        "crc16.ko.xz",
        "ext4.ko.xz",
    ]


def test_a_module_built_into_the_kernel_needs_no_file(tree: Path) -> None:
    assert module_order(tree / "usr/lib/modules" / VERSION, ("virtio_pci",)) == []


def test_the_archive_holds_what_the_script_uses(tree: Path) -> None:
    found = entries(initramfs.build(tree, VERSION))
    assert found["bin/busybox"] == (stat.S_IFREG | 0o755, b"busybox!")
    assert found["init"][0] == stat.S_IFREG | 0o755
    order = found["modules/order"][1].decode().split()
    assert [found[f"modules/{name}"][1].decode().partition(".")[0] for name in order] == [
        "virtio",
        "virtio_ring",
        "virtio_blk",
        "jbd2",
        "crc16",
        "ext4",
    ]


def test_an_image_without_busybox_is_an_error(tree: Path) -> None:
    (tree / "usr/bin/busybox").unlink()
    with pytest.raises(LabError, match="busybox"):
        initramfs.build(tree, VERSION)
