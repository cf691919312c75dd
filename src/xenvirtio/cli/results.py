"""The file that a long command leaves: one run's result, whole, or none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xenvirtio.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


class ResultFile:
    """JSON in a file. An older run's is removed at once: it must not pass for this one's."""

    def __init__(self, path: Path) -> None:
        """Makes its folder. Raises UsageError."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}", hint="--output FILE") from error

    def write(self, value: Any) -> None:
        """Who looks finds all of it or nothing. Raises OSError."""
        part = self.path.with_name(f".{self.path.name}.part")
        part.write_text(json.dumps(value, indent=2) + "\n")
        part.replace(self.path)
        print(f"Written to {self.path}")
