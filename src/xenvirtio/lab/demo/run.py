"""The demo, from nothing to every guest's proofs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from xenvirtio.errors import XenvirtioError
from xenvirtio.lab.demo.results import DemoResult
from xenvirtio.lab.demo.show import Show
from xenvirtio.lab.guest.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.lab import Lab
    from xenvirtio.lab.demo.results import GuestResult
    from xenvirtio.lab.stages import Progress

#: guests at a time: while one boots, which is mostly its own processor's work, another's data moves, which
#: is mostly dom0's
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
    guests = _side_by_side(shows)
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


def _side_by_side(shows: Sequence[Show]) -> tuple[GuestResult, ...]:
    """In the shows' order. When one fails, those that run go on to their end, and no other one starts."""
    pool = ThreadPoolExecutor(max_workers=SIDE_BY_SIDE)
    running = [pool.submit(show.run) for show in shows]
    try:
        return tuple(each.result() for each in running)
    except XenvirtioError:
        pool.shutdown(cancel_futures=True)
        raise
    finally:  # ctrl-C waits for nobody: the lab goes down
        pool.shutdown(wait=False, cancel_futures=True)


def facts(lab: Lab) -> dict[str, str]:
    """Versions in dom0: of Xen and of the kernel."""
    script = "xl info xen_version; uname -r"
    xen, kernel = lab.run(script).check().stdout.split()
    return {"xen": xen, "kernel": kernel}
