"""The tools disk of lab guests: programs of the Debian tree with their libraries, as a read-only squashfs.

    bin/NAME       starts libexec/NAME through the disk's own loader, so the guest needs no C library
    lib/           every library, in one folder
    libexec/       the programs

Not compressed: unpacking costs more in an emulated guest than reading does.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from xenvirtio.errors import LabError, MissingDependency

LOADER = "ld-linux-x86-64.so.2"
#: name → the program in the tree, and arguments that go before the user's
PROGRAMS = {
    "fio": ("usr/bin/fio", ""),
    "iperf3": ("usr/bin/iperf3", ""),
    "mkfs.ext4": ("usr/sbin/mke2fs", " -t ext4"),
    "e2fsck": ("usr/sbin/e2fsck", ""),
    "ethtool": ("usr/sbin/ethtool", ""),
    "zeroout": ("usr/sbin/blkdiscard", " --zeroout"),
}
#: where Debian keeps libraries; the last is for a program's private ones, found by its run path
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib/x86_64-linux-gnu/ceph")
_LISTED = re.compile(r"^\s*(\S+) (?:=> (\S+) )?\(0x[0-9a-f]+\)$", re.MULTILINE)
_MISSING = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)


def build(tree: Path, image: Path) -> None:
    """Makes the squashfs `image`; what the tree lacks is left out. Raises LabError, MissingDependency."""
    with tempfile.TemporaryDirectory(dir=image.parent) as name:
        folder = Path(name)
        for each in ("bin", "lib", "libexec"):
            (folder / each).mkdir()
        shutil.copyfile(tree / "usr/lib64" / LOADER, folder / "lib" / LOADER)
        (folder / "lib" / LOADER).chmod(0o755)
        libraries: dict[str, Path] = {}
        for command, (program, arguments) in PROGRAMS.items():
            if (tree / program).is_file():
                libraries |= needed(tree, tree / program)
                _add(folder, command, tree / program, arguments)
        for soname, path in libraries.items():
            shutil.copyfile(path, folder / "lib" / soname)
        _pack(folder, image)


def needed(tree: Path, program: Path) -> dict[str, Path]:
    """Name → file of all libraries that a program needs, by the tree's own loader; raises LabError."""
    places = ":".join(str(tree / folder) for folder in _LIBRARIES)
    command = [str(tree / "usr/lib64" / LOADER), "--library-path", places, "--list", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if missing := _MISSING.findall(done.stdout):
        raise LabError(f"{program} needs {', '.join(missing)}, which the image lacks")
    if done.returncode:
        raise LabError(
            f"cannot list the libraries of {program}: {done.stderr.strip() or done.stdout.strip()}"
        )
    return {Path(name).name: Path(path) for name, path in _LISTED.findall(done.stdout) if path}


def _add(folder: Path, command: str, program: Path, arguments: str) -> None:
    shutil.copyfile(program, folder / "libexec" / program.name)
    (folder / "libexec" / program.name).chmod(0o755)
    start = f"/tools/lib/{LOADER} --library-path /tools/lib /tools/libexec/{program.name}{arguments}"
    wrapper = folder / "bin" / command
    wrapper.write_text(f'#!/bin/busybox sh\nexec {start} "$@"\n')
    wrapper.chmod(0o755)


def _pack(folder: Path, image: Path) -> None:
    options = [
        "-quiet",
        "-no-progress",
        "-noappend",
        "-all-root",
        "-no-xattrs",
        "-noI",
        "-noD",
        "-noF",
        "-noX",
    ]
    try:
        subprocess.run(
            ["mksquashfs", str(folder), str(image), *options],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except FileNotFoundError:
        raise MissingDependency(
            "mksquashfs is not installed", hint="apt-get install squashfs-tools"
        ) from None
    except subprocess.CalledProcessError as error:
        raise LabError(f"mksquashfs could not make the tools disk: {error.stderr.strip()}") from error
