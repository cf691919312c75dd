"""A real Xen on a machine that has none: image, boot, snapshot, run.

    from xenvirtio.lab import Lab
"""

from xenvirtio.lab.lab import Completed, Lab, Status, all_labs, destroy_all

__all__ = ["Completed", "Lab", "Status", "all_labs", "destroy_all"]
