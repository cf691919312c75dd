"""xenvirtio destroy"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from xenvirtio.cli.app import command_app

app = command_app()


@app.command()
def destroy(
    guest: Annotated[str, typer.Argument(metavar="GUEST", help="Its name or domain number.")],
) -> None:
    """Stop a guest at once, as pulling the plug does, and remove what served its virtio devices.

    Data that the guest has not flushed is lost; `xl shutdown GUEST` lets it end by itself.
    """
    from xenvirtio.toolstack.create import destroy as destroy_guest
    from xenvirtio.toolstack.local import local_toolstack

    with local_toolstack(lambda line: print(f"xenvirtio: {line}", file=sys.stderr)) as toolstack:
        domain = destroy_guest(guest, toolstack)
    print(f"xenvirtio: guest {domain.name} (domain {domain.domid}) is gone", file=sys.stderr)
