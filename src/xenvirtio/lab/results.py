"""What the lab answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from xenvirtio.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path


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
            raise LabError(f"in dom0, {' '.join(self.argv)!r} ended with status {self.returncode}: {said}")
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
