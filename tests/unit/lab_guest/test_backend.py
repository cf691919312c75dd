"""The scripts that start and stop dom0's daemon, run on the host with a daemon that is a script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from xenvirtio.errors import LabError
from xenvirtio.lab.guest import backend
from xenvirtio.lab.guest.backend import Backend
from xenvirtio.lab.results import Completed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xenvirtio.lab.lab import Lab

DAEMON = """#!{python} -S
import os, signal, socket, sys, time
assert sys.argv[1:] == ["daemon"] and os.getsid(0) == os.getpid()
if os.path.exists({fail!r}):
    sys.exit("no hypervisor")
time.sleep(0.3)
socket.socket(socket.AF_UNIX).bind({socket!r})
signal.pause()
"""


class HostLab:
    """Runs the scripts here, in a folder instead of /run and /var/log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "xenvirtio/daemon.sock"
        self.socket.parent.mkdir()
        program = folder / "bin/xenvirtio"
        program.parent.mkdir()
        values = {"python": sys.executable, "fail": str(folder / "fail"), "socket": str(self.socket)}
        program.write_text(DAEMON.format(**values))
        program.chmod(0o755)

    def run(self, argv: Sequence[str], **_: object) -> Completed:
        names = {backend.LOG: str(self.folder / "log"), "/run/": f"{self.folder}/"}
        words = list(argv)
        for name, here in names.items():
            words = [word.replace(name, here) for word in words]
        path = f"{self.folder}/bin:{os.environ['PATH']}"
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=20, check=False, env={"PATH": path}
        )
        return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[HostLab]:
    lab = HostLab(tmp_path)
    yield lab
    pid = tmp_path / "xenvirtio-lab/daemon.pid"
    if pid.exists() and alive(int(pid.read_text())):
        os.kill(int(pid.read_text()), signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_start_waits_until_the_daemon_listens_and_knows_its_process(lab: HostLab) -> None:
    daemon = Backend(cast("Lab", lab))
    daemon.start(limit=10)
    assert lab.socket.is_socket()
    assert b"daemon" in Path(f"/proc/{daemon.pid()}/cmdline").read_bytes()
    pid = daemon.pid()
    daemon.start(limit=10)
    assert daemon.pid() == pid, "one that runs is left alone"
    daemon.stop(limit=10)
    assert not alive(pid)


def test_the_socket_of_a_killed_daemon_is_not_taken_for_a_new_one(lab: HostLab) -> None:
    daemon = Backend(cast("Lab", lab))
    daemon.start(limit=10)
    old = daemon.pid()
    os.kill(old, signal.SIGKILL)
    while alive(old):
        os.sched_yield()
    assert lab.socket.is_socket()
    before = lab.socket.stat().st_ino, lab.socket.stat().st_ctime_ns
    daemon.start(limit=10)
    assert (lab.socket.stat().st_ino, lab.socket.stat().st_ctime_ns) != before
    assert daemon.pid() != old


def test_a_daemon_that_ends_at_once_is_told_with_its_last_words(lab: HostLab) -> None:
    (lab.folder / "fail").touch()
    with pytest.raises(LabError, match=r"(?s)did not start: it ended:.*no hypervisor"):
        Backend(cast("Lab", lab)).start(limit=10)
