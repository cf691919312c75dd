"""xenvirtio attach"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xenvirtio.cli.options import guest_argument, timeout_option

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command("attach")
@guest_argument
@click.argument(
    "entry",
    nargs=-1,
    required=True,
    metavar="DISKSPEC|VIFSPEC",
    help="An entry of disk=[…] or vif=[…]; it may come as several words.",
)
@click.option("--persist", is_flag=True, help="It is there after the guest's reboot, too.")
@click.option("--wait/--no-wait", default=True, help="Wait until the guest has connected it.")
@timeout_option(60, "Limit for backend and guest, each.")
def app(guest: str, entry: Sequence[str], persist: bool, wait: bool, timeout: float) -> None:
    """Give a guest that runs another virtio disk or NIC.

    The device is described as in the guest's configuration:

    \b
      xenvirtio attach web format=raw,vdev=vdb,access=rw,target=/srv/data.img
      xenvirtio attach web phy:/dev/vg/data,vdb,w
      xenvirtio attach web model=virtio,bridge=xenbr0

    A NIC gets the next free name (eth0, eth1, …), and an address if it says none. It works for every guest
    whose kernel has the module virtio_xenbus, also for those that plain `xl create` started. If anything
    fails, or on ctrl-C, nothing of the device stays.

    Without --persist the device is gone when the guest reboots. --persist needs a guest that
    `xenvirtio create` started.
    """
    from xenvirtio.cli.output import say
    from xenvirtio.cli.signals import undo_when_ended
    from xenvirtio.toolstack.hotplug.attach import AttachOptions, attach
    from xenvirtio.toolstack.local import local_toolstack

    undo_when_ended()
    with local_toolstack(say) as toolstack:
        done = attach(guest, entry, toolstack, AttachOptions(timeout, wait, persist))
    state = "has" if done.connected else "will find"
    say(f"guest {done.domain.name} {state} {done.device.vdev}")
