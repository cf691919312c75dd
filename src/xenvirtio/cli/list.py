"""xenvirtio list"""

from __future__ import annotations

import click

#: seconds between the tables of --watch
WATCH_SECONDS = 2.0


@click.command("list")
@click.argument("guest", required=False)
@click.option(
    "--interval",
    "-i",
    type=click.FloatRange(min=0.1, max=3600),
    metavar="SECONDS",
    help="Rates over so many seconds from now, instead of the last 5 to 10.",
)
@click.option("--watch", "-w", is_flag=True, help="Again and again, until interrupted; every 2 s by default.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, counters included, as JSON.")
def app(guest: str | None, interval: float | None, watch: bool, as_json: bool) -> None:
    """Show the guests that have virtio devices, or GUEST, and how these are.

    One line a device: its guest, how it is reached (transport, memory access), the state of both sides, bytes
    and requests a second into the guest and out of it, and all bytes since the device was opened. A table on
    a terminal, plain columns otherwise; --json tells more (docs/guide.md has its keys).
    """
    from xenvirtio.cli.output import print_devices, print_json
    from xenvirtio.toolstack.local import local_rows

    seconds = interval or (WATCH_SECONDS if watch else 0)
    while True:
        rows = local_rows(guest, seconds)
        if as_json:
            print_json([row.as_json() for row in rows])
        else:
            print_devices(rows)
        if not watch:
            return
        print(flush=True)
