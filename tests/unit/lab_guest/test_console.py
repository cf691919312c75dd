"""console.py against the guest's own agent script, over two ptys and a wire that can be cut through.

Console — pty — wire — pty — agent
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import threading
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING

import pytest

from xenvirtio.lab.guest import console as console_module
from xenvirtio.lab.guest.console import Console, ConsoleGone, ConsoleLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Guest:
    """The agent as it runs in a guest, and the wire to it; `spoil` may change what the guest says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        self._ours, near = pty.openpty()
        self.terminal = os.ttyname(near)
        self._near = near  # open, as xenconsoled keeps it
        self._theirs, self._far = pty.openpty()
        self._stop, self._stopped = os.pipe()
        self._agent: subprocess.Popen[bytes] | None = None
        self._wire = threading.Thread(target=self._run)
        self._wire.start()

    def boot(self) -> None:
        script = str(resources.files("xenvirtio.lab.guest").joinpath("agent"))
        self._agent = subprocess.Popen(
            ["sh", script, str(self.folder)], stdin=self._far, stdout=self._far, stderr=subprocess.DEVNULL
        )

    def say(self, text: bytes) -> None:
        """What the guest's kernel prints."""
        os.write(self._far, text)

    def end(self) -> None:
        """Everything goes away, as when a domain is destroyed."""
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
            self._agent = None
        if self._wire.is_alive():
            os.close(self._stopped)
            self._wire.join()
            for fd in (self._ours, self._near, self._theirs, self._far, self._stop):
                os.close(fd)

    def _run(self) -> None:
        while True:
            ready = select.select([self._ours, self._theirs, self._stop], [], [])[0]
            if self._stop in ready:
                return
            with suppress(OSError):
                if self._ours in ready:
                    os.write(self._theirs, os.read(self._ours, 4096))
                if self._theirs in ready:
                    os.write(self._ours, self.spoil(os.read(self._theirs, 4096)))


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = Guest(tmp_path)
    yield made
    made.end()


@pytest.fixture
def text() -> list[str]:
    return []


@pytest.fixture
def console(guest: Guest, text: list[str]) -> Iterator[Console]:
    guest.boot()
    with Console(guest.terminal, text.append) as made:
        made.wait_ready(20)
        yield made


def test_output_and_status_come_back(console: Console) -> None:
    assert console.run("echo hello; echo error >&2; exit 7", 10) == (7, b"hello\nerror\n")


def test_output_may_be_binary_empty_or_without_a_line_end(console: Console) -> None:
    assert console.run(r"printf '\000\377\r\n\t x'", 10) == (0, b"\x00\xff\r\n\t x")
    assert console.run("true", 10) == (0, b"")


def test_long_commands_and_outputs_pass(console: Console) -> None:
    words = " ".join(f"word{number}" for number in range(1500))
    assert console.run(f"echo {words}; seq 3000", 20)[1].decode().split() == [
        *words.split(),
        *map(str, range(1, 3001)),
    ]


def test_a_command_that_takes_too_long_is_killed_and_the_next_one_is_answered(console: Console) -> None:
    status, output = console.run("echo before; exec sleep 50", 1)
    assert (status, output.splitlines()[0]) == (137, b"before")  # some shells add "Killed"
    assert console.run("echo after", 10) == (0, b"after\n")


def test_commands_do_not_read_the_console(console: Console) -> None:
    assert console.run("cat", 10) == (0, b"")


def test_a_guest_that_boots_late_is_waited_for(guest: Guest, text: list[str]) -> None:
    guest.say(b"[    0.000000] Linux version\n")
    with Console(guest.terminal, text.append) as console:
        booting = threading.Timer(1.5, guest.boot)
        booting.start()
        assert console.wait_ready(20) >= 1.0
        booting.join()
        assert console.run("echo up", 10) == (0, b"up\n")
    assert "[    0.000000] Linux version" in text


def test_an_answer_that_the_kernel_cut_through_is_given_again_and_the_command_ran_once(
    guest: Guest, console: Console
) -> None:
    cuts: list[bytes] = []

    def cut_once(data: bytes) -> bytes:
        place = data.find(b"xv! ")
        if cuts or place < 0:
            return data
        cuts.append(data)
        return data[: place + 20] + b"[   9.1] kernel: cut\n" + data[place + 20 :]

    guest.spoil = cut_once
    assert console.run(f"echo x >>{guest.folder}/runs; seq 100", 10)[1].split()[-1] == b"100"
    assert cuts
    assert (guest.folder / "runs").read_text() == "x\n"


def test_a_changed_digit_is_noticed(guest: Guest, console: Console) -> None:
    spoiled: list[bytes] = []

    def change_once(data: bytes) -> bytes:
        if spoiled or b" 1 " not in data:
            return data
        spoiled.append(data)
        return data.replace(b"aGVsbG8", b"aGVsbG9")

    guest.spoil = change_once
    assert console.run("printf hello", 10) == (0, b"hello")
    assert spoiled


def test_a_silent_guest_is_a_time_limit_which_names_what_was_waited_for(guest: Guest) -> None:
    with (
        Console(guest.terminal, lambda _: None) as console,
        pytest.raises(ConsoleLimit, match="the guest's console to answer after boot"),
    ):
        console.wait_ready(1.5)


def test_a_guest_that_ends_is_gone(guest: Guest, console: Console) -> None:
    guest.end()
    with pytest.raises(ConsoleGone, match="the guest has ended"):
        console.run("echo hello", 1)


def test_a_second_opener_is_refused(guest: Guest, console: Console) -> None:
    assert console
    with pytest.raises(ConsoleGone, match="in use"):
        Console(guest.terminal, lambda _: None)


def test_a_console_that_is_not_there_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ConsoleGone, match="No such file"):
        Console(str(tmp_path / "none"), lambda _: None)


def test_wrong_arguments_get_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert console_module.main(["guest"]) == 2
    assert "usage" in capsys.readouterr().err
