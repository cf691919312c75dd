"""Commands in a lab's dom0: run, with a lost machine told from a failed command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.errors import LabLost, TimeLimit
from xenvirtio.lab import machine
from xenvirtio.lab.dom0.protocol import Kind
from xenvirtio.lab.paths import lab_command, newest
from xenvirtio.lab.results import Completed, shown
from xenvirtio.lab.session import Session
from xenvirtio.lab.terminal import interact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: seconds within which the agent answers, on a busy machine
ANSWER_LIMIT = 30.0


def run(
    folder: Path,
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    cwd: str = "/root",
    on_output: Callable[[Kind, bytes], None] | None = None,
    stdin_from: int | None = None,
) -> Completed:
    """Runs a command to its end; see `Lab.run`."""
    collected: dict[Kind, list[bytes]] = {Kind.STDOUT: [], Kind.STDERR: []}
    sink = on_output or (lambda kind, data: collected[kind].append(data))
    try:
        with Session(folder, ANSWER_LIMIT) as session:
            session.start(argv, dict(environment or {}), cwd, None)
            if stdin_from is None:
                session.send_input(stdin)
                if stdin:
                    session.send_input(b"")
            try:
                status = session.stream(sink, timeout=timeout, stdin=stdin_from)
            except TimeLimit as error:
                message = f"in dom0, {shown(argv)} did not end within {timeout:.0f} s"
                raise TimeLimit(message, hint=lab_command(folder, "shell")) from error
    except LabLost as lost:
        raise explained(folder, lost) from lost
    except TimeLimit:
        _check_answers(folder)
        raise
    out, err = (b"".join(collected[kind]).decode(errors="replace") for kind in (Kind.STDOUT, Kind.STDERR))
    return Completed(tuple(argv), status, out, err)


def interactive(folder: Path, argv: Sequence[str]) -> int:
    """Runs a command on our terminal; returns its status. Raises LabLost, UsageError without a terminal."""
    try:
        with Session(folder, ANSWER_LIMIT) as session:
            return interact(session, argv)
    except LabLost as lost:
        raise explained(folder, lost) from lost


def explained(folder: Path, lost: LabLost) -> LabLost:
    """With what QEMU or the console said last, if there was a machine and it has ended."""
    boot = newest(folder / "boots")
    if boot is None or machine.find(folder) is not None:
        return lost
    return LabLost(f"{lost.message}: {machine.why_ended(boot)}", hint=lost.hint)


def _check_answers(folder: Path) -> None:
    """After a time limit: LabLost if the machine does not answer at all any more."""
    try:
        Session(folder, limit=10).close()
    except TimeLimit as error:
        raise LabLost(
            "the lab's machine does not answer any more", hint=lab_command(folder, "log")
        ) from error
