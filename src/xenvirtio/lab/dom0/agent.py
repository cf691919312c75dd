"""The agent in the lab's dom0: runs commands for the host, one session a virtio-serial port.

Started before the snapshot is taken, it is what the host finds listening a moment after the snapshot is restored.
Standard library only: it runs on dom0's own Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xenvirtio.lab.dom0 import protocol
from xenvirtio.lab.dom0.protocol import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

#: stop reading a pipe while this many bytes wait for the host (back-pressure up to the command)
OUTPUT_HIGH = 256 * 1024
#: stop reading the port while this many bytes wait for the command's stdin
INPUT_HIGH = 1 << 20


class Loop:
    """An epoll loop: one callback a file descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}

    def add(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run(self) -> None:
        while True:
            for fd, events in self._epoll.poll():
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback(events)


class Command:
    """A running command: its process and the near ends of its streams."""

    def __init__(self, port: Port, request: dict[str, Any]) -> None:
        self._port = port
        self._loop = port.loop
        self._input = bytearray()
        self._input_ends = False
        self._outputs: dict[int, Kind] = {}
        self._stdin = -1
        self._paused = False
        self.tty = request.get("tty")
        argv = [str(word) for word in request["argv"]]
        environment = {**os.environ, **{str(k): str(v) for k, v in (request.get("env") or {}).items()}}
        directory = str(request.get("cwd") or "/root")
        self.pid = self._start_on_tty(argv, environment, directory) if self.tty else self._start(
            argv, environment, directory
        )
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add(self._pidfd, select.EPOLLIN, self._on_exit)
        for fd in self._outputs:
            os.set_blocking(fd, False)
            self._loop.add(fd, select.EPOLLIN, lambda _events, fd=fd: self._on_output(fd))  # type: ignore[misc]

    def _start(self, argv: list[str], environment: dict[str, str], directory: str) -> int:
        in_r, in_w = os.pipe()
        out_r, out_w = os.pipe()
        err_r, err_w = os.pipe()
        for fd in (in_w, out_r, err_r):
            os.set_inheritable(fd, False)
        self._stdin = in_w
        os.set_blocking(in_w, False)
        self._outputs = {out_r: Kind.STDOUT, err_r: Kind.STDERR}
        pid = os.fork()
        if pid == 0:
            for near, far in ((in_r, 0), (out_w, 1), (err_w, 2)):
                os.dup2(near, far)
            _become(argv, environment, directory)
        for fd in (in_r, out_w, err_w):
            os.close(fd)
        return pid

    def _start_on_tty(self, argv: list[str], environment: dict[str, str], directory: str) -> int:
        assert self.tty is not None
        near, far = os.openpty()
        _set_size(near, self.tty)
        environment["TERM"] = str(self.tty.get("term") or "linux")
        pid = os.fork()
        if pid == 0:
            os.login_tty(far)
            _become(argv, environment, directory, new_session=False)
        os.close(far)
        self._stdin = near
        self._outputs = {near: Kind.STDOUT}
        return pid

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
            os.killpg(self.pid, number)

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
        self._close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

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
            self._loop.add(self._stdin, select.EPOLLOUT, lambda _events: self._write_input())
        else:
            self._loop.remove(self._stdin)
            if self._input_ends:
                os.close(self._stdin)
                self._stdin = -1
        self._port.input_drained()

    def _on_output(self, fd: int) -> bool:
        """Passes on what one read gives; false if there was nothing."""
        if self.tty and self._input:
            self._write_input()
        try:
            data = os.read(fd, protocol.CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # the last process let go of the terminal
            data = b""
        if data:
            self._port.send(protocol.encode(self._outputs[fd], data))
            return True
        self._loop.remove(fd)
        if not self.tty:
            os.close(fd)
            del self._outputs[fd]
        return False

    def _on_exit(self, _events: int) -> None:
        """The command's own process ended: what it wrote is passed on; what its children still hold is not awaited."""
        _pid, status = os.waitpid(self.pid, 0)
        for fd in list(self._outputs):
            while self._on_output(fd):
                pass
        self._close()
        code = os.waitstatus_to_exitcode(status)
        self._port.ended({"status": code} if code >= 0 else {"signal": -code})

    def _close(self) -> None:
        for fd in {self._pidfd, self._stdin, *self._outputs} - {-1}:
            self._loop.remove(fd)
            os.close(fd)
        self._outputs = {}
        self._stdin = -1


class Port:
    """One virtio-serial port and the session on it."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self.loop = loop
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._decoder = protocol.Decoder()
        self._output = bytearray()
        self._command: Command | None = None
        # Edges only: a port without a host is always "hung up", and would be reported without end.
        loop.add(self._fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET, self._on_event)

    def send(self, frame: bytes) -> None:
        self._output += frame
        self._flush()

    def ended(self, how: dict[str, Any]) -> None:
        self._command = None
        self.send(protocol.encode_json(Kind.EXIT, how))

    def input_drained(self) -> None:
        """The command took input: there may be more on the port, whose edge has passed."""
        if self._command is not None and not self._command.input_full:
            self._read()

    def _on_event(self, events: int) -> None:
        if events & select.EPOLLHUP:
            self._reset()
        self._flush()
        self._read()

    def _reset(self) -> None:
        self._output.clear()
        if self._command is not None:
            command, self._command = self._command, None
            command.end()

    def _flush(self) -> None:
        try:
            while self._output:
                del self._output[: os.write(self._fd, self._output[:32768])]
        except BlockingIOError:
            pass
        except OSError:
            self._output.clear()
        if self._command is not None:
            self._command.pause(len(self._output) > OUTPUT_HIGH)

    def _read(self) -> None:
        while not (self._command is not None and self._command.input_full):
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                return
            for kind, body in self._decoder.feed(data):
                self._handle(kind, body)

    def _handle(self, kind: Kind, body: bytes) -> None:
        try:
            if kind == Kind.HELLO:
                self._reset()
                nonce = protocol.decode_json(body).get("nonce")
                # The leading delimiter ends what a dead session left in the channel.
                self.send(b"\xc0" + protocol.encode_json(kind, {"nonce": nonce, "version": protocol.VERSION}))
            elif kind == Kind.EXEC:
                self._reset()
                self._command = Command(self, protocol.decode_json(body))
            elif self._command is None:
                return
            elif kind == Kind.STDIN:
                self._command.feed(body)
            elif kind == Kind.SIGNAL:
                self._command.signal(int(protocol.decode_json(body)["number"]))
            elif kind == Kind.RESIZE:
                self._command.resize(protocol.decode_json(body))
        except (OSError, KeyError, TypeError, ValueError) as error:
            self._reset()
            self.send(protocol.encode_json(Kind.EXIT, {"error": f"{type(error).__name__}: {error}"}))


def _become(argv: list[str], environment: dict[str, str], directory: str, new_session: bool = True) -> None:
    """In the child: becomes the command. Exit status 127: no such command, 126: cannot run, as a shell has it."""
    try:
        if new_session:
            os.setsid()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.closerange(3, 1024)
        os.chdir(directory)
        os.execvpe(argv[0], argv, environment)
    except FileNotFoundError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127)
    except BaseException as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
        os._exit(126)


def _set_size(fd: int, size: dict[str, Any]) -> None:
    rows, columns = int(size.get("rows") or 24), int(size.get("columns") or 80)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _ports(limit: float = 20.0) -> list[Path]:
    """The device nodes of our ports, by the names in sysfs: dom0 has no udev to link them."""
    wanted = {protocol.PORT_NAME.format(number) for number in range(protocol.PORTS)}
    deadline = time.monotonic() + limit
    while True:
        found = {}
        for entry in Path("/sys/class/virtio-ports").glob("vport*"):
            with contextlib.suppress(OSError):
                found[(entry / "name").read_text().strip()] = Path("/dev") / entry.name
        if wanted <= found.keys():
            return [found[name] for name in sorted(wanted)]
        if time.monotonic() > deadline:
            raise SystemExit(f"agent: after {limit:.0f} s only these ports: {sorted(found)}")
        time.sleep(0.1)


def main() -> None:
    """Serves every port until the machine goes away."""
    loop = Loop()
    ports = [Port(loop, path) for path in _ports()]
    print(f"agent: serving {len(ports)} ports", file=sys.stderr, flush=True)
    loop.run()
