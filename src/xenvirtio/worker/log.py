"""One line a message on stderr: with journald's priority where journald reads it, with the time elsewhere."""

from __future__ import annotations

import logging
import os
import sys

#: logging level → syslog priority (sd-daemon(3))
PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class JournalFormatter(logging.Formatter):
    """`<4>message`, newlines escaped: what a guest can name must not begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{PRIORITIES.get(record.levelno, 6)}>{_one_line(super().format(record))}"


class PlainFormatter(logging.Formatter):
    """`2026-01-31 12:00:00 warning message`."""

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{time} {record.levelname.lower()} {_one_line(super().format(record))}"


def _one_line(text: str) -> str:
    return text.strip().replace("\n", " | ")


def start_logging(level: str) -> None:
    """Sends everything at or above `level` (debug, info, warning, error) to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter() if os.environ.get("JOURNAL_STREAM") else PlainFormatter())
    logging.basicConfig(level=getattr(logging, level.upper()), handlers=[handler], force=True)
