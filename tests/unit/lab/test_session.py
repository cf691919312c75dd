"""A session with a real agent, on this host: streams, statuses, limits, and what is left behind."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from xenvirtio.errors import LabError, LabLost, TimeLimit
from xenvirtio.lab.dom0 import protocol
from xenvirtio.lab.dom0.protocol import Kind
from xenvirtio.lab.session import Session, Terminal

if TYPE_CHECKING:
    from pathlib import Path


class Output:
    """Collects what a command writes."""

    def __init__(self) -> None:
        self.parts: dict[Kind, bytes] = {Kind.STDOUT: b"", Kind.STDERR: b""}

    def __call__(self, kind: Kind, data: bytes) -> None:
        self.parts[kind] += data


def run(folder: Path, script: str, stdin: bytes = b"", timeout: float = 20) -> tuple[int, bytes, bytes]:
    output = Output()
    with Session(folder, limit=10) as session:
        session.start(["sh", "-c", script], {}, str(folder), None)
        session.send_input(stdin)
        if stdin:
            session.send_input(b"")
        status = session.stream(output, timeout=timeout)
    return status, output.parts[Kind.STDOUT], output.parts[Kind.STDERR]


def test_output_and_status_of_a_command_come_back(agent_folder: Path) -> None:
    assert run(agent_folder, "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")


def test_a_signal_ends_a_command_with_128_and_its_number(agent_folder: Path) -> None:
    assert run(agent_folder, "kill -TERM $$")[0] == 128 + signal.SIGTERM


def test_a_command_that_is_not_there_ends_with_127(agent_folder: Path) -> None:
    with Session(agent_folder, limit=10) as session:
        session.start(["no-such-command"], {}, str(agent_folder), None)
        assert session.stream(Output(), timeout=10) == 127


def test_a_folder_that_is_not_there_ends_with_126_or_127(agent_folder: Path) -> None:
    with Session(agent_folder, limit=10) as session:
        session.start(["true"], {}, "/no/such/folder", None)
        assert session.stream(Output(), timeout=10) in (126, 127)


def test_every_byte_goes_through_in_both_directions(agent_folder: Path) -> None:
    data = os.urandom(6 << 20)
    status, out, _ = run(agent_folder, "cat", stdin=data)
    assert status == 0
    assert out == data


def test_a_command_that_closes_its_input_does_not_stop_the_session(agent_folder: Path) -> None:
    status, out, _ = run(agent_folder, "exec <&-; echo done", stdin=b"x" * (4 << 20))
    assert (status, out) == (0, b"done\n")


def test_no_input_is_an_end_of_file_at_once(agent_folder: Path) -> None:
    assert run(agent_folder, "cat; echo end")[1] == b"end\n"


def test_a_background_child_does_not_keep_the_session(agent_folder: Path) -> None:
    start = time.monotonic()
    status, out, _ = run(agent_folder, "sleep 20 & echo started")
    assert (status, out) == (0, b"started\n")
    assert time.monotonic() - start < 10


def test_a_command_over_its_time_limit_is_killed_with_its_children(agent_folder: Path) -> None:
    with pytest.raises(TimeLimit):
        run(agent_folder, "echo $$ >pid; sleep 30; true", timeout=1)
    pid = int((agent_folder / "pid").read_text())
    deadline = time.monotonic() + 10
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.05)


def test_environment_and_folder_are_the_ones_asked_for(agent_folder: Path) -> None:
    output = Output()
    with Session(agent_folder, limit=10) as session:
        session.start(["sh", "-c", "echo $WORD; pwd"], {"WORD": "given"}, "/", None)
        assert session.stream(output, timeout=10) == 0
    assert output.parts[Kind.STDOUT] == b"given\n/\n"


def test_a_terminal_has_the_size_asked_for_and_passes_keys(agent_folder: Path) -> None:
    output = Output()
    with Session(agent_folder, limit=10) as session:
        session.start(["sh", "-c", "stty size; read x; echo got $x"], {}, "/", Terminal(31, 97, "vt100"))
        session.send_input(b"key\n")
        assert session.stream(output, timeout=10) == 0
    assert b"31 97" in output.parts[Kind.STDOUT]
    assert b"got key" in output.parts[Kind.STDOUT]


def test_a_signal_reaches_the_command(agent_folder: Path) -> None:
    with Session(agent_folder, limit=10) as session:
        session.start(["sleep", "20"], {}, "/", None)
        session.send_signal(signal.SIGINT)
        assert session.stream(Output(), timeout=10) == 128 + signal.SIGINT


def test_several_commands_run_at_once(agent_folder: Path) -> None:
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(run(agent_folder, f"sleep 0.3; echo {n}")[1]))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == [b"0\n", b"1\n", b"2\n", b"3\n"]


def test_a_session_after_a_dead_one_sees_nothing_of_it(agent_folder: Path) -> None:
    with Session(agent_folder, limit=10) as session:
        session.start(["yes", "old"], {}, "/", None)
        with pytest.raises(TimeLimit):
            session.stream(lambda _kind, _data: None, timeout=0.3)
    assert run(agent_folder, "echo new")[1] == b"new\n"


def test_a_request_that_makes_no_sense_is_an_error_and_the_agent_lives(agent_folder: Path) -> None:
    with Session(agent_folder, limit=10) as session:
        session.start([], {}, "/", None)
        with pytest.raises(LabError):
            session.stream(Output(), timeout=10)
    assert run(agent_folder, "echo alive")[1] == b"alive\n"


def test_no_machine_is_a_lost_lab(tmp_path: Path) -> None:
    with pytest.raises(LabLost):
        Session(tmp_path, limit=1)
    with pytest.raises(LabLost):
        Session(tmp_path / "nothing", limit=1)


def test_a_machine_that_goes_away_during_a_command_is_a_lost_lab(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "agent.0"))
    listener.listen()

    def machine() -> None:
        connection, _ = listener.accept()
        (_, body), *_ = protocol.Decoder().feed(connection.recv(4096))
        connection.sendall(protocol.encode_json(Kind.HELLO, protocol.decode_json(body)))
        connection.recv(4096)
        connection.close()

    thread = threading.Thread(target=machine)
    thread.start()
    try:
        with Session(tmp_path, limit=5) as session:
            session.start(["true"], {}, "/", None)
            with pytest.raises(LabLost):
                session.stream(Output(), timeout=10)
    finally:
        thread.join(5)
        listener.close()


def test_an_agent_that_does_not_answer_is_a_time_limit(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.0"))
        listener.listen()
        with pytest.raises(TimeLimit, match="agent"):
            Session(tmp_path, limit=0.3)


def test_a_port_in_use_is_passed_over_and_given_back(agent_folder: Path) -> None:
    sessions = [Session(agent_folder, limit=10) for _ in range(4)]
    for session in sessions:
        session.close()
    with Session(agent_folder, limit=10):
        assert sorted(path.name for path in agent_folder.glob("*.lock")) == [
            f"agent.{n}.lock" for n in range(4)
        ]
