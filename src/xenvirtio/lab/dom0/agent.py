"""The agent in the lab's dom0: runs commands for the host, one session a virtio-serial port.

Started before the snapshot is taken, it is what the host finds listening a moment after the snapshot is
restored. Standard library only: it runs on dom0's own Python.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from xenvirtio.lab.dom0 import protocol
from xenvirtio.lab.dom0.command import Command
from xenvirtio.lab.dom0.loop import Loop
from xenvirtio.lab.dom0.protocol import Kind

#: stop reading a command's output while this many bytes wait for the host
OUTPUT_HIGH = 256 * 1024


class Port:
    """One virtio-serial port and the session on it."""

    def __init__(self, loop: Loop, fd: int) -> None:
        """Serves a port's open, non-blocking descriptor."""
        self.loop = loop
        self._fd = fd
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

    def _start(self, request: dict[str, Any]) -> None:
        """Starts a command; statuses as a shell has them: 127 no such command, 126 cannot run it."""
        try:
            self._command = Command(self, request)
        except OSError as error:
            self.send(protocol.encode(Kind.STDERR, f"{error.filename}: {error.strerror}\n".encode()))
            self.ended({"status": 127 if isinstance(error, FileNotFoundError) else 126})

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
                self._start(protocol.decode_json(body))
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
    # A shell starts its background jobs with these ignored, and commands would inherit that.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    loop = Loop()
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
    ports = [Port(loop, os.open(path, flags)) for path in _ports()]
    print(f"agent: serving {len(ports)} ports", file=sys.stderr, flush=True)
    loop.run()
