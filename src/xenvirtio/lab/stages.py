"""Stages: the steps of a long job, each with a name in plain words and a time limit.

    with progress.stage("Boot dom0", limit=120) as stage:
        stage.say("Xen is up")
        …
        stage.check()        # raises TimeLimit when the limit has passed

A stage that fails reports itself and lets the error through; what the error is about, and the next command,
are the error's own `message` and `hint`. `Lines` writes plain lines, `Live` draws on a terminal;
`progress_for` chooses.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from xenvirtio.errors import TimeLimit, XenvirtioError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


class Stage:
    """One running step. `limit` is in seconds, from its start."""

    def __init__(self, name: str, limit: float, say: Listener) -> None:
        self.name = name
        self.limit = limit
        self.started = time.monotonic()
        self._say = say

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds until the limit, at least 0."""
        return max(0.0, self.limit - self.seconds)

    def say(self, detail: str) -> None:
        """What is happening now, in a few words."""
        self._say(self, detail)

    def check(self, waited_for: str | None = None, hint: str | None = None) -> None:
        """Raises TimeLimit if the stage has used up its time."""
        if self.seconds > self.limit:
            what = waited_for or self.name
            raise TimeLimit(f"{self.name}: {what} did not come within {self.limit:.0f} s", hint)


class Listener(Protocol):
    """Called with what a stage says."""

    def __call__(self, stage: Stage, detail: str) -> None: ...


class Progress:
    """Runs stages and reports nothing: the base of those that do. Stages may overlap, in several threads."""

    @contextmanager
    def stage(self, name: str, limit: float) -> Iterator[Stage]:
        """One step; `limit` in seconds. Its waits use `stage.left`, or limits of their own.

        Raises TimeLimit in the end if it took longer in all.
        """
        stage = Stage(name, limit, self.said)
        self.begun(stage)
        try:
            yield stage
            if stage.seconds > limit:
                raise TimeLimit(f"{name} took {stage.seconds:.0f} s, longer than its limit of {limit:.0f} s")
        except BaseException as error:
            self.failed(stage, error)
            raise
        self.done(stage)

    def note(self, text: str) -> None:
        """One line that belongs to no stage."""

    def begun(self, stage: Stage) -> None:
        """A stage starts."""

    def said(self, stage: Stage, detail: str) -> None:
        """A stage says what it is doing."""

    def done(self, stage: Stage) -> None:
        """A stage ended well."""

    def failed(self, stage: Stage, error: BaseException) -> None:
        """A stage ended with an error, which goes on to the caller."""


class Lines(Progress):
    """One line when a stage ends, and one when it starts; for logs and pipes."""

    def __init__(self, file: TextIO) -> None:
        self._console = Console(
            file=file, highlight=False, soft_wrap=True, no_color=True, force_terminal=False
        )
        self._lock = threading.Lock()

    def _line(self, text: str) -> None:
        with self._lock:
            self._console.print(text, markup=False)

    def note(self, text: str) -> None:
        self._line(text)

    def begun(self, stage: Stage) -> None:
        self._line(f"… {stage.name} (at most {stage.limit:.0f} s)")

    def done(self, stage: Stage) -> None:
        self._line(f"✓ {stage.name}: {stage.seconds:.1f} s")

    def failed(self, stage: Stage, error: BaseException) -> None:
        self._line(f"✗ {stage.name}: {_why(error)} (after {stage.seconds:.1f} s)")


class Live(Progress):
    """A spinner with the running stages, and a line for each that ended; for terminals."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._running: dict[Stage, str] = {}
        self._status: Status | None = None

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def begun(self, stage: Stage) -> None:
        with self._lock:
            self._running[stage] = ""
            self._draw()

    def said(self, stage: Stage, detail: str) -> None:
        with self._lock:
            self._running[stage] = detail
            self._draw()

    def done(self, stage: Stage) -> None:
        self._end(stage, f"[green]✓[/] {escape(stage.name)} [dim]{stage.seconds:.1f} s[/]")

    def failed(self, stage: Stage, error: BaseException) -> None:
        self._end(stage, f"[red]✗[/] {escape(f'{stage.name}: {_why(error)}')} [dim]{stage.seconds:.1f} s[/]")

    def _end(self, stage: Stage, line: str) -> None:
        with self._lock:
            self._running.pop(stage, None)
            self._console.print(line, highlight=False)
            self._draw()

    def _draw(self) -> None:
        if not self._running:
            if self._status is not None:
                self._status.stop()
                self._status = None
            return
        running = self._running.items()
        text = escape("; ".join(f"{s.name}: {detail}" if detail else s.name for s, detail in running))
        if self._status is None:
            self._status = Status(text, console=self._console)
            self._status.start()
        else:
            self._status.update(text)


def progress_for(file: TextIO) -> Progress:
    """`Live` if the file is a terminal, `Lines` otherwise."""
    console = Console(file=file)
    return Live(console) if console.is_terminal else Lines(file)


def _why(error: BaseException) -> str:
    return error.message if isinstance(error, XenvirtioError) else f"{type(error).__name__}: {error}"
