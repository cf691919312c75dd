"""The lab's own initramfs: busybox, the modules that dom0's root disk needs, and a script.

A cpio archive in the kernel's "newc" format (Linux
Documentation/driver-api/early-userspace/buffer-format.rst), written here because the few entries do not
merit another program on the host.
"""

from __future__ import annotations

import lzma
import stat
from importlib import resources
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

#: what the way to the root disk needs; the rest is loaded from there
ROOT_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")


class Newc:
    """A cpio archive in the making; everything belongs to root."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._inode = 0

    def directory(self, name: str) -> None:
        self._entry(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._entry(name, stat.S_IFREG | mode, content)

    def device(self, name: str, mode: int, major: int, minor: int) -> None:
        self._entry(name, mode, b"", (major, minor))

    def finish(self) -> bytes:
        """The archive with its trailer."""
        self._entry("TRAILER!!!", 0, b"")
        return bytes(self._data)

    def _entry(self, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(path), 0)
        self._data += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        self._pad()
        self._data += content
        self._pad()

    def _pad(self) -> None:
        self._data += bytes(-len(self._data) % 4)


def module_order(modules: Path, wanted: tuple[str, ...]) -> list[Path]:
    """Files below `modules` (…/lib/modules/<version>) to load for the wanted ones, each after what it needs.

    Modules that are built into the kernel, or that this kernel does not have any more, need no file.
    """
    needs: dict[str, tuple[str, list[str]]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, dependencies = line.partition(":")
        needs[module_name(path)] = (path, [module_name(word) for word in dependencies.split()])
    order: list[Path] = []

    def visit(name: str) -> None:
        if name not in needs:
            return
        path, dependencies = needs.pop(name)
        for dependency in dependencies:
            visit(dependency)
        order.append(modules / path)

    for name in wanted:
        visit(module_name(name))
    return order


def module_name(path: str) -> str:
    """A module's name as the kernel has it, of a path or of a name with dashes."""
    return path.rsplit("/", 1)[-1].partition(".ko")[0].replace("-", "_")


def build(tree: Path, kernel: str) -> bytes:
    """The initramfs for the tree's kernel `kernel` (a version as `uname -r` prints it); raises LabError."""
    modules = tree / "usr/lib/modules" / kernel
    busybox = next((p for p in (tree / "usr/bin/busybox", tree / "bin/busybox") if p.is_file()), None)
    if busybox is None:
        raise LabError("the image has no busybox", hint="xenvirtio lab destroy --all && xenvirtio lab up")
    archive = Newc()
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        archive.directory(name)
    archive.device("dev/console", stat.S_IFCHR | 0o600, 5, 1)
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    order = []
    for number, path in enumerate(module_order(modules, ROOT_MODULES)):
        content = path.read_bytes()
        name = f"{number:02d}-{module_name(path.name)}.ko"
        archive.file(f"modules/{name}", lzma.decompress(content) if path.suffix == ".xz" else content)
        order.append(name)
    archive.file("modules/order", "".join(f"{name}\n" for name in order).encode())
    script = resources.files("xenvirtio.lab.dom0").joinpath("initramfs-init").read_bytes()
    archive.file("init", script, 0o755)
    return archive.finish()
