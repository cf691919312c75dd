"""Stability under load, in its short form: PV, PVH and HVM guests side by side for 2 minutes.

`make soak` is the long one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from xenvirtio.lab.soak import Plan, run
from xenvirtio.lab.soak.report import report
from xenvirtio.lab.stages import progress_for

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend

MINUTES = 2


@pytest.mark.timeout(1500)
def test_nothing_is_lost_said_or_leaked_under_load(lab: Lab, backend: Backend) -> None:
    assert backend.pid() > 0
    result = run(lab, Plan.of(MINUTES, "pv,pvh,hvm", "grant"), progress_for(sys.__stderr__ or sys.stderr))
    print(report(result))
    assert result.ok, report(result)
    assert [guest.type for guest in result.guests] == ["pv", "pvh", "hvm"]
    for guest in result.guests:
        assert guest.disk.bytes_verified == guest.disk.bytes_written > 0
        assert min(guest.tcp.to_guest, guest.tcp.from_guest) > 0
