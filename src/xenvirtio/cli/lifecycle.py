"""xenvirtio lifecycle: what `create` leaves behind for each guest."""

from __future__ import annotations

import os
import time

import click


@click.command("lifecycle")
@click.argument("uuid", help="Of the guest.")
@click.argument("domid", type=int, help="The domain that the guest is now.")
def app(uuid: str, domid: int) -> None:
    """Attend a guest until it is gone: do what its on_poweroff, on_reboot … on_soft_reset say.

    `xenvirtio create` starts this for every guest; nobody else needs to.
    """
    from xenvirtio.toolstack.lifecycle import attend
    from xenvirtio.toolstack.local import local_toolstack

    with local_toolstack(_log) as toolstack:
        os.chdir("/")  # it would keep the folder's file system mounted
        record = toolstack.records.load(uuid)
        if record is None or record.domid != domid:
            _log(f"domain {domid} is not remembered as guest {uuid}: nothing to attend")
            return
        attend(record, toolstack)


def _log(line: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)
