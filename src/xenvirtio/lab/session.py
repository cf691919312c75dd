"""The host's end of an agent session: runs one command in dom0 and moves its streams."""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from xenvirtio.errors import LabError, LabLost, TimeLimit
from xenvirtio.lab import qemu
from xenvirtio.lab.dom0 import protocol
from xenvirtio.lab.dom0.protocol import Kind
from xenvirtio.lab.paths import lab_command
from xenvirtio.lab.sockets import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: stop reading our stdin while this many bytes wait for the port
_OUTPUT_HIGH = 1 << 20
#: seconds after which an unanswered greeting is sent again; the agent takes the same one twice
GREET_AGAIN = 3.0


@dataclass(frozen=True)
class Terminal:
    """A terminal for the command: its size in characters and its kind ($TERM)."""

    rows: int
    columns: int
    term: str


class Session:
    """One port of the lab's machine, held until closed; a context manager."""

    def __init__(self, folder: Path, limit: float) -> None:
        """Takes a free port and greets the agent.

        Raises LabLost if the machine is not there, TimeLimit if the agent does not answer within `limit`
        seconds, LabError if every port is taken.
        """
        self._folder = folder
        self._lock, number = _take_port(folder)
        self._decoder = protocol.Decoder()
        self._output = bytearray()
        try:
            self._socket = connect(folder, qemu.port(number))
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._socket.setblocking(False)
            self._greet(limit)
        except BaseException:
            self.close()
            raise

    def _greet(self, limit: float) -> None:
        nonce = secrets.token_hex(8)
        # The leading delimiter ends a frame that a session before us may have left unfinished.
        hello = b"\xc0" + protocol.encode_json(Kind.HELLO, {"nonce": nonce, "version": protocol.VERSION})
        self._output += hello
        deadline = time.monotonic() + limit
        again = time.monotonic() + GREET_AGAIN
        while True:
            if again <= time.monotonic() < deadline:
                # An emulated dom0 once slept through the event of a port that was just reopened.
                self._output += hello
                again = time.monotonic() + GREET_AGAIN
            for kind, body in self._exchange(deadline, "the agent in dom0 to answer", until=again):
                if kind == Kind.HELLO:
                    answer = protocol.decode_json(body)
                    if answer.get("nonce") == nonce:
                        if answer.get("version") != protocol.VERSION:
                            raise LabError(
                                "the lab's agent is of another version", hint=lab_command(self._folder, "up")
                            )
                        return

    def start(self, argv: Sequence[str], environment: dict[str, str], cwd: str, tty: Terminal | None) -> None:
        """Starts a command; `stream` follows it."""
        request: dict[str, Any] = {"argv": list(argv), "env": environment, "cwd": cwd}
        if tty is not None:
            request["tty"] = {"rows": tty.rows, "columns": tty.columns, "term": tty.term}
        self._output += protocol.encode_json(Kind.EXEC, request)

    def send_input(self, data: bytes) -> None:
        """Queues bytes for the command's stdin; none: its end."""
        if not data:
            self._output += protocol.encode(Kind.STDIN)
        for start in range(0, len(data), protocol.CHUNK):
            self._output += protocol.encode(Kind.STDIN, data[start : start + protocol.CHUNK])

    def send_signal(self, number: int) -> None:
        """Queues a signal for the command's process group."""
        self._output += protocol.encode_json(Kind.SIGNAL, {"number": number})

    def resize(self, rows: int, columns: int) -> None:
        """Queues the terminal's new size."""
        self._output += protocol.encode_json(Kind.RESIZE, {"rows": rows, "columns": columns})

    def stream(
        self,
        on_output: Callable[[Kind, bytes], None],
        *,
        timeout: float | None,
        stdin: int | None = None,
        wake: int | None = None,
        on_wake: Callable[[], None] | None = None,
    ) -> int:
        """Follows the command to its end; returns its exit status, 128 + n for signal n.

        `stdin` is a descriptor of ours whose bytes go to the command; `on_wake` is called when `wake` is
        readable. Raises LabLost if the machine goes away, TimeLimit after `timeout` seconds, LabError if
        the command could not be started.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            extra = [
                fd for fd in (stdin if len(self._output) < _OUTPUT_HIGH else None, wake) if fd is not None
            ]
            ready: list[int] = []
            for kind, body in self._exchange(deadline, "the command to end", extra, ready):
                if kind in (Kind.STDOUT, Kind.STDERR):
                    on_output(kind, body)
                elif kind == Kind.EXIT:
                    return _status(protocol.decode_json(body))
            if stdin is not None and stdin in ready:
                data = os.read(stdin, 65536)
                self.send_input(data)
                if not data:
                    stdin = None
            if wake in ready and on_wake is not None:
                on_wake()

    def _exchange(
        self,
        deadline: float | None,
        waited_for: str,
        extra: Sequence[int] = (),
        ready: list[int] | None = None,
        until: float | None = None,
    ) -> list[tuple[Kind, bytes]]:
        """Waits until something moves, or until `until`; returns what came from the agent."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._output else 0))
        for fd in extra:
            poll.register(fd, select.POLLIN)
        ends = [end for end in (deadline, until) if end is not None]
        left = max(0.0, min(ends) - time.monotonic()) if ends else None
        events = dict(poll.poll(None if left is None else left * 1000 + 1))
        if not events and deadline is not None and time.monotonic() >= deadline:
            raise TimeLimit(f"waited in vain for {waited_for}")
        if ready is not None:
            ready += [fd for fd in extra if fd in events]
        flags = events.get(self._socket.fileno(), 0)
        try:
            if flags & select.POLLOUT and self._output:
                del self._output[: self._socket.send(self._output[:65536])]
            if flags & (select.POLLIN | select.POLLHUP | select.POLLERR):
                data = self._socket.recv(65536)
                if not data:
                    raise LabLost("the lab's machine went away", hint=lab_command(self._folder, "log"))
                return self._decoder.feed(data)
        except BlockingIOError:
            pass
        except OSError as error:
            raise LabLost(
                f"the lab's machine went away ({error.strerror})", hint=lab_command(self._folder, "log")
            ) from error
        return []

    def close(self) -> None:
        """Lets go of the port; a command that still runs is killed by the agent."""
        self._socket.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _take_port(folder: Path) -> tuple[int, int]:
    """A lock's descriptor and the number of the port that it stands for."""
    for number in range(protocol.PORTS):
        try:
            fd = os.open(folder / f"{qemu.port(number)}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise LabLost("the lab's machine is not there", hint=lab_command(folder, "up")) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        return fd, number
    raise LabError(f"{protocol.PORTS} commands run in this lab already", hint="wait for one of them to end")


def _status(how: dict[str, Any]) -> int:
    if "error" in how:
        raise LabError(f"the command could not be started: {how['error']}")
    if "signal" in how:
        return 128 + int(how["signal"])
    return int(how["status"])
