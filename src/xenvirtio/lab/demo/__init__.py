"""The demo: guests of each type in the lab, their disks and NICs, and the proofs that these work."""

from xenvirtio.lab.demo.results import DemoResult
from xenvirtio.lab.demo.run import run

__all__ = ["DemoResult", "run"]
