"""What the lab needs of this machine, and what the daemon needs where this is a Xen dom0."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import MissingDependency
from xenvirtio.lab.host import PACKAGES, answer, program
from xenvirtio.spec.host import LIBRARIES, NODES, XL_PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xenvirtio.lab.paths import Cache

#: bytes free in the cache folder: a tree (1 GiB), a root disk (1), a snapshot and a lab (0.5), payloads
#: (0.5), spare
DISK_NEEDED = 4 << 30
#: bytes of memory available: dom0, a few guests and a compiler beside them
MEMORY_NEEDED = 3 << 30
#: bytes free where the image is made already: a lab (0.5 GiB), new payloads (0.5)
DISK_NEEDED_LATER = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. What is not `required` is only worth knowing."""

    name: str
    ok: bool
    detail: str
    hint: str | None = None
    package: str | None = None
    required: bool = True


def examine(cache: Cache, proc: Path = Path("/proc"), dev: Path = Path("/dev")) -> list[Finding]:
    """Looks at everything; changes nothing.

    On a dom0 the daemon's needs are required and the lab's are not; elsewhere there is only the lab.
    """
    capabilities = proc / "xen/capabilities"
    dom0 = capabilities.is_file() and "control_d" in capabilities.read_text()
    lab = [
        _processor(),
        _pip(),
        *_programs(),
        _root(),
        _disk(cache.root),
        _memory(proc / "meminfo"),
        _kvm(dev),
    ]
    if dom0:  # it has a real Xen, and may do without the lab
        return [_python(), *_dom0(dev), *(replace(finding, required=False) for finding in lab)]
    if (proc / "xen").is_dir():
        hint = "mount -t xenfs xenfs /proc/xen"
        lab.append(Finding("xen", False, "a Xen guest, or xenfs is not mounted", hint, required=False))
    return [_python(), *lab]


def install_line(findings: list[Finding]) -> str | None:
    """One command that installs every missing package; None if none is missing."""
    packages = sorted({finding.package for finding in findings if not finding.ok and finding.package})
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}" if packages else None


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, version, None if ok else "xenvirtio needs Python 3.11 or newer", "python3")


def _processor() -> Finding:
    """Image and guests are Debian's amd64, and chroot runs their programs."""
    machine = platform.machine()
    ok = machine == "x86_64"
    return Finding("processor", ok, machine, None if ok else "the lab needs an x86_64 machine")


def _pip() -> Finding:
    ok = importlib.util.find_spec("pip") is not None
    hint = None if ok else f"{sys.executable} -m ensurepip"
    return Finding("pip", ok, "brings Python packages for the lab", hint, None if ok else "python3-venv")


def _programs() -> Iterator[Finding]:
    for name in (name for name in PACKAGES if name != "sudo"):
        try:
            yield Finding(name, True, program(name), package=PACKAGES[name])
        except MissingDependency as error:
            yield Finding(name, False, "not installed", error.hint, PACKAGES[name])


def _root() -> Finding:
    """The lab's Debian is installed with root's rights; the lab itself runs without."""
    if os.geteuid() == 0:
        return Finding("root", True, "we are root")
    try:
        sudo = program("sudo")
    except MissingDependency:
        return Finding("root", False, "not root, and no sudo", "run it as root", "sudo")
    if answer([sudo, "-n", "true"], 20).returncode == 0:
        return Finding("root", True, "through sudo")
    return Finding("root", False, "sudo asks for a password", "sudo -v, and then again")


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    used = any((folder / "images").glob("*/image.json"))
    needed = DISK_NEEDED_LATER if used else DISK_NEEDED
    ok = free >= needed
    detail = f"{free / (1 << 30):.1f} GiB free in {there}" + (
        " (the images are there already)" if used else ""
    )
    hint = f"the lab needs {needed >> 30} GiB; another folder: export XENVIRTIO_CACHE=/path"
    return Finding("disk space", ok, detail, None if ok else hint)


def _memory(meminfo: Path) -> Finding:
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    available = int(fields["MemAvailable"].split()[0]) * 1024
    ok = available >= MEMORY_NEEDED
    detail = f"{available / (1 << 30):.1f} GiB available"
    return Finding("memory", ok, detail, None if ok else f"the lab needs {MEMORY_NEEDED >> 30} GiB")


def _kvm(dev: Path) -> Finding:
    node = dev / "kvm"
    if not node.exists():
        detail, hint = "no /dev/kvm: the lab emulates, which is slower", None
    elif not os.access(node, os.R_OK | os.W_OK):
        detail, hint = "not ours to use: the lab emulates, which is slower", 'sudo adduser "$USER" kvm'
    else:
        return Finding("kvm", True, "there; the first boot tries whether it works", required=False)
    return Finding("kvm", False, detail, hint, required=False)


def _dom0(dev: Path) -> Iterator[Finding]:
    yield Finding("xen", True, "this is dom0")
    for soname, package in LIBRARIES.items():
        try:
            ctypes.CDLL(soname)
        except OSError:
            yield Finding(soname, False, "not installed", f"sudo apt-get install {package}", package)
        else:
            yield Finding(soname, True, "there", package=package)
    for node, module in NODES.items():
        ok = (dev / Path(node).relative_to("/dev")).exists()
        yield Finding(node, ok, "there" if ok else "missing", None if ok else f"sudo modprobe {module}")
    xl = shutil.which("xl")
    hint = None if xl else f"sudo apt-get install {XL_PACKAGE}"
    yield Finding("xl", bool(xl), xl or "not installed", hint, XL_PACKAGE)
