"""Being ended from outside is as ctrl-C: what was begun is undone."""

from __future__ import annotations

import signal


def undo_when_ended() -> None:
    """From now on SIGTERM and SIGHUP raise SystemExit, unless somebody has decided otherwise."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _ended)


def _ended(number: int, _: object) -> None:
    raise SystemExit(128 + number)
