"""What the lab answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from xenvirtio.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


#: characters of a command in a message
SHOWN = 100


def shown(argv: Sequence[str]) -> str:
    """A command for a message: its words, or the first line of a shell's script, if need be cut off."""
    words = [word.strip() for word in argv]
    line, newline, _ = " ".join(words[2:] if words[:1] == ["sh"] else words).partition("\n")
    more = "…" if newline or len(line) > SHOWN else ""
    return f"{line[:SHOWN] + more!r}"


@dataclass(frozen=True)
class Completed:
    """A command that ran to its end in dom0."""

    argv: tuple[str, ...]
    returncode: int  # 128 + n if signal n ended it
    stdout: str
    stderr: str

    def check(self) -> Self:
        """Itself, if the command succeeded; raises LabError with what it said otherwise."""
        if self.returncode != 0:
            said = (self.stderr.strip() or self.stdout.strip())[-800:]
            raise LabError(f"in dom0, {shown(self.argv)} ended with status {self.returncode}: {said}")
        return self


@dataclass(frozen=True)
class Status:
    """How a lab is."""

    name: str
    running: bool
    answers: bool  # dom0's agent
    release: str | None
    accelerator: str | None
    qemu: str | None  # its version
    current: bool | None  # whether it runs the sources as they are now; None: not known
    folder: Path
    logs: Path | None  # of the newest boot
