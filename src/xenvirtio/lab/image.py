"""The base image: a Debian tree with Xen, its kernel and a toolchain, and the disk that dom0 boots from."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError
from xenvirtio.lab import debian, initramfs, prune
from xenvirtio.lab.bootstrap import bootstrap
from xenvirtio.lab.host import Host
from xenvirtio.lab.paths import Cache, locked

if TYPE_CHECKING:
    from xenvirtio.lab.stages import Progress

#: raised when an image of an older layout cannot serve any more
FORMAT = 1
#: bytes of the root disk as dom0 sees it; sparse on the host
ROOT_BYTES = 8 << 30
#: what packages bring that nobody reads here; and the hook that makes Debian's own initramfs, which is not
#: used and would take most of the kernel's installation time
EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/etc/kernel/postinst.d/initramfs-tools",
)
#: files of dom0's side, below the package xenvirtio.lab.dom0
DOM0_FILES = (
    "__init__.py",
    "agent.py",
    "command.py",
    "loop.py",
    "protocol.py",
    "init",
    "initramfs-init",
)
DOM0_FOLDER = "usr/lib/xenvirtio-lab"
#: where the payload is mounted in dom0, and built in the tree
MOUNT_POINT = "opt/xenvirtio"

_LAUNCHER = """\
#!/usr/bin/python3 -I
import sys
sys.path.insert(0, "/usr/lib/xenvirtio-lab")
from xenvirtio.lab.dom0.agent import main
main()
"""


@dataclass(frozen=True)
class Image:
    """A finished base image in its folder."""

    folder: Path
    key: str
    release: str
    xen: str  # "4.20"
    kernel: str  # as `uname -r` prints it
    tree_folder: str
    made: str  # differs between two images of one key: their disks are not the same bytes

    @property
    def tree(self) -> Path:
        """The unpacked root file system; payloads are built in it, with `tree_lock` held."""
        return Path(self.tree_folder) / "tree"

    @property
    def tree_lock(self) -> Path:
        return Path(f"{self.tree_folder}.lock")

    @property
    def disk(self) -> Path:
        return self.folder / "root.raw"

    @property
    def hypervisor(self) -> Path:
        return self.folder / "xen"

    @property
    def vmlinuz(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"


def tree_key(release: debian.Release) -> str:
    """Names what the tree is made of: packages and format; not where the packages come from."""
    facts = [FORMAT, release.name, debian.packages(release), EXCLUDED]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def image_key(release: debian.Release) -> str:
    """Names what the image is made of: the tree, dom0's files, the initramfs, the disk's size."""
    facts = [tree_key(release), ROOT_BYTES, _LAUNCHER, initramfs.ROOT_MODULES]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name in DOM0_FILES:
        digest.update(resources.files("xenvirtio.lab.dom0").joinpath(name).read_bytes())
    return digest.hexdigest()[:12]


def ensure(cache: Cache, release: debian.Release, progress: Progress) -> Image:
    """The base image, made if it is not there; raises LabError, MissingDependency, TimeLimit."""
    key = image_key(release)
    folder = cache.images / f"{release.name}-{key}"
    if not (folder / "image.json").exists():
        tree_folder = cache.trees / f"{release.name}-{tree_key(release)}"
        with locked(Path(f"{tree_folder}.lock"), f"the {release.name} image", limit=900):
            if not (tree_folder / "complete").exists():
                _make_tree(tree_folder, release, progress)
            if not (folder / "image.json").exists():
                _make_image(
                    Image(folder, key, release.name, release.xen, "", str(tree_folder), secrets.token_hex(8)),
                    progress,
                )
            prune.images(cache, release.name)
    os.utime(folder / "image.json")
    return load(folder)


def load(folder: Path) -> Image:
    """A finished image from its folder."""
    facts = json.loads((folder / "image.json").read_text())
    return Image(folder=folder, **facts)


def _make_tree(folder: Path, release: debian.Release, progress: Progress) -> None:
    if folder.exists():
        prune.remove_tree(folder)
    folder.mkdir(parents=True)
    with progress.stage(f"Install Debian {release.name} with Xen {release.xen}", limit=420) as stage:
        bootstrap(
            Host(folder / "build.log"),
            folder,
            release,
            debian.packages(release),
            stage.left,
            exclude=EXCLUDED,
        )
        (folder / "complete").touch()


def _make_image(image: Image, progress: Progress) -> None:
    tree = image.tree
    image.folder.mkdir(parents=True, exist_ok=True)
    host = Host(image.folder / "build.log")
    with progress.stage("Make dom0's disk", limit=180) as stage:
        kernels = [path.name for path in (tree / "usr/lib/modules").iterdir()]
        hypervisors = list((tree / "boot").glob("xen-*-amd64.gz"))
        if len(kernels) != 1 or len(hypervisors) != 1:
            found = ", ".join([*kernels, *(path.name for path in hypervisors)])
            hint = f"see {image.tree_folder}/build.log"
            raise LabError(f"not one kernel and one Xen in {tree}: {found or 'none'}", hint)
        image = replace(image, kernel=kernels[0])
        # QEMU's multiboot loader does not take the compressed file.
        image.hypervisor.write_bytes(gzip.decompress(hypervisors[0].read_bytes()))
        shutil.copyfile(tree / "boot" / f"vmlinuz-{image.kernel}", image.vmlinuz)
        image.initrd.write_bytes(initramfs.build(tree, image.kernel))
        overlay = image.folder / "overlay"
        shutil.rmtree(overlay, ignore_errors=True)
        _dom0_files(overlay / DOM0_FOLDER)
        (overlay / MOUNT_POINT).mkdir(parents=True)
        host.run(["cp", "-rT", str(overlay), str(tree)], limit=20, what="copy dom0's files", root=True)
        with image.disk.open("wb") as disk:
            disk.truncate(ROOT_BYTES)
        # Everything initialised here: nothing is left for dom0 to write in the background under emulation.
        host.run(
            [
                *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "dom0", "-m", "0"),
                *("-O", "^has_journal,^resize_inode"),
                *("-E", "lazy_itable_init=0,nodiscard,root_owner=0:0"),
                *("-d", str(tree), str(image.disk)),
            ],
            limit=stage.left,
            what="make dom0's disk",
            root=True,
        )
        facts = {name: value for name, value in asdict(image).items() if name != "folder"}
        (image.folder / "image.json").write_text(json.dumps(facts, indent=1))


def _dom0_files(folder: Path) -> None:
    """Writes the agent (as the package it is: its imports hold), the start-up script and a launcher."""
    package = folder / "xenvirtio" / "lab" / "dom0"
    package.mkdir(parents=True)
    for name in DOM0_FILES:
        target = folder / "init" if name == "init" else package / name
        target.write_bytes(resources.files("xenvirtio.lab.dom0").joinpath(name).read_bytes())
    for parent in (package.parent, package.parent.parent):
        (parent / "__init__.py").write_text("")
    (folder / "agent").write_text(_LAUNCHER)
    for name in ("init", "agent"):
        (folder / name).chmod(0o755)
