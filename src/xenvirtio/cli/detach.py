"""xenvirtio detach"""

from __future__ import annotations

import click

from xenvirtio.cli.options import guest_argument, timeout_option


@click.command("detach")
@guest_argument
@click.argument("device", metavar="DEV", help="vda, eth0, …")
@click.option("--force", is_flag=True, help="Take it from a guest that uses it or does not answer.")
@click.option("--persist", is_flag=True, help="It does not come back when the guest reboots.")
@timeout_option(30, "Limit for the guest to let it go.")
def app(guest: str, device: str, force: bool, persist: bool, timeout: float) -> None:
    """Take a virtio disk or NIC from a guest that runs.

    The guest is asked to let it go. If a disk is in use there (unmount it), or the guest does not follow in
    time, it keeps the device, and the command fails; with --force the device is taken away, and what was not
    written is lost. A device that is not there is no error.

    A device of the guest's configuration, or one that was attached with --persist, comes back when the guest
    reboots, unless it is detached with --persist.
    """
    from xenvirtio.cli.output import say
    from xenvirtio.cli.signals import undo_when_ended
    from xenvirtio.toolstack.hotplug.detach import DetachOptions, detach
    from xenvirtio.toolstack.local import local_toolstack

    undo_when_ended()
    with local_toolstack(say) as toolstack:
        detach(guest, device, toolstack, DetachOptions(timeout, force, persist))
