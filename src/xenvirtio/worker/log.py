"""One line a message on stderr: with journald's priority where journald reads it, with the time elsewhere."""

from __future__ import annotations

import logging
import os
import sys

from xenvirtio.worker.limits import Bucket

#: logging level → syslog priority (sd-daemon(3))
PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}

#: lines about one guest or device: at once, and then one in so many seconds
BURST = 30
SECONDS = 10.0
#: whose lines are counted; more begin anew
SUBJECTS_MAX = 4096


class JournalFormatter(logging.Formatter):
    """`<4>message`, newlines escaped: what a guest can name must not begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{PRIORITIES.get(record.levelno, 6)}>{_one_line(super().format(record))}"


class PlainFormatter(logging.Formatter):
    """`2026-01-31 12:00:00 warning message`."""

    def format(self, record: logging.LogRecord) -> str:
        time = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{time} {record.levelname.lower()} {_one_line(super().format(record))}"


class FloodFilter(logging.Filter):
    """Of each subject (a message's first argument: a guest, or a device of one) BURST lines at once, then one
    every SECONDS; it tells how many were left out. A guest must not fill dom0's disk. Errors are counted
    apart: what a guest causes at will is none.
    """

    def __init__(self, burst: int = BURST, seconds: float = SECONDS) -> None:
        super().__init__()
        self._burst, self._rate = burst, 1 / seconds
        self._buckets: dict[tuple[str, bool], Bucket] = {}
        self._left_out: dict[tuple[str, bool], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not isinstance(record.args, tuple) or not record.args:
            return True
        subject = str(record.args[0]), record.levelno >= logging.ERROR
        if len(self._buckets) >= SUBJECTS_MAX:
            self._buckets.clear()
            self._left_out.clear()
        if not self._buckets.setdefault(subject, Bucket(self._rate, self._burst)).take():
            self._left_out[subject] = self._left_out.get(subject, 0) + 1
            return False
        if more := self._left_out.pop(subject, 0):
            record.msg, record.args = f"{record.msg} (%d more were left out)", (*record.args, more)
        return True


def _one_line(text: str) -> str:
    return text.strip().replace("\n", " | ")


def start_logging(level: str) -> None:
    """Sends everything at or above `level` (debug, info, warning, error) to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(FloodFilter())
    handler.setFormatter(JournalFormatter() if os.environ.get("JOURNAL_STREAM") else PlainFormatter())
    logging.basicConfig(level=getattr(logging, level.upper()), handlers=[handler], force=True)
