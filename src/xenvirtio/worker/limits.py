"""How much of the supervisor a guest can have, and how long things may take."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """All in one place, so that tests can be quick."""

    steps_per_second: float = 20.0
    """state walks of a guest's devices, refilled to `steps_burst`: a guest that flaps waits, others do not"""
    steps_burst: float = 100.0
    devices_per_guest: int = 256
    order_seconds: float = 30.0
    """a worker that has not carried out an order by then is killed (and started again)"""
    retry_seconds: float = 1.0
    """after XenStore failed; and, at first, after what a connected device serves could not be opened"""
    retry_seconds_max: float = 30.0
    report_seconds: float = 3.0
    """for all workers to report: less than `status.QUERY_SECONDS`, after which nobody waits any more"""
    gone_seconds: float = 1.0
    """for a worker to let go of a guest that is gone"""
    stop_seconds: float = 5.0
    """for all workers when the daemon stops"""
    restarts: int = 5
    """of one guest's worker within `restart_window` seconds"""
    restart_window: float = 60.0
    restart_delay: float = 0.1
    """before the first; doubled for each more"""


class Bucket:
    """A token bucket."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._at = burst, time.monotonic()

    def take(self) -> bool:
        """True if there was a token."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    @property
    def wait(self) -> float:
        """Seconds until there is a token."""
        return max(0.0, (1 - self._tokens) / self._rate)
