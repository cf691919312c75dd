"""xenvirtio link"""

from __future__ import annotations

import click

from xenvirtio.cli.options import guest_argument, timeout_option


@click.command("link")
@guest_argument
@click.argument("device", metavar="DEV", help="eth0, eth1, …")
@click.argument("link", type=click.Choice(["up", "down"]), metavar="up|down")
@click.option("--persist", is_flag=True, help="It is so after the guest's reboot, too.")
@timeout_option(30, "Limit for the daemon.")
def app(guest: str, device: str, link: str, persist: bool, timeout: float) -> None:
    """Put the link of a guest's NIC up or down, as plugging in its cable or pulling it.

    The guest sees no carrier while it is down, nor does the bridge.
    """
    from xenvirtio.cli.output import say
    from xenvirtio.cli.signals import undo_when_ended
    from xenvirtio.toolstack.hotplug.link import set_link
    from xenvirtio.toolstack.local import local_toolstack

    undo_when_ended()
    with local_toolstack(say) as toolstack:
        set_link(guest, device, link, toolstack, timeout, persist=persist)
    say(f"the link of {device} is {link}")
