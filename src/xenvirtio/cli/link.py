"""xenvirtio link"""

from __future__ import annotations

import sys

import click


@click.command("link")
@click.argument("guest", metavar="GUEST", help="Its name, domain number or UUID.")
@click.argument("device", metavar="DEV", help="eth0, eth1, …")
@click.argument("link", type=click.Choice(["up", "down"]), metavar="up|down")
@click.option("--persist", is_flag=True, help="It is so after the guest's reboot, too.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=30, metavar="SECONDS", help="Limit for the daemon."
)
def app(guest: str, device: str, link: str, persist: bool, timeout: float) -> None:
    """Put the link of a guest's NIC up or down, as plugging in its cable or pulling it.

    The guest sees no carrier while it is down, nor does the bridge.
    """
    from xenvirtio.cli.signals import undo_when_ended
    from xenvirtio.toolstack.link import set_link
    from xenvirtio.toolstack.local import local_toolstack

    undo_when_ended()
    with local_toolstack(_say) as toolstack:
        set_link(guest, device, link, toolstack, timeout, persist=persist)
    _say(f"the link of {device} is {link}")


def _say(line: str) -> None:
    print(f"xenvirtio: {line}", file=sys.stderr, flush=True)
