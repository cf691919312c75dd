"""What a guest is made of, from small trees that look like Debian's."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from xenvirtio.errors import LabError
from xenvirtio.lab.guest import artifacts, kernel, tools

RELEASE = "6.12.1+deb13-amd64"
ELF = b"\x7fELF" + bytes(range(256)) * 40


def bzimage(payload: bytes) -> bytes:
    """A bzImage with one setup sector and the payload 16 bytes into the second part."""
    image = bytearray(1024 + 16)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + payload + b"rest of the image"


def module(depends: str) -> bytes:
    return b"\x7fELF module\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    folder = made / "usr/lib/modules" / RELEASE
    entries = {
        "kernel/virtio_blk.ko.xz": ("virtio_ring,virtio", "kernel/virtio_ring.ko.xz kernel/virtio.ko.xz"),
        "kernel/virtio_net.ko.xz": ("net_failover", "kernel/net_failover.ko.xz kernel/failover.ko.xz"),
        "kernel/net_failover.ko.xz": ("failover", "kernel/failover.ko.xz"),
        "kernel/failover.ko.xz": ("", ""),
        "kernel/virtio_ring.ko.xz": ("virtio", "kernel/virtio.ko.xz"),
        "kernel/virtio.ko.xz": ("", ""),
        "kernel/unused.ko.xz": ("", ""),
    }
    (folder / "kernel").mkdir(parents=True)
    for name, (depends, _) in entries.items():
        (folder / name).write_bytes(lzma.compress(module(depends)))
    (folder / "modules.dep").write_text("".join(f"{name}: {needs}\n" for name, (_, needs) in entries.items()))
    (made / "usr/bin").mkdir()
    (made / "usr/bin/busybox").write_bytes(b"busybox")
    (made / "boot").mkdir()
    (made / "boot" / f"vmlinuz-{RELEASE}").write_bytes(bzimage(lzma.compress(ELF)))
    return made


def members(archive: bytes) -> dict[str, bytes]:
    """The regular files of a newc archive, read by this test's own reading of the format."""
    found: dict[str, bytes] = {}
    offset = 0
    while True:
        assert archive[offset : offset + 6] == b"070701"
        fields = [int(archive[offset + 6 + 8 * n : offset + 14 + 8 * n], 16) for n in range(13)]
        name = archive[offset + 110 : offset + 110 + fields[11] - 1].decode()
        if name == "TRAILER!!!":
            return found
        start = (offset + 110 + fields[11] + 3) & ~3
        if fields[1] & 0o170000 == 0o100000:
            found[name] = archive[start : start + fields[6]]
        offset = (start + fields[6] + 3) & ~3


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, bytes])
def test_the_kernel_comes_out_of_its_bzimage(pack: object) -> None:
    assert callable(pack)
    assert kernel.vmlinux(bzimage(pack(ELF))) == ELF


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_a_zstd_kernel_ends_with_its_size_which_is_not_zstds() -> None:
    packed = subprocess.run(["zstd", "-cq"], input=ELF, capture_output=True, check=True).stdout
    assert kernel.vmlinux(bzimage(packed + struct.pack("<I", len(ELF)))) == ELF


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "no bzImage"),
        (bytes(4096), "no bzImage"),
        (bzimage(b"????" + ELF), "unknown here"),
        (bzimage(gzip.compress(b"text")), "no ELF"),
    ],
)
def test_what_is_no_kernel_is_refused_with_the_reason(image: bytes, words: str) -> None:
    with pytest.raises(LabError, match=words):
        kernel.vmlinux(image)


def test_the_initramfs_holds_what_is_needed_and_nothing_else(tree: Path, tmp_path: Path) -> None:
    own = tmp_path / "virtio_xenbus.ko"
    own.write_bytes(module("virtio,virtio_ring"))
    files = members(artifacts.initramfs(tree, RELEASE, [own]))
    folder = f"lib/modules/{RELEASE}"
    names = {name.rpartition("/")[2] for name in files if name.endswith(".ko")}
    assert names == {
        *("virtio.ko", "virtio_ring.ko", "virtio_blk.ko", "virtio_net.ko", "failover.ko", "net_failover.ko"),
        "virtio_xenbus.ko",
    }
    assert files[f"{folder}/virtio_blk.ko"] == module("virtio_ring,virtio")
    assert files["bin/busybox"] == b"busybox"
    assert files["init"].startswith(b"#!/bin/busybox sh\n")
    lines = dict(line.split(":") for line in files[f"{folder}/modules.dep"].decode().splitlines())
    assert lines["virtio_net.ko"].split() == ["net_failover.ko", "failover.ko"]
    assert sorted(lines["virtio_xenbus.ko"].split()) == ["virtio.ko", "virtio_ring.ko"]
    assert lines["virtio.ko"] == ""


def test_aliases_are_only_for_modules_that_are_there(tree: Path) -> None:
    files = members(artifacts.initramfs(tree, RELEASE, []))
    assert files[f"lib/modules/{RELEASE}/modules.alias"] == b""


@pytest.mark.skipif(not Path("/usr/lib64", tools.LOADER).exists(), reason="no usr-merged x86-64 host")
def test_the_libraries_of_a_program_are_found_by_the_trees_own_loader() -> None:
    found = tools.needed(Path("/"), Path("/bin/sh").resolve())
    assert "libc.so.6" in found
    assert all(path.is_file() for path in found.values())


@pytest.mark.parametrize("script", ["init", "agent", "poweroff", "mount-tools"])
def test_the_guests_scripts_are_shell(script: str) -> None:
    text = artifacts._own(script)
    assert subprocess.run(["sh", "-n"], input=text, capture_output=True).stderr == b""
