"""xenvirtio create"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from xenvirtio.cli.options import timeout_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.toolstack.xl import Domain


@click.command("create")
@click.argument(
    "configuration",
    type=click.Path(path_type=Path),
    metavar="guest.cfg",
    help="The guest's configuration, as for xl create.",
)
@click.argument(
    "settings",
    nargs=-1,
    metavar="[key=value]...",
    help="More settings, as further lines of the configuration: memory=512 'name=\"other\"'.",
)
@click.option("--console", "-c", is_flag=True, help="Connect this terminal to the guest's console.")
@click.option("--paused", "-p", is_flag=True, help="Plug the devices, but leave the guest paused.")
@click.option("--wait/--no-wait", default=True, help="Wait until the guest has connected its devices.")
@timeout_option(60, "Limit for backend and guest, each.")
def app(
    configuration: Path, settings: Sequence[str], console: bool, paused: bool, wait: bool, timeout: float
) -> None:
    """Start a guest whose vd… disks and model=virtio NICs are virtio devices.

    The configuration is an xl configuration (xl.cfg(5)). These lines of it are virtio devices; all else
    goes to xl as it is written:

    \b
      disk = [ 'file:/srv/disk.img,vda,w', 'phy:/dev/vg/data,vdb,r' ]
      disk = [ 'format=raw, vdev=vda, access=rw, target=/srv/disk.img' ]
      vif = [ 'model=virtio,bridge=xenbr0' ]

    A disk is a raw image or a block device; it may say no-discard. A NIC may say mac=, bridge= (xenbr0),
    vifname= and mtu=. memory_access = "grant" (the default: the guest grants each page) or "foreign" (the
    backend maps the guest's memory) holds for all devices, or within an entry for one. map_cache = 256 is how
    many MiB each device may keep mapped in mode foreign (not in PV guests); 0: nothing.

    In an HVM guest, backend=qemu in an entry, or virtio_backend = "qemu" for all of them, has the guest's own
    QEMU serve it, to stock virtio-pci drivers. virtio_backend in /etc/xenvirtio/xenvirtio.toml holds for all
    HVM guests of this machine.

    Otherwise the guest's kernel needs the module virtio_xenbus. on_poweroff, on_reboot, on_crash,
    on_watchdog and (PVH) on_soft_reset work as with xl. If anything fails, or on ctrl-C, all is undone.
    """
    from xenvirtio.cli.output import say
    from xenvirtio.cli.signals import undo_when_ended
    from xenvirtio.toolstack.configuration.configuration import read
    from xenvirtio.toolstack.configuration.guest import guest_from
    from xenvirtio.toolstack.configuration.served import machine_backend
    from xenvirtio.toolstack.create import StartOptions, start
    from xenvirtio.toolstack.lifecycle import leave_watcher
    from xenvirtio.toolstack.local import local_toolstack
    from xenvirtio.toolstack.records import Record

    guest = guest_from(read(configuration, settings), machine_backend())
    for note in guest.notes:
        say(note)
    for warning in guest.warnings:
        say(f"warning: {warning}")
    undo_when_ended()
    with local_toolstack(say) as toolstack:

        def attend(domain: Domain) -> None:
            record = Record(guest, domain.domid, timeout)
            toolstack.records.save(record)
            leave_watcher(record)

        started = start(guest, toolstack, StartOptions(timeout, paused, wait, console), attend)
    state = "is paused" if paused else "runs"
    say(f"guest {guest.name} {state} as domain {started.domain.domid}")
    if started.console is not None:
        started.console.wait()
