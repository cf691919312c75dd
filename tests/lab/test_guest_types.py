"""PVH and HVM guests over XenBus: the proofs of the demo in short form; `make matrix` has every kind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab.lab_rig import traces, traces_after
from xenvirtio.lab.demo.show import SHORT, Show
from xenvirtio.lab.stages import progress_for
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from xenvirtio.lab import Lab
    from xenvirtio.lab.guest import Backend


#: beside the session's own guests
NUMBER = 20


@pytest.mark.parametrize(("kind", "access"), [("pvh", MemoryAccess.FOREIGN), ("hvm", MemoryAccess.GRANT)])
def test_disk_and_nic_carry_data_both_ways_and_the_data_stay(
    lab: Lab, backend: Backend, kind: str, access: str
) -> None:
    before = traces(lab)
    progress = progress_for(sys.__stderr__ or sys.stderr)
    shown = Show(lab, backend, progress, f"t-{kind}-{access}", kind, access, NUMBER, SHORT).run()
    assert (shown.type, shown.memory_access, shown.transport) == (kind, access, "xenbus")
    assert shown.reached_as_it_says, shown.backend
    assert shown.disk.ok, shown.disk
    assert shown.nic.ok, shown.nic
    assert traces_after(lab, before) == before
