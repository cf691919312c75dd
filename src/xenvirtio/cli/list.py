"""xenvirtio list"""

from __future__ import annotations

import click


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, counters included, as JSON.")
def app(as_json: bool) -> None:
    """Show the guests that have virtio devices, and how these are.

    One line a device: its guest, how it is reached (transport, memory access), the state of both sides, and
    what is behind it, and the data that went into the guest and out of it. A table on a terminal, plain
    columns otherwise; --json tells more.
    """
    from xenvirtio.cli.output import print_devices, print_json
    from xenvirtio.toolstack.local import local_rows

    rows = local_rows()
    if as_json:
        print_json([row.as_json() for row in rows])
    else:
        print_devices(rows)
