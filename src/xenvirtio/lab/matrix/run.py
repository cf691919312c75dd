"""Shows every cell, one lab after the other; a cell that fails does not stop the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.errors import XenvirtioError
from xenvirtio.lab import Lab
from xenvirtio.lab.demo.run import facts
from xenvirtio.lab.demo.show import SHORT, Show
from xenvirtio.lab.guest import TYPES, Backend
from xenvirtio.lab.matrix.cells import Cell
from xenvirtio.spec.xenbus import MemoryAccess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.lab.stages import Progress

ACCESSES = (MemoryAccess.GRANT, MemoryAccess.FOREIGN)


def run(releases: Sequence[str], progress: Progress) -> list[Cell]:
    """The cells of each Debian release, in order. Raises XenvirtioError if a lab does not come up."""
    cells = []
    for release in releases:
        with Lab(f"matrix-{release}", release, progress=progress) as lab:
            cells += _of_lab(lab, progress)
    return cells


def _of_lab(lab: Lab, progress: Progress) -> list[Cell]:
    backend = Backend(lab)
    backend.start()
    here = facts(lab)

    def cell(number: int, kind: str, access: str) -> Cell:
        show = Show(lab, backend, progress, f"{kind}-{access}", kind, access, number, SHORT)
        try:
            return Cell.shown(here["xen"], show.run(), access)
        except XenvirtioError as error:
            return Cell.failed(here["xen"], here["kernel"], kind, access, error)

    wanted = [(kind, access) for kind in TYPES for access in ACCESSES]
    return [cell(number, *each) for number, each in enumerate(wanted)]
