"""Programs on the host: run with a time limit, as root where need be, with the output kept in a log."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xenvirtio.errors import LabError, MissingDependency, TimeLimit
from xenvirtio.lab.paths import OTHER_FOLDER

if TYPE_CHECKING:
    from collections.abc import Sequence

#: program → Debian package
PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "mke2fs": "e2fsprogs",
    "apt-config": "apt",
    "tar": "tar",
    "zstd": "zstd",
    "chroot": "coreutils",
    "mount": "mount",
    "sudo": "sudo",
}
#: where users' shells do not look
SYSTEM_PATH = ":/usr/sbin:/sbin"
#: bytes free below which a program that failed has likely failed for want of them
FULL = 16 << 20


def program(name: str) -> str:
    """The program's path; raises MissingDependency with the package to install."""
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + SYSTEM_PATH)
    if path is None:
        raise MissingDependency(
            f"{name} is not installed", hint=f"sudo apt-get install {PACKAGES.get(name, name)}"
        )
    return path


def answer(argv: Sequence[str], limit: float, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """What a program that soon ends says to `data`, whatever its status. Raises TimeLimit, OSError."""
    try:
        return subprocess.run(argv, input=data, capture_output=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        words = f"{Path(argv[0]).name} did not end within {limit:.0f} s"
        raise TimeLimit(words, hint="is this machine very busy? uptime") from None


#: how this machine reaches the network; sudo drops them
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")


def as_root(argv: Sequence[str]) -> list[str]:
    """The command, through sudo if we are not root (never asking for a password)."""
    if os.geteuid() == 0:
        return list(argv)
    kept = [f"{name}={os.environ[name]}" for name in _PROXIES if name in os.environ]
    return [program("sudo"), "-n", "--", "env", *kept, *argv]


@dataclass(frozen=True)
class Host:
    """Runs programs; their output goes to `log`."""

    log: Path

    def run(
        self,
        argv: Sequence[str],
        *,
        limit: float,
        what: str,
        root: bool = False,
        stdin: bytes | None = None,
    ) -> str:
        """Runs a program to its end and returns its standard output.

        `what` names the step in errors. Raises LabError if the program fails (with the last lines that it
        wrote) and TimeLimit after `limit` seconds, with all its children ended.
        """
        command = [program(argv[0]), *argv[1:]]
        command = as_root(command) if root else command
        try:
            return self._run(argv[0], command, limit, what, stdin)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            raise LabError(f"{what}: cannot write {self.log}: {error.strerror}", hint=OTHER_FOLDER) from None

    def chroot(self, tree: Path, script: str, *words: str, limit: float, what: str) -> str:
        """Runs a shell script, with `words` as its arguments, as root in a Debian tree; as `run`."""
        environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "CFLAGS=-g0"]
        return self.run(
            ["chroot", str(tree), "/usr/bin/env", "-i", *environment, "sh", "-euc", script, "sh", *words],
            limit=limit,
            what=what,
            root=True,
        )

    def _run(self, name: str, command: Sequence[str], limit: float, what: str, stdin: bytes | None) -> str:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            start = log.tell()
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            ) as process:
                try:
                    output, _ = process.communicate(stdin, timeout=limit)
                except subprocess.TimeoutExpired:
                    raise TimeLimit(
                        f"{what}: {name} did not finish within {limit:.0f} s", hint=f"see {self.log}"
                    ) from None
                finally:
                    if process.poll() is None:
                        _end(process)
            log.write(output)
        if process.returncode != 0:
            folder = self.log.parent
            if shutil.disk_usage(folder).free < FULL:
                raise LabError(f"{what}: {name} failed: no space is left in {folder}", hint=OTHER_FOLDER)
            raise LabError(
                f"{what}: {name} failed with status {process.returncode}: {self._tail(start)}",
                hint=f"see {self.log}",
            )
        return output.decode(errors="replace")

    def _tail(self, start: int, lines: int = 4) -> str:
        with self.log.open("rb") as log:
            log.seek(start)
            text = log.read().decode(errors="replace")
        return (
            " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])
            or "it said nothing"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and what it has started; what sudo started is ended through sudo.

    They share our process group, so that Ctrl-C on a terminal reaches them all.
    """
    family = [str(pid) for pid in (process.pid, *_descendants(process.pid))]
    # the shell's own: a minimal Debian has no /bin/kill
    kill = ["sh", "-c", 'kill -KILL "$@"', "sh", *family]
    subprocess.run(as_root(kill), stderr=subprocess.DEVNULL, check=False, timeout=10)
    process.wait(10)


def _descendants(pid: int) -> list[int]:
    """Every process below one, from /proc/<pid>/stat (proc(5), fields 1 and 4)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found
