"""xenvirtio destroy"""

from __future__ import annotations

import click

from xenvirtio.cli.options import guest_argument


@click.command("destroy")
@guest_argument
def app(guest: str) -> None:
    """Stop a guest at once, as pulling the plug does, and remove what served its virtio devices.

    Data that the guest has not flushed is lost; `xl shutdown GUEST` lets it end by itself.
    A guest that reboots at this moment does not come back.
    """
    from xenvirtio.cli.output import say
    from xenvirtio.toolstack.create import destroy
    from xenvirtio.toolstack.local import local_toolstack

    with local_toolstack(say) as toolstack:
        gone = destroy(guest, toolstack)
    say(f"guest {gone.name} (domain {gone.domid}) is gone")
