"""xenvirtio lab soak"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import click

from xenvirtio.cli.options import output_option, release_option

if TYPE_CHECKING:
    from pathlib import Path


@click.command("soak")
@click.option(
    "--minutes", type=click.FloatRange(min=1), default=20, help="How long the guests are under load."
)
@click.option("--types", default="pv,pvh,hvm", help="Guests, side by side.")
@click.option(
    "--memory-access", "-m", default="grant", help="grant, foreign, or grant,foreign: a guest for each."
)
@release_option
@output_option("build/soak.json")
def app(minutes: float, types: str, memory_access: str, release: str, output: Path) -> None:
    """Put guests under load for long, and show that nothing is lost, said or leaked.

    fio (4 jobs, verified) and iperf3 (both ways) at once in each guest, in a lab of its own. Exit status 0
    only if every byte was right, no kernel warned, and nothing has grown.
    """
    from xenvirtio.cli.results import ResultFile
    from xenvirtio.errors import UsageError
    from xenvirtio.lab import Lab
    from xenvirtio.lab.soak import Plan, run
    from xenvirtio.lab.soak.report import report
    from xenvirtio.lab.stages import progress_for

    if not math.isfinite(minutes):
        raise UsageError(f"--minutes {minutes} is no time", hint="--minutes 20")
    plan = Plan.of(minutes, types, memory_access)
    file = ResultFile(output)
    progress = progress_for(sys.stderr)
    with Lab(f"soak-{release}", release, progress=progress) as lab:
        result = run(lab, plan, progress)
    print(report(result))
    file.write(result.as_json())
    if not result.ok:
        sys.exit(1)
