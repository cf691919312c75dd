"""xenvirtio demo"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from xenvirtio.cli.options import output_option, release_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("demo")
@release_option
@click.option(
    "--memory-access", "-m", default="grant", help="The way to the guest's memory: grant or foreign."
)
@click.option(
    "--type",
    "-t",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Only guests of this type: pv, pvh or hvm. May be given again.",
)
@output_option("build/demo.json")
@click.option("--keep", is_flag=True, help="Leave the lab running, to look around.")
def app(release: str, memory_access: str, types: tuple[str, ...], output: Path, keep: bool) -> None:
    """Boot a real Xen, start PV, PVH and HVM guests with a virtio disk and NIC, and prove that they work.

    Needs no Xen, and no KVM. Exit status 0 only if every byte and packet was checked and right.
    """
    from xenvirtio.cli.results import ResultFile
    from xenvirtio.cli.signals import undo_when_ended
    from xenvirtio.errors import UsageError, XenvirtioError
    from xenvirtio.lab import Lab
    from xenvirtio.lab.demo import run
    from xenvirtio.lab.demo.report import report
    from xenvirtio.lab.guest import TYPES
    from xenvirtio.lab.paths import lab_command
    from xenvirtio.lab.stages import progress_for
    from xenvirtio.spec.xenbus import MemoryAccess

    modes = (MemoryAccess.GRANT, MemoryAccess.FOREIGN)
    if memory_access not in modes:
        raise UsageError(f"no memory access {memory_access!r}", hint=f"one of: {', '.join(modes)}")
    unknown = [kind for kind in types if kind not in TYPES]
    if unknown:
        raise UsageError(f"no guest type {unknown[0]!r}", hint=f"one of: {', '.join(TYPES)}")
    undo_when_ended()
    file = ResultFile(output)
    progress = progress_for(sys.stderr)
    lab = Lab(f"demo-{release}", release, progress=progress)
    try:
        result = run(lab, tuple(dict.fromkeys(types)) or TYPES, memory_access, progress)
    except XenvirtioError:
        progress.note(f"Its logs: {lab_command(lab.folder, 'log')}; with --keep, the lab stays up")
        raise
    finally:
        if not keep:
            lab.down()
    print(report(result))
    file.write(result.as_json())
    if not result.ok:
        sys.exit(1)
