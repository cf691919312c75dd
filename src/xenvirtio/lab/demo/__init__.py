"""The demo: a PV guest in the lab, its disk and NIC served by xenvirtio, and the proofs that they work."""

from xenvirtio.lab.demo.results import DemoResult
from xenvirtio.lab.demo.run import run

__all__ = ["DemoResult", "run"]
