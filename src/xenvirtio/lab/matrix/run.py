"""Shows every cell, one lab after the other; a cell that fails does not stop the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.errors import XenvirtioError
from xenvirtio.lab import Lab, debian
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
    """The cells of each Debian release, in order. A lab that is lost fails its own."""
    return [cell for release in releases for cell in _of_release(release, progress)]


def _of_release(release: str, progress: Progress) -> list[Cell]:
    wanted = [(kind, access) for kind in TYPES for access in ACCESSES]
    cells: list[Cell] = []
    try:
        with Lab(f"matrix-{release}", release, progress=progress) as lab:
            backend = Backend(lab)
            backend.start()
            here = facts(lab)
            shows = [
                Show(lab, backend, progress, f"{kind}-{access}", kind, access, number, SHORT)
                for number, (kind, access) in enumerate(wanted)
            ]
            cells += (_cell(show, here) for show in shows)
    except XenvirtioError as error:  # a cell's own errors are in the cell
        progress.note(f"the lab of {release}: {error.message}")
        xen, left = debian.release(release).xen, wanted[len(cells) :]
        cells += (Cell.failed(xen, "unknown", kind, access, error) for kind, access in left)
    return cells


def _cell(show: Show, here: dict[str, str]) -> Cell:
    try:
        return Cell.shown(here["xen"], show.run(), show.memory_access)
    except XenvirtioError as error:
        return Cell.failed(here["xen"], here["kernel"], show.type, show.memory_access, error)
