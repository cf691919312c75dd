"""What a lab guest is made of, built from the unpacked Debian tree of the lab's image.

    vmlinux        the kernel for PV guests, unpacked
    vmlinuz        the same as Debian ships it, for PVH and HVM
    initramfs      busybox, drivers, init and the command agent
    tools.squashfs fio and others with their libraries, for a read-only disk
    console.py     dom0's end of the console
    traffic.py     dom0's end of TCP transfers
    guest.json     the kernel's release

Needs no root: nothing is mounted, and nothing of the tree runs but its dynamic loader.
"""

from __future__ import annotations

import json
import re
import stat
from importlib import resources
from typing import TYPE_CHECKING

from xenvirtio.lab.guest import kernel, tools
from xenvirtio.lab.initramfs import Newc, module_name, module_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

VMLINUX = "vmlinux"
VMLINUZ = "vmlinuz"
INITRAMFS = "initramfs"
TOOLS = "tools.squashfs"
#: dom0's programs for guests, which run there as plain files
PROGRAMS = ("console.py", "traffic.py")
FACTS = "guest.json"

#: of the kernel's own: drivers, file systems, and what ext4 asks for by another name
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "squashfs", "crc32c_generic", "ext4")
#: names that the kernel asks modprobe for, and the modules which answer
ALIASES = {"fs-ext4": "ext4", "fs-squashfs": "squashfs", "crypto-crc32c": "crc32c_generic"}
#: path in the guest → file of this package
SCRIPTS = {
    "init": "init",
    "bin/agent": "agent",
    "bin/mount-tools": "mount-tools",
    "sbin/poweroff": "poweroff",
    "sbin/reboot": "poweroff",
}
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def build(tree: Path, release: str, out: Path) -> None:
    """Makes all files in the folder `out`, with the tree's kernel of that release ("6.12.1+deb13-amd64").

    The modules of ours are those that the payload's build left in the tree. Raises LabError,
    MissingDependency.
    """
    modules = sorted((tree / "opt/xenvirtio/modules" / release).glob("*.ko"))
    bzimage = (tree / "boot" / f"vmlinuz-{release}").read_bytes()
    (out / VMLINUZ).write_bytes(bzimage)
    (out / VMLINUX).write_bytes(kernel.vmlinux(bzimage))
    (out / INITRAMFS).write_bytes(initramfs(tree, release, modules))
    tools.build(tree, out / TOOLS)
    for name in PROGRAMS:
        (out / name).write_bytes(_own(name))
    (out / FACTS).write_text(json.dumps({"kernel": release}))


def initramfs(tree: Path, release: str, modules: Sequence[Path]) -> bytes:
    """The guest's root as an uncompressed cpio archive, which the kernel unpacks fastest."""
    folder = tree / "usr/lib/modules" / release
    files = {module_name(path.name): path for path in (*module_order(folder, MODULES), *modules)}
    archive = Newc()
    for name in ("bin", "sbin", "dev", "etc", "lib", "lib/modules", f"lib/modules/{release}"):
        archive.directory(name)
    archive.device("dev/console", stat.S_IFCHR | 0o600, 5, 1)
    archive.file("bin/busybox", (tree / "usr/bin/busybox").read_bytes(), 0o755)
    archive.file("sbin/modprobe", b'#!/bin/busybox sh\nexec /bin/busybox modprobe "$@"\n', 0o755)
    for name, own in SCRIPTS.items():
        archive.file(name, _own(own), 0o755)
    contents = {name: kernel.module(path) for name, path in files.items()}
    for name, content in contents.items():
        archive.file(f"lib/modules/{release}/{name}.ko", content)
    archive.file(f"lib/modules/{release}/modules.dep", _dependencies(contents).encode())
    aliases = "".join(f"alias {alias} {name}\n" for alias, name in ALIASES.items() if name in files)
    archive.file(f"lib/modules/{release}/modules.alias", aliases.encode())
    archive.file(f"lib/modules/{release}/modules.symbols", b"")
    return archive.finish()


def _dependencies(contents: Mapping[str, bytes]) -> str:
    """modules.dep of modules which lie in one folder: each with all that it needs, the deepest last."""
    direct = {name: _depends(content) for name, content in contents.items()}

    def deep(name: str) -> list[str]:
        found: list[str] = []
        for need in direct[name]:
            if need in direct:
                found += [each for each in (need, *deep(need)) if each not in found]
        return found

    return "".join(f"{name}.ko:{''.join(f' {need}.ko' for need in deep(name))}\n" for name in contents)


def _depends(module: bytes) -> list[str]:
    """The modules that a module says it needs; what the kernel has built in is not listed there."""
    match = _DEPENDS.search(module)
    return [module_name(name) for name in match[1].decode().split(",") if name] if match else []


def _own(name: str) -> bytes:
    return resources.files("xenvirtio.lab.guest").joinpath(name).read_bytes()
