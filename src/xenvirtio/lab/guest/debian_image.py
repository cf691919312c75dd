"""A disk with a whole Debian on it, for a guest that boots from it: systemd, initramfs with our module, sshd.

    <cache>/guests/<release>-<key>/
        tree/            Debian, unpacked; the disk is made of it
        disk.raw.zst     one partition, ext4; `key` names what is in it
        disk.json, ssh_key, build.log

Made on demand, on the host, as the lab's own image is. The kernel is the lab's, for which the payload has the
module; it comes as files, with those of its modules that a guest has a use for.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError
from xenvirtio.lab import debian, image, prune
from xenvirtio.lab.bootstrap import bootstrap
from xenvirtio.lab.guest import debian_files
from xenvirtio.lab.guest.config import KERNEL_OPTIONS
from xenvirtio.lab.host import Host
from xenvirtio.lab.paths import Cache, locked

if TYPE_CHECKING:
    from xenvirtio.lab.payload import Sources
    from xenvirtio.lab.stages import Progress, Stage

#: raised when a tree or disk of an older layout cannot serve any more
FORMAT = 1
HOSTNAME = "debian"
#: bytes; sparse everywhere
DISK_BYTES = 1 << 30
PARTITION_OFFSET = 1 << 20
SECTOR = 512
LINUX_PARTITION = 0x83
#: what is copied of /usr/lib/modules/<kernel>: patterns, as releases differ
COPIED = (
    "modules.builtin*",
    "modules.order",
    *(f"kernel/{name}" for name in ("block", "crypto", "lib", "mm")),
    *(
        f"kernel/fs/{name}"
        for name in ("autofs", "configfs", "ext4", "fat", "fuse", "jbd2", "mbcache*", "nls")
    ),
    *(f"kernel/net/{name}" for name in ("802", "bridge", "core", "ipv4", "ipv6", "llc", "packet")),
    *(f"kernel/drivers/{name}" for name in ("block/*.ko*", "char/hw_random", "net/*.ko*", "virtio", "xen")),
)


@dataclass(frozen=True)
class DebianImage:
    """A finished disk, and the key that its root user lets in."""

    folder: Path
    key: str
    kernel: str
    root_uuid: str

    @property
    def disk(self) -> Path:
        """The disk of DISK_BYTES, packed by zstd."""
        return self.folder / "disk.raw.zst"

    @property
    def ssh_key(self) -> Path:
        return self.folder / "ssh_key"


def ensure(cache: Cache, release: debian.Release, sources: Sources, progress: Progress) -> DebianImage:
    """The disk, made if what is on it changed; the release's lab was up before, which built the module.

    Raises LabError, MissingDependency, TimeLimit.
    """
    base = image.ensure(cache, release, progress)
    hook = (sources.root / "guest/linux/initramfs-hook").read_bytes()
    with locked(base.tree_lock, "the Debian tree of the lab", limit=600):
        modules = _modules(base)
    folder = cache.guests / f"{release.name}-{_tree_key(release)}"
    key = _disk_key(base, modules, hook)
    with locked(Path(f"{folder}.lock"), "the Debian guest's disk", limit=600):
        facts = folder / "disk.json"
        if not facts.exists() or json.loads(facts.read_text())["key"] != key:
            host = Host(folder / "build.log")
            if not (folder / "complete").exists():
                with progress.stage(f"Install Debian {release.name} for a guest", limit=420) as stage:
                    _make_tree(host, folder, release, stage)
            with progress.stage("Make the Debian guest's disk", limit=300) as stage:
                made = DebianImage(folder, key, base.kernel, str(uuid.uuid4()))
                _fill_tree(host, made, base, modules, hook, stage)
                _make_disk(host, made, stage)
            _prune(folder)
            facts.write_text(json.dumps({"key": key, "kernel": made.kernel, "root_uuid": made.root_uuid}))
        return DebianImage(folder=folder, **json.loads(facts.read_text()))


def _prune(folder: Path) -> None:
    """Drops the release's older trees, but the newest: two checkouts may share a cache."""
    release = folder.name.partition("-")[0]
    made = [path.parent for path in folder.parent.glob(f"{release}-*/complete") if path.parent != folder]
    for old in sorted(made, key=lambda path: path.stat().st_mtime)[:-1]:
        prune.remove_tree(old)


def _modules(base: image.Image) -> dict[str, bytes]:
    folder = base.tree / "opt/xenvirtio/modules" / base.kernel
    modules = {path.name: path.read_bytes() for path in sorted(folder.glob("*.ko"))}
    if not modules:
        raise LabError(f"no guest module is built for Linux {base.kernel}", hint="xenvirtio lab up")
    return modules


def _tree_key(release: debian.Release) -> str:
    facts = [FORMAT, release.name, debian_files.PACKAGES, image.EXCLUDED, debian_files.EXCLUDED]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def _disk_key(base: image.Image, modules: dict[str, bytes], hook: bytes) -> str:
    files = debian_files.files(HOSTNAME, base.kernel, "", "", KERNEL_OPTIONS)
    digest = hashlib.sha256(json.dumps([FORMAT, base.key, files, COPIED, DISK_BYTES]).encode())
    for content in (hook, *modules.values()):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:12]


def _make_tree(host: Host, folder: Path, release: debian.Release, stage: Stage) -> None:
    host.run(["rm", "-rf", str(folder / "tree")], limit=60, what="remove an unfinished tree", root=True)
    folder.mkdir(parents=True, exist_ok=True)
    bootstrap(
        host,
        folder,
        release,
        debian_files.PACKAGES,
        stage.left,
        exclude=(*image.EXCLUDED, *debian_files.EXCLUDED),
    )
    (folder / "complete").touch()


#: modules of the kernel: what matches the patterns from $3 on, from $1 to $2
_COPY = """
source=$1 target=$2
shift 2
cd "$source"
for pattern in "$@"; do
    for path in $pattern; do [ ! -e "$path" ] || cp -r --parents "$path" "$target"; done
done
"""
#: in the tree: module and hook are there. $1: the kernel
_FINISH = """
depmod "$1"
rm -f "/boot/initrd.img-$1"
update-initramfs -c -k "$1"
lsinitramfs "/boot/initrd.img-$1" >/var/tmp/initramfs
grep -q /virtio_xenbus.ko /var/tmp/initramfs
rm -f /var/tmp/initramfs /root/.ssh/id
mkdir -p -m 700 /root/.ssh
ssh-keygen -q -t ed25519 -N "" -C lab -f /root/.ssh/id
mv /root/.ssh/id.pub /root/.ssh/authorized_keys
for unit in ssh.service systemd-networkd.service; do systemctl -q enable $unit; done
systemctl -q set-default multi-user.target
rm -f /etc/resolv.conf
# newer than all of /usr: nothing is to be brought up to date at boot
touch /etc/.updated /var/.updated
"""


def _fill_tree(
    host: Host, made: DebianImage, base: image.Image, modules: dict[str, bytes], hook: bytes, stage: Stage
) -> None:
    """Kernel, module, initramfs and configuration into the tree."""
    tree, kernel = made.folder / "tree", base.kernel
    overlay = made.folder / "overlay"
    shutil.rmtree(overlay, ignore_errors=True)
    texts = debian_files.files(HOSTNAME, kernel, made.root_uuid, secrets.token_hex(16), KERNEL_OPTIONS)
    contents = {name: text.encode() for name, text in texts.items()}
    contents[debian_files.HOOK] = hook
    for name, module in modules.items():
        contents[f"usr/lib/modules/{kernel}/updates/{name}"] = module
    for name, content in contents.items():
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (overlay / debian_files.HOOK).chmod(0o755)
    stage.say("kernel and module")
    target = tree / "usr/lib/modules" / kernel
    host.run(["rm", "-rf", str(target)], limit=60, what="remove the guest's old kernel", root=True)
    host.run(["mkdir", "-p", str(target)], limit=10, what="copy the guest's kernel", root=True)
    source = base.tree / "usr/lib/modules" / kernel
    copy = ["sh", "-euc", _COPY, "sh", str(source), str(target), *COPIED]
    host.run(copy, limit=stage.left, what="copy the guest's kernel", root=True)
    boot = [str(base.tree / "boot" / f"{name}-{kernel}") for name in ("vmlinuz", "config", "System.map")]
    host.run(["cp", *boot, str(tree / "boot")], limit=30, what="copy the guest's kernel", root=True)
    host.run(["cp", "-rT", str(overlay), str(tree)], limit=20, what="configure the guest", root=True)
    shutil.rmtree(overlay)
    stage.say("initramfs")
    host.chroot(tree, _FINISH, kernel, limit=stage.left, what="make the guest's initramfs")
    key = str(tree / "root/.ssh/id")
    owned = ["install", "-m", "600", "-o", str(os.getuid()), key, str(made.ssh_key)]
    host.run(owned, limit=10, what="take the guest's key", root=True)
    host.run(["rm", key], limit=10, what="take the guest's key", root=True)


def _make_disk(host: Host, made: DebianImage, stage: Stage) -> None:
    """A partition table and the tree as ext4, packed; the key beside it."""
    stage.say("file system")
    raw = made.folder / "disk.raw"
    raw.unlink(missing_ok=True)
    with raw.open("wb") as file:
        file.truncate(DISK_BYTES)
        file.write(partition_table(DISK_BYTES))
    blocks = (DISK_BYTES - PARTITION_OFFSET) // 4096
    host.run(
        [
            *(
                "mke2fs",
                "-q",
                "-F",
                "-t",
                "ext4",
                "-b",
                "4096",
                "-L",
                HOSTNAME,
                "-U",
                made.root_uuid,
                "-m",
                "0",
            ),
            *("-O", "^resize_inode", "-J", "size=8"),
            *(
                "-E",
                f"offset={PARTITION_OFFSET},lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0",
            ),
            *("-d", str(made.folder / "tree"), str(raw), str(blocks)),
        ],
        limit=stage.left,
        what="make the Debian guest's disk",
        root=True,
    )
    stage.say("packing")
    pack = ["zstd", "-q", "-f", "-9", "-T0", str(raw), "-o", str(made.disk)]
    host.run(pack, limit=stage.left, what="pack the Debian guest's disk")
    raw.unlink()


def partition_table(size: int) -> bytes:
    """A first sector with one bootable Linux partition from PARTITION_OFFSET to the end, `size` in bytes."""
    first = PARTITION_OFFSET // SECTOR
    entry = struct.pack(
        "<B3sB3sII", 0x80, b"\xfe\xff\xff", LINUX_PARTITION, b"\xfe\xff\xff", first, size // SECTOR - first
    )
    return entry.rjust(446 + len(entry), b"\0").ljust(510, b"\0") + b"\x55\xaa"
