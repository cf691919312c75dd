"""Kernel, ramdisk and command line out of a guest's disk, by pygrub, for one start of the guest.

    <folder>/<uuid>/boot_kernel.*, boot_ramdisk.*     root only; gone when xl has built the guest

What pygrub reads, the guest has written: it runs deprivileged (XSA-443: --runas, a user of its own, an empty
root with nothing but the image, read-only), in a mount namespace that goes with it, without a terminal, and
within a time limit. In this mode it ends with status 0 whatever happens: what counts is what it has written.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from xenvirtio.errors import MissingDependency, TimeLimit, XenvirtioError
from xenvirtio.toolstack.boot.disk import read_only_device
from xenvirtio.toolstack.configuration.bootloader import PYGRUB
from xenvirtio.toolstack.configuration.configuration import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from xenvirtio.toolstack.configuration.bootloader import Bootloader

#: on a disk, as libxl has it: /run is memory, and small in many a dom0
FOLDER = Path("/var/lib/xenvirtio/boot")
#: where Xen keeps the programs that only libxl starts: Debian's, a version each; built from source
PLACES = ("/usr/lib/xen-*/bin", "/usr/libexec/xen/bin", "/usr/lib/xen/bin", "/usr/local/libexec/xen/bin")
#: seconds; under emulation it takes 5 to 10
LIMIT = 120.0
#: bytes of the guest's command line, of which Linux on x86 takes 2048
OUTPUT_MAX = 16384
#: bytes of what pygrub said that are looked at
SAID_MAX = 65536
#: the first of the users that pygrub runs as: beyond people, systemd's and containers' (systemd UIDS-GIDS);
#: one a process of ours, as the same user could end another guest's
FIRST_USER = 0x7000_0000
SEPARATOR = b"\0"  # of --output-format=simple0
#: what pygrub says → what it means, and what to do
MEANINGS = (
    (
        r"couldn't find bootloader config file",
        "it has no /boot/grub/grub.cfg, and no menu of another boot loader",
        "update-grub in the guest",
    ),
    (
        r"Error opening (?P<path>\S+) in guest",
        "{path}, which its menu names, is not there",
        "update-grub in the guest, or choose another entry: bootloader_args=['--entry=1']",
    ),
    (r"Error writing temporary copy", "no room for its kernel or ramdisk", "df {folder}"),
    (
        r"Errno 95",
        "no file system that pygrub can read",
        "/boot may be ext2, 3, 4 or FAT",
    ),
)
INSTEAD = 'kernel="…" and ramdisk="…" without bootloader boot from files of this host'


@dataclass(frozen=True)
class BootFiles:
    """How boot files are taken; tests put others in its place."""

    folder: Path = FOLDER
    limit: float = LIMIT
    show: Callable[[str, int, str], AbstractContextManager[Path]] = read_only_device
    isolate: tuple[str, ...] = ("unshare", "--mount", "--propagation", "private")

    @contextmanager
    def settings(self, bootloader: Bootloader, uuid: str) -> Iterator[str]:
        """Lines for xl's configuration; the files that they name are there within the context only.

        Raises XenvirtioError with pygrub's own words, TimeLimit, MissingDependency.
        """
        program, here, user = find_program(bootloader.program), self.folder / uuid, FIRST_USER + os.getpid()
        shutil.rmtree(here, ignore_errors=True)  # of a process that was killed
        try:
            here.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise XenvirtioError(f"cannot make {here}: {error.strerror}") from error
        try:
            with self.show(bootloader.image, user, f"xenvirtio-boot-{uuid}") as device:
                command = [*self.isolate, *_command(program, bootloader, user, device, here)]
                output, said = _run(command, here, self.limit)
            found = _found(output, here)
            if "kernel" not in found:
                raise _failure(bootloader, said, here)
            yield "".join(f"{name} = {quote(value)}\n" for name, value in found.items())
        finally:
            shutil.rmtree(here, ignore_errors=True)


def find_program(name: str) -> str:
    """The path of pygrub: as given, or the newest of those that are installed.

    Raises MissingDependency.
    """
    if name != PYGRUB:
        if os.access(name, os.X_OK):
            return name
        raise MissingDependency(f"there is no boot loader {name}", hint='bootloader = "pygrub" finds it')
    for place in PLACES:
        found = sorted(Path("/").glob(f"{place[1:]}/{PYGRUB}"), key=_version)
        if found:
            return str(found[-1])
    path = shutil.which(PYGRUB)
    if path is None:
        hint = f"apt-get install xen-utils-4.20 (the version of this Xen); or {INSTEAD}"
        raise MissingDependency("pygrub, which takes the kernel from the guest's disk, is not here", hint)
    return path


def _version(program: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(program))]


def _command(program: str, bootloader: Bootloader, user: int, device: Path, folder: Path) -> list[str]:
    options = {
        "kernel": bootloader.kernel,
        "ramdisk": bootloader.ramdisk,
        "args": bootloader.command_line,
    }
    return [
        program,
        *bootloader.arguments,
        *(f"--{name}={value}" for name, value in options.items() if value),
        # --debug: why no partition has a kernel. After the user's own: it must not wait for a menu's reader.
        *("--quiet", "--debug", f"--runas={user}", "--output=-", "--output-format=simple0"),
        *(f"--output-directory={folder}", "--", str(device)),
    ]


def _run(command: list[str], folder: Path, limit: float) -> tuple[bytes, str]:
    """What pygrub printed, and what it said; it and what it started are gone then."""
    with (folder / "output").open("w+b") as output, (folder / "said").open("w+b") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=said,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C", "TERM": "dumb"},
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            raise TimeLimit(
                f"pygrub did not find the guest's kernel within {limit:.0f} s", hint=INSTEAD
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return _head(output, OUTPUT_MAX + 1), _head(said, SAID_MAX).decode(errors="replace")


def _head(file: BinaryIO, count: int) -> bytes:
    file.seek(0)
    return file.read(count)


def _found(output: bytes, folder: Path) -> dict[str, str]:
    """xl's settings from `kernel PATH`, `ramdisk PATH` and `args …`; the paths are files in our folder."""
    if len(output) > OUTPUT_MAX:
        raise XenvirtioError(
            f"the kernel's command line in the guest's menu is longer than {OUTPUT_MAX} bytes"
        )
    found: dict[str, str] = {}
    for item in output.split(SEPARATOR):
        word, _, value = item.decode("utf-8", "surrogateescape").partition(" ")
        if word in ("kernel", "ramdisk"):
            path = Path(value)
            if path.parent == folder and path.is_file() and path.stat().st_size:
                found[word] = value
        elif word == "args":
            found["cmdline"] = value
    return found


def _failure(bootloader: Bootloader, said: str, folder: Path) -> XenvirtioError:
    """Why there is no kernel: in our words where we know it, and always in pygrub's."""
    what = f"pygrub takes no kernel from {bootloader.vdev}, {bootloader.image}"
    lines = [
        line for line in said.splitlines() if line.strip() and not re.match(r"INFO:|Traceback| |Using ", line)
    ]
    words = "\n".join(f"    {re.sub(r'[^ -~]', '?', line)[:200]}" for line in lines[-6:])
    for pattern, meaning, step in MEANINGS:
        match = re.search(pattern, said)
        if match is not None:
            names = {key: re.sub(r"[^ -~]", "?", value) for key, value in match.groupdict().items()}
            why = meaning.format(folder=folder, **names)
            hint = f"{step.format(folder=folder, **names)}; or: {INSTEAD}"
            return XenvirtioError(f"{what}: {why}. It said:\n{words}", hint)
    return XenvirtioError(
        f"{what}. It said:\n{words}" if words else f"{what}, and said nothing", hint=INSTEAD
    )
