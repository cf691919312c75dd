"""The host's terminal, given to a command in dom0."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import tty
from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError
from xenvirtio.lab.session import Session, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from xenvirtio.lab.dom0.protocol import Kind


def interact(session: Session, argv: Sequence[str]) -> int:
    """Runs a command on a terminal in dom0 that mirrors ours; returns its status. UsageError without one."""
    if not (os.isatty(0) and os.isatty(1)):
        raise UsageError(
            "this needs a terminal", hint="for a command without one: xenvirtio lab run -- COMMAND"
        )
    columns, rows = os.get_terminal_size(0)
    session.start(argv, {}, "/root", Terminal(rows, columns, os.environ.get("TERM", "linux")))

    def resized() -> None:
        os.read(wake, 64)
        columns, rows = os.get_terminal_size(0)
        session.resize(rows, columns)

    with _raw(), _window_changes() as wake:
        return session.stream(_show, timeout=None, stdin=0, wake=wake, on_wake=resized)


def _show(_kind: Kind, data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Every key goes to the other side; the terminal is as before at the end."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _window_changes() -> Iterator[int]:
    """A descriptor that becomes readable when our window changes its size."""
    read, write = os.pipe()
    os.set_blocking(write, False)

    def changed(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(write, b"!")

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield read
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(read)
        os.close(write)
