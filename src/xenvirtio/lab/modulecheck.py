"""The guest module's static checks, on a release's own kernel headers: W=1, sparse, checkpatch --strict.

They run in a Debian tree of their own: sparse brings LLVM, checkpatch the kernel's source, and dom0's image
needs neither.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from xenvirtio.lab import debian, prune
from xenvirtio.lab.bootstrap import bootstrap
from xenvirtio.lab.host import Host
from xenvirtio.lab.paths import Cache, locked

if TYPE_CHECKING:
    from pathlib import Path

    from xenvirtio.lab.stages import Progress

PACKAGES = ("linux-headers-amd64", "linux-source", "gcc", "make", "sparse", "perl", "xz-utils")
_MODULE = "root/module"
#: checkpatch.pl and its lists, out of the kernel's source, once
_CHECKPATCH = """
[ -e /root/checkpatch/scripts/checkpatch.pl ] && exit 0
mkdir -p /root/checkpatch
cd /usr/src
tar -xf linux-source-*.tar.xz -C /root/checkpatch --strip-components=1 --wildcards \
    '*/scripts/checkpatch.pl' '*/scripts/spelling.txt' '*/scripts/const_structs.checkpatch'
rm -f linux-source-*.tar.xz
"""
_CHECK = f"CHECKPATCH=/root/checkpatch/scripts/checkpatch.pl sh /{_MODULE}/check.sh /lib/modules/*/build"


def check(cache: Cache, name: str, module: Path, progress: Progress) -> str:
    """What check.sh said; `module` is the folder guest/linux.

    Raises UsageError for an unknown release, LabError if a check is not clean, TimeLimit.
    """
    release = debian.release(name)
    key = hashlib.sha256(" ".join((*PACKAGES, _CHECKPATCH)).encode()).hexdigest()[:12]
    folder = cache.trees / f"modulecheck-{release.name}-{key}"
    tree = folder / "tree"
    host = Host(folder / "build.log")
    with locked(cache.trees / f"modulecheck-{release.name}.lock", "the tree for module checks", limit=600):
        if not (folder / "complete").exists():
            for old in cache.trees.glob(f"modulecheck-{release.name}*/"):
                prune.remove_tree(old)
            folder.mkdir(parents=True)
            with progress.stage(f"Install Debian {release.name}'s kernel headers and checkers", 420) as stage:
                bootstrap(host, folder, release, PACKAGES, stage.left)
                host.chroot(tree, _CHECKPATCH, limit=stage.left, what="unpack checkpatch")
                (folder / "complete").touch()
        with progress.stage(f"Check the guest module against {release.name}'s kernel", 240) as stage:
            host.run(["rm", "-rf", str(tree / _MODULE)], limit=20, what="remove old sources", root=True)
            copy = ["cp", "-r", str(module), str(tree / _MODULE)]
            host.run(copy, limit=20, what="copy the module's sources", root=True)
            return host.chroot(tree, _CHECK, limit=stage.left, what="check the guest module")
