"""The payload: xenvirtio, the guest module and the guests' files, on a disk of its own.

Built in the image's tree, only when its sources changed; dom0 need not boot again for it. Mounted at
/opt/xenvirtio:

    venv/                    xenvirtio, compiled, with what it needs
    modules/<kernel>/        virtio_xenbus.ko
    guest/                   what xenvirtio.lab.guest made
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError
from xenvirtio.lab import debian, prune, wheels
from xenvirtio.lab.guest import artifacts
from xenvirtio.lab.host import Host
from xenvirtio.lab.image import MOUNT_POINT
from xenvirtio.lab.paths import Cache, locked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xenvirtio.lab.image import Image
    from xenvirtio.lab.stages import Progress

FORMAT = 1
#: bytes of the payload's disk: fixed, as the snapshot knows the disk's size
DISK_BYTES = 1 << 30
#: readings of the sources, until nobody edits them meanwhile
SNAPSHOT_TRIES = 5
#: where it is built, in the tree
_BUILD = "var/tmp/xenvirtio-build"
_IGNORED = {"__pycache__", "build", "xenvirtio.egg-info"}


@dataclass(frozen=True)
class Sources:
    """A checkout of the project."""

    root: Path

    @classmethod
    def find(cls, environment: Mapping[str, str]) -> Sources:
        """$XENVIRTIO_SOURCE, or the checkout around this package or the current folder; raises LabError."""
        own = environment.get("XENVIRTIO_SOURCE")
        starts = [Path(own)] if own else [Path(__file__).resolve(), Path.cwd()]
        for start in starts:
            for folder in (start, *start.parents):
                if (folder / "pyproject.toml").is_file() and (folder / "src/xenvirtio/lab").is_dir():
                    return cls(folder)
        raise LabError(
            "the lab builds xenvirtio from its sources, and there is no checkout here",
            hint="run it in a checkout, or name one: XENVIRTIO_SOURCE=/path/to/xenvirtio xenvirtio lab up",
        )

    def files(self) -> list[Path]:
        """What the payload is made of, relative to the root, in a fixed order; not tests and documents."""
        found = [Path(name) for name in ("pyproject.toml", "README.md", "LICENSE")]
        for top in ("src", "guest"):
            for folder, folders, names in os.walk(self.root / top):
                folders[:] = sorted(set(folders) - _IGNORED)
                here = Path(folder).relative_to(self.root)
                found += [here / name for name in sorted(names) if _is_source(here, name)]
        return [path for path in found if (self.root / path).is_file()]

    def key(self, image: Image) -> str:
        """Names the content of the sources and the image that they are built in."""
        digest = hashlib.sha256(json.dumps([FORMAT, image.key, DISK_BYTES]).encode())
        for path in self.files():
            digest.update(f"{path}\0".encode())
            digest.update(hashlib.sha256((self.root / path).read_bytes()).digest())
        return digest.hexdigest()[:12]

    def archive(self) -> bytes:
        """A tar of the files, with their times, so that builds stay incremental."""
        stream = BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for path in self.files():
                tar.add(self.root / path, arcname=str(path), filter=_as_root_owned)
        return stream.getvalue()

    def snapshot(self, image: Image) -> tuple[str, bytes]:
        """Key and archive of the same content; raises LabError if it changes all the time."""
        for _ in range(SNAPSHOT_TRIES):
            key, archive = self.key(image), self.archive()
            if self.key(image) == key:
                return key, archive
        raise LabError(f"the sources in {self.root} change while they are read", hint="save, and then again")


def _is_source(folder: Path, name: str) -> bool:
    if folder.parts[0] == "src":  # Cython's .c files and compiled modules lie beside their sources
        return not name.endswith((".so", ".pyc", ".o", ".c"))
    return not name.endswith((".o", ".ko", ".mod", ".mod.c", ".cmd", ".symvers", ".order")) and name[0] != "."


def _as_root_owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info


def ensure(cache: Cache, image: Image, sources: Sources, progress: Progress) -> tuple[str, Path]:
    """The payload's key and disk, built if the sources changed; raises LabError, TimeLimit."""
    key = sources.key(image)
    folder = cache.payloads / image.release
    disk = folder / f"{key}.raw"
    if not disk.exists():
        with locked(image.tree_lock, "the Debian tree of the lab", limit=600):
            key, archive = sources.snapshot(image)  # they may have changed while we waited
            disk = folder / f"{key}.raw"
            if not disk.exists():
                _build(cache, disk, image, sources, archive, progress)
    os.utime(disk)
    return key, disk


def _build(
    cache: Cache, disk: Path, image: Image, sources: Sources, archive: bytes, progress: Progress
) -> None:
    folder = disk.parent
    host = Host(folder / "build.log")
    host.log.unlink(missing_ok=True)
    tree = image.tree
    with progress.stage("Build xenvirtio for the lab", limit=300) as stage:
        packages = fetch_wheels(cache, debian.RELEASES[image.release], sources, stage.left)
        _copy_sources(host, tree, sources, archive, packages)
        stage.say("compiling")
        host.chroot(tree, _PYTHON_SCRIPT, limit=stage.left, what="build xenvirtio in the image")
    with progress.stage(f"Build the guest module for Linux {image.kernel}", limit=180) as stage:
        host.chroot(tree, _module_script(image), limit=stage.left, what="build the guest module")
    with progress.stage("Make the guests' files", limit=120) as stage:
        _guest_files(host, folder / "guest.new", image, stage.left)
    with progress.stage("Pack xenvirtio's disk", limit=60) as stage:
        _pack(host, tree, disk, stage.left)
    prune.payloads(folder)


def fetch_wheels(cache: Cache, release: debian.Release, sources: Sources, limit: float) -> Path:
    """The folder with the wheels that the sources ask for, downloaded unless they are there."""
    wanted = wheels.requirements(sources.root / "pyproject.toml")
    folder = cache.wheels / release.python
    stamp = folder / "complete.json"
    with locked(cache.wheels / f"{release.python}.lock", "the download of Python packages", limit=limit):
        if not stamp.exists() or json.loads(stamp.read_text()) != wanted.names:
            wheels.download(Host(cache.wheels / "download.log"), release, wanted.names, folder, limit)
            (folder / "build.txt").write_text("".join(f"{name}\n" for name in wanted.build))
            (folder / "run.txt").write_text("".join(f"{name}\n" for name in wanted.run))
            stamp.write_text(json.dumps(wanted.names))
    return folder


def _copy_sources(host: Host, tree: Path, sources: Sources, archive: bytes, packages: Path) -> None:
    build = tree / _BUILD
    host.run(["mkdir", "-p", str(build)], limit=10, what="prepare the build", root=True)
    host.run(["rm", "-rf", str(build / "wheels")], limit=20, what="prepare the build", root=True)
    host.run(
        ["cp", "-r", str(packages), str(build / "wheels")], limit=60, what="copy Python packages", root=True
    )
    keep = {str(path) for path in sources.files()}
    # Removed sources go; what compilers made from the others stays.
    stale = [
        str(path)
        for top in ("src/xenvirtio", "guest")
        for path in (build / top).rglob("*")
        if path.is_file()
        and path.suffix in (".py", ".pxd", ".pyx")
        and str(path.relative_to(build)) not in keep
    ]
    if stale:
        host.run(["rm", "-f", "--", *stale], limit=20, what="remove old sources", root=True)
    incoming = build / "incoming"
    host.run(["rm", "-rf", str(incoming)], limit=20, what="prepare the build", root=True)
    host.run(["mkdir", str(incoming)], limit=10, what="prepare the build", root=True)
    host.run(
        ["tar", "-x", "--no-same-permissions", "-C", str(incoming)],
        limit=60,
        what="copy the sources",
        root=True,
        stdin=archive,
    )
    host.run(["sh", "-euc", _TAKE_CHANGED, "sh", str(build)], limit=60, what="copy the sources", root=True)


#: Only what differs is replaced, and is new then: the compilers go by times, and another checkout's changes
#: may be older than what was compiled from this one's.
_TAKE_CHANGED = """
cd "$1/incoming"
find . -type f | while read -r file; do
    cmp -s "$file" "../$file" && continue
    mkdir -p "../${file%/*}"
    cp "$file" "../$file"
done
cd .. && rm -rf incoming
"""


#: builds and installs xenvirtio offline; the venvs are made again only when what they hold changes
_PYTHON_SCRIPT = f"""
cd /{_BUILD}
install="pip install --quiet --no-index --find-links wheels"
if ! cmp -s wheels/complete.json /{MOUNT_POINT}/.requirements; then
    rm -rf /{MOUNT_POINT}/venv build-venv
    python3 -m venv build-venv
    build-venv/bin/$install -r wheels/build.txt
    python3 -m venv /{MOUNT_POINT}/venv
    /{MOUNT_POINT}/venv/bin/$install -r wheels/run.txt
    cp wheels/complete.json /{MOUNT_POINT}/.requirements
fi
# What was compiled before stays for the next build, but never as a stale module in the wheel.
cmp -s pyproject.toml settings || rm -rf build
cp pyproject.toml settings
[ ! -d build ] || find build -name '*.py' -delete
rm -rf dist
printf '[build_ext]\nparallel = %s\n' "$(nproc)" >parallel.cfg
export DIST_EXTRA_CONFIG=$PWD/parallel.cfg
build-venv/bin/pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir dist .
/{MOUNT_POINT}/venv/bin/$install --no-deps --force-reinstall dist/xenvirtio-*.whl
"""


def _module_script(image: Image) -> str:
    headers = f"/lib/modules/{image.kernel}/build"
    target = f"/{MOUNT_POINT}/modules/{image.kernel}"
    return f"""
make -C {headers} M=/{_BUILD}/guest/linux -j"$(nproc)" modules
mkdir -p {target}
cp /{_BUILD}/guest/linux/*.ko {target}/
"""


def _guest_files(host: Host, out: Path, image: Image, limit: float) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    artifacts.build(image.tree, image.kernel, out)
    target = image.tree / MOUNT_POINT / "guest"
    host.run(["rm", "-rf", str(target)], limit=20, what="remove the guests' old files", root=True)
    host.run(["cp", "-r", "-L", str(out), str(target)], limit=limit, what="copy the guests' files", root=True)
    shutil.rmtree(out)


def _pack(host: Host, tree: Path, disk: Path, limit: float) -> None:
    part = disk.with_suffix(".new")
    part.unlink(missing_ok=True)
    host.run(
        [
            *(
                "mksquashfs",
                str(tree / MOUNT_POINT),
                str(part),
                "-quiet",
                "-no-progress",
                "-noappend",
                "-all-root",
            ),
            *("-noI", "-noD", "-noF", "-noX", "-no-xattrs"),  # unpacking would cost dom0's emulated processor
        ],
        limit=limit,
        what="pack xenvirtio's disk",
        root=True,
    )
    if os.geteuid() != 0:
        host.run(["chown", str(os.getuid()), str(part)], limit=10, what="own xenvirtio's disk", root=True)
    if part.stat().st_size > DISK_BYTES:
        raise LabError(
            f"the payload of {part.stat().st_size >> 20} MiB is larger than its disk of {DISK_BYTES >> 20}"
        )
    with part.open("r+b") as file:
        file.truncate(DISK_BYTES)
    part.replace(disk)
