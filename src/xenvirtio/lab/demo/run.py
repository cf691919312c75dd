"""The demo, from nothing to every guest's proofs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from xenvirtio.lab.demo.results import DemoResult
from xenvirtio.lab.demo.show import Show
from xenvirtio.lab.guest.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.lab import Lab
    from xenvirtio.lab.stages import Progress

#: guests at a time: more than the host's processors have time for would only wait for each other
SIDE_BY_SIDE = 2


def run(lab: Lab, types: Sequence[str], memory_access: str, progress: Progress) -> DemoResult:
    """Shows a guest of each type; brings the lab up first.

    Raises XenvirtioError from the stage that failed.
    """
    start = time.monotonic()
    lab.up()
    ready = time.monotonic()
    with progress.stage("Start the xenvirtio daemon in dom0", limit=30):
        backend = Backend(lab)
        backend.start()
    here = facts(lab)
    shows = [
        Show(lab, backend, progress, f"demo-{kind}", kind, memory_access, number)
        for number, kind in enumerate(types)
    ]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:  # the last first: HVM guests take longest
        try:
            guests = tuple(pool.map(Show.run, reversed(shows)))[::-1]
        except (KeyboardInterrupt, SystemExit):
            lab.down()  # else the pool waits for what the other guests are about
            raise
    total = time.monotonic() - start
    status = lab.status()
    return DemoResult(
        xen=here["xen"],
        dom0_kernel=here["kernel"],
        accelerator=status.accelerator or "unknown",
        qemu=status.qemu or "unknown",
        seconds={
            "setup": ready - start,
            "boot": max(guest.seconds["boot"] for guest in guests),
            "total": total,
        },
        guests=guests,
    )


def facts(lab: Lab) -> dict[str, str]:
    """Versions in dom0: of Xen and of the kernel."""
    script = "xl info xen_version; uname -r"
    xen, kernel = lab.run(script).check().stdout.split()
    return {"xen": xen, "kernel": kernel}
