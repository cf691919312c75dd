"""xenvirtio attach"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command("attach")
@click.argument("guest", metavar="GUEST", help="Its name, domain number or UUID.")
@click.argument(
    "entry",
    nargs=-1,
    required=True,
    metavar="DISKSPEC|VIFSPEC",
    help="An entry of disk=[…] or vif=[…]; it may come as several words.",
)
@click.option("--persist", is_flag=True, help="It is there after the guest's reboot, too.")
@click.option("--wait/--no-wait", default=True, help="Wait until the guest has connected it.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=60,
    metavar="SECONDS",
    help="Limit for backend and guest, each.",
)
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
    from xenvirtio.cli.signals import undo_when_ended
    from xenvirtio.toolstack.attach import AttachOptions, attach
    from xenvirtio.toolstack.local import local_toolstack

    undo_when_ended()
    with local_toolstack(_say) as toolstack:
        done = attach(guest, entry, toolstack, AttachOptions(timeout, wait, persist))
    state = "has" if done.connected else "will find"
    _say(f"guest {done.domain.name} {state} {done.device.vdev}")


def _say(line: str) -> None:
    print(f"xenvirtio: {line}", file=sys.stderr, flush=True)
