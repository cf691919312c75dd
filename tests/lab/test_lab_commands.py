"""The lab's own commands, on a second lab beside the tests' own."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xenvirtio.lab import Lab

NAME = "tests-second"
#: seconds for a command; `up` may have to make a snapshot
LIMIT = 300
#: seconds in which a terminal says something
TERMINAL_LIMIT = 60
PROGRAM = (sys.executable, "-m", "xenvirtio.cli.main", "lab")


def command(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """`xenvirtio lab WORDS` on the second lab."""
    environment = os.environ | {"XENVIRTIO_LAB": NAME}
    return subprocess.run(
        [*PROGRAM, *words], input=text, capture_output=True, text=True, env=environment, timeout=LIMIT
    )


@pytest.fixture(scope="module", autouse=True)
def _second(lab: Lab, request: pytest.FixtureRequest) -> Iterator[None]:
    assert lab
    up = command("up", "--release", request.config.getoption("--lab-release"))
    assert up.returncode == 0, up.stderr
    yield
    command("destroy")


def test_two_labs_are_up_at_once(lab: Lab) -> None:
    rows = {line.split()[0]: line.split()[1] for line in command("status").stdout.splitlines()[1:]}
    assert (rows[lab.name], rows[NAME]) == ("up", "up")
    command("run", "--", "touch", "/root/second").check_returncode()
    assert lab.run(["test", "-e", "/root/second"]).returncode == 1


def test_run_passes_input_output_and_status_on() -> None:
    done = command("run", "--", "sh", "-c", "cat; echo late >&2; exit 7", text="early")
    assert (done.returncode, done.stdout, done.stderr) == (7, "early", "late\n")


def test_files_go_there_and_back(tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.write_bytes(os.urandom(200_001))
    assert command("put", str(there), "/root/folder/file").returncode == 0
    assert command("get", "/root/folder/file", str(back)).returncode == 0
    assert back.read_bytes() == there.read_bytes()
    assert command("get", "/root/nothing", str(back)).returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "there"]


def test_the_log_tells_versions_and_what_the_console_said() -> None:
    log = command("log").stdout
    versions, _, _ = log.partition("<==\n")[2].partition("==>")
    assert json.loads(versions)
    assert "qemu-system-x86_64" in log


def on_a_terminal(*words: str, answer: bytes = b"") -> tuple[int, str]:
    """Status and output of a command that has a terminal, where `answer` is typed at the first prompt."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"XENVIRTIO_LAB": NAME}
    argv = [*PROGRAM, *words]
    with subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        said = b""
        while select.select([ours], [], [], TERMINAL_LIMIT)[0]:
            try:
                said += os.read(ours, 4096)
            except OSError:  # EIO: nobody holds the other end any more
                break
            if answer and said.endswith(b"# "):
                os.write(ours, answer)
                answer = b""
        else:
            process.kill()
        status = process.wait(LIMIT)
    os.close(ours)
    return status, said.decode(errors="replace")


def test_a_shell_is_one_in_dom0() -> None:
    status, said = on_a_terminal("shell", answer=b"xl info virt_caps; exit 3\n")
    assert (status, "pv" in said) == (3, True), said


def test_the_console_of_no_guest_is_told() -> None:
    status, said = on_a_terminal("console", "nobody")
    assert status not in (0, -9), said
    assert "nobody" in said


def test_a_lab_that_is_down_is_told_from_a_command_that_fails() -> None:
    assert command("down").returncode == 0
    done = command("run", "--", "true")
    assert done.returncode == 125
    assert f"xenvirtio lab up --name {NAME}" in done.stderr
