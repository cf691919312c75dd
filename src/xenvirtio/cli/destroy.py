"""xenvirtio destroy"""

from __future__ import annotations

import sys

import click


@click.command("destroy")
@click.argument("guest", metavar="GUEST", help="Its name, domain number or UUID.")
def app(guest: str) -> None:
    """Stop a guest at once, as pulling the plug does, and remove what served its virtio devices.

    Data that the guest has not flushed is lost; `xl shutdown GUEST` lets it end by itself.
    """
    from xenvirtio.toolstack.create import destroy
    from xenvirtio.toolstack.local import local_toolstack

    with local_toolstack(lambda line: print(f"xenvirtio: {line}", file=sys.stderr)) as toolstack:
        domain = destroy(guest, toolstack)
    print(f"xenvirtio: guest {domain.name} (domain {domain.domid}) is gone", file=sys.stderr)
