"""A kernel module for the lab's kernel, built on the host, in the image's Debian: faster than in the lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.errors import LabError
from xenvirtio.lab.host import Host
from xenvirtio.lab.paths import locked

if TYPE_CHECKING:
    from pathlib import Path

    from xenvirtio.lab.image import Image

_FOLDER = "var/tmp/module"
#: $1: the kernel's release
_BUILD = f"""
make -C /lib/modules/$1/build M=/{_FOLDER} -j"$(nproc)" modules
strip -g /{_FOLDER}/*.ko
chmod 644 /{_FOLDER}/*.ko
"""


def build(image: Image, sources: Path, limit: float = 240.0) -> bytes:
    """The module that the folder's Kbuild names, without debugging data. Raises LabError, TimeLimit."""
    host = Host(image.folder / "module.log")
    folder = image.tree / _FOLDER
    with locked(image.tree_lock, "the Debian tree of the lab", limit=600):
        host.run(["rm", "-rf", str(folder)], limit=20, what="remove an older module", root=True)
        host.run(["cp", "-r", str(sources), str(folder)], limit=20, what="copy the module", root=True)
        host.chroot(image.tree, _BUILD, image.kernel, limit=limit, what=f"build the module in {sources}")
        modules = list(folder.glob("*.ko"))
        if len(modules) != 1:
            names = ", ".join(path.name for path in modules)
            raise LabError(f"{sources}/Kbuild makes not one module, but: {names or 'none'}")
        return modules[0].read_bytes()
