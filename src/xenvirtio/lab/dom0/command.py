"""A command that the agent runs: its process, its streams or terminal, its end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
from typing import IO, TYPE_CHECKING, Any, Protocol

from xenvirtio.lab.dom0 import protocol
from xenvirtio.lab.dom0.protocol import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from xenvirtio.lab.dom0.loop import Loop

#: `input_full` while this many bytes wait for the command's stdin
INPUT_HIGH = 1 << 20
#: reads of a stream after the command's end: a full pipe's worth, whatever its children go on writing
LAST_READS = 2 * 65536 // protocol.CHUNK


class Owner(Protocol):
    """Whom a command tells what it says and how it ends."""

    loop: Loop

    def send(self, frame: bytes) -> None:
        """Passes a frame to the host."""

    def ended(self, how: dict[str, Any]) -> None:
        """The command is over; `how` is the body of EXIT."""

    def input_drained(self) -> None:
        """The command took input."""


class Command:
    """A running command: its process and the near ends of its streams."""

    def __init__(self, owner: Owner, request: dict[str, Any]) -> None:
        """Starts what an EXEC frame asks for; raises OSError, KeyError, TypeError, ValueError."""
        self._owner = owner
        self._loop = owner.loop
        self._input = bytearray()
        self._input_ends = False
        self._paused = False
        self.tty = request.get("tty")
        argv = [str(word) for word in request["argv"]]
        if not argv:
            raise ValueError("no command")
        environment = {**os.environ, **{str(k): str(v) for k, v in (request.get("env") or {}).items()}}
        directory = str(request.get("cwd") or "/root")
        if self.tty:
            environment["TERM"] = str(self.tty.get("term") or "linux")
            self._process, near = _start_on_tty(argv, environment, directory, self.tty)
            self._stdin, self._outputs = near, {near: Kind.STDOUT}
        else:
            self._process = _start(argv, environment, directory)
            self._stdin, out, err = (_detached(end) for end in _pipes(self._process))
            self._outputs = {out: Kind.STDOUT, err: Kind.STDERR}
        for fd in {self._stdin, *self._outputs}:
            os.set_blocking(fd, False)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add(self._pidfd, select.EPOLLIN, self._on_exit)
        for fd in self._outputs:
            self._loop.add(fd, select.EPOLLIN, self._output_reader(fd))

    def feed(self, data: bytes) -> None:
        """Bytes for the command's stdin; none: the end."""
        if not data:
            self._input_ends = True
            if self.tty:  # a terminal has no end of file, only the character for it
                self._input += b"\x04"
        self._input += data
        self._write_input()

    def resize(self, size: dict[str, Any]) -> None:
        if self.tty:
            _set_size(self._stdin, size)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    @property
    def input_full(self) -> bool:
        return len(self._input) > INPUT_HIGH

    def pause(self, paused: bool) -> None:
        """Stops reading the command's output while the host is slow."""
        if paused != self._paused:
            self._paused = paused
            for fd in self._outputs:
                self._arm(fd)

    def end(self) -> None:
        """Kills the command's process group and lets go of everything."""
        self.signal(signal.SIGHUP)
        self.signal(signal.SIGKILL)
        self._close_streams()
        self._loop.remove(self._pidfd)
        self._loop.add(self._pidfd, select.EPOLLIN, self._reap)

    def _arm(self, fd: int) -> None:
        events = 0 if self._paused else select.EPOLLIN
        if fd == self._stdin and self._input:
            events |= select.EPOLLOUT
        self._loop.change(fd, events)

    def _write_input(self) -> None:
        if self._stdin < 0:
            self._input.clear()
            return
        try:
            while self._input:
                del self._input[: os.write(self._stdin, self._input[:65536])]
        except BlockingIOError:
            pass
        except OSError:  # the command closed its stdin
            self._input.clear()
            self._input_ends = True
        if self.tty:
            self._arm(self._stdin)
        elif self._input:
            self._loop.remove(self._stdin)
            self._loop.add(self._stdin, select.EPOLLOUT, self._on_writable)
        else:
            self._loop.remove(self._stdin)
            if self._input_ends:
                os.close(self._stdin)
                self._stdin = -1

    def _on_writable(self, _events: int) -> None:
        self._write_input()
        self._owner.input_drained()

    def _output_reader(self, fd: int) -> Callable[[int], None]:
        def ready(events: int) -> None:
            if events & select.EPOLLOUT:  # a terminal is both
                self._on_writable(events)
            if events & ~select.EPOLLOUT and fd in self._outputs:
                self._on_output(fd)

        return ready

    def _on_output(self, fd: int) -> bool:
        """Passes on what one read gives; false if there was nothing."""
        try:
            data = os.read(fd, protocol.CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # the last process let go of the terminal
            data = b""
        if data:
            self._owner.send(protocol.encode(self._outputs[fd], data))
            return True
        self._loop.remove(fd)
        if not self.tty:
            os.close(fd)
            del self._outputs[fd]
        return False

    def _on_exit(self, _events: int) -> None:
        """The command itself ended: what it wrote is passed on; its children are not waited for."""
        code = self._process.wait()
        for fd in list(self._outputs):
            for _ in range(LAST_READS):
                if not self._on_output(fd):
                    break
        self._close_streams()
        self._loop.remove(self._pidfd)
        os.close(self._pidfd)
        self._owner.ended({"status": code} if code >= 0 else {"signal": -code})

    def _reap(self, _events: int) -> None:
        self._loop.remove(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()

    def _close_streams(self) -> None:
        for fd in {self._stdin, *self._outputs} - {-1}:
            self._loop.remove(fd)
            os.close(fd)
        self._outputs = {}
        self._stdin = -1


def _start(argv: list[str], environment: dict[str, str], directory: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=directory, start_new_session=True
    )


def _start_on_tty(
    argv: list[str], environment: dict[str, str], directory: str, size: dict[str, Any]
) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and our end of the terminal that controls it."""
    near, far = os.openpty()
    try:
        _set_size(near, size)
        process = subprocess.Popen(
            argv,
            stdin=far,
            stdout=far,
            stderr=far,
            env=environment,
            cwd=directory,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
    except BaseException:
        os.close(near)
        raise
    finally:
        os.close(far)
    return process, near


def _take_terminal() -> None:
    """In the child, a session leader by now: makes its input its controlling terminal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdin, process.stdout, process.stderr


def _detached(end: IO[bytes]) -> int:
    """The descriptor of a pipe's end, no more owned by Python's file object."""
    fd = os.dup(end.fileno())
    end.close()
    return fd


def _set_size(fd: int, size: dict[str, Any]) -> None:
    rows, columns = int(size.get("rows") or 24), int(size.get("columns") or 80)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
