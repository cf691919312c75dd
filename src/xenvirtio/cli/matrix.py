"""xenvirtio lab matrix"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from xenvirtio.cli.options import output_option


@click.command("matrix")
@click.option("--release", "-r", "releases", multiple=True, help="Only this one; may be given again.")
@output_option("build/matrix.json")
@click.option(
    "--document", "-d", type=click.Path(path_type=Path, exists=True), help="Rewrite the table in this file."
)
def app(releases: tuple[str, ...], output: Path, document: Path | None) -> None:
    """Show every guest type with every memory access on every Xen, in short form.

    Exit status 0 only if every cell is right.
    """
    from xenvirtio.cli.results import ResultFile
    from xenvirtio.errors import UsageError
    from xenvirtio.lab import debian
    from xenvirtio.lab.matrix import rewrite, run
    from xenvirtio.lab.matrix.table import around, table
    from xenvirtio.lab.stages import progress_for

    if releases and document is not None:
        raise UsageError(
            "the document's table is of every release", hint="without --release, or without --document"
        )
    for release in releases:
        debian.release(release)
    if document is not None:
        around(document)
    file = ResultFile(output)
    cells = run(releases or tuple(debian.RELEASES), progress_for(sys.stderr))
    file.write([cell.as_json() for cell in cells])
    print(table(cells), end="")
    if document is not None:
        rewrite(document, cells)
    if not all(cell.ok for cell in cells):
        sys.exit(1)
