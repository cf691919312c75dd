"""xenvirtio lab check-module"""

from __future__ import annotations

import os
import sys

import click

from xenvirtio.cli.options import release_option


@click.command("check-module")
@release_option
def app(release: str) -> None:
    """Check the guest module's sources: compiler warnings (W=1), sparse, checkpatch --strict.

    They are checked in a Debian of their own with that release's kernel headers, made at the first time; it
    needs no lab.
    """
    from xenvirtio.lab import modulecheck
    from xenvirtio.lab.paths import Cache
    from xenvirtio.lab.payload import Sources
    from xenvirtio.lab.stages import progress_for

    module = Sources.find(os.environ).root / "guest/linux"
    said = modulecheck.check(Cache.of(os.environ), release, module, progress_for(sys.stderr))
    print(said.rstrip("\n"))
