"""A real Xen on a machine that has none: image, boot, snapshot, run.

from xenvirtio.lab import Lab
"""

from xenvirtio.lab.lab import Lab, all_labs, destroy_all
from xenvirtio.lab.results import Completed, Status

__all__ = ["Completed", "Lab", "Status", "all_labs", "destroy_all"]
