"""The matrix: every Xen and kernel, guest type and memory access, with the demo's proofs in short form."""

from xenvirtio.lab.matrix.cells import Cell
from xenvirtio.lab.matrix.run import run
from xenvirtio.lab.matrix.table import rewrite

__all__ = ["Cell", "rewrite", "run"]
