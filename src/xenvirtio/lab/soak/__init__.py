"""Stability under load: guests side by side, disk and network busy at once, and everything checked.

from xenvirtio.lab.soak import Plan, run
"""

from xenvirtio.lab.soak.results import Plan, SoakResult
from xenvirtio.lab.soak.soak import run

__all__ = ["Plan", "SoakResult", "run"]
