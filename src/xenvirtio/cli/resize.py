"""xenvirtio resize"""

from __future__ import annotations

import click

from xenvirtio.cli.options import guest_argument, timeout_option


@click.command("resize", context_settings={"ignore_unknown_options": True})
@guest_argument
@click.argument("device", metavar="DEV", help="vda, vdb, …")
@click.argument(
    "size", required=False, metavar="[SIZE]", help="2G, +512M, or bytes; without: what the image has now."
)
@click.option("--shrink", is_flag=True, help="SIZE may be less than now: what is behind it is lost.")
@timeout_option(30, "Limit for the daemon.")
def app(guest: str, device: str, size: str | None, shrink: bool, timeout: float) -> None:
    """Change the size of a disk that a guest uses; the guest sees it at once.

    With SIZE the image file grows. Units are powers of 1024; + adds to the size. A block device has its own
    size: change that (lvextend), then run this without SIZE.

    The file system in the guest stays as it is: make it larger after (resize2fs, xfs_growfs), or smaller
    before.
    """
    from xenvirtio.cli.output import amount, say
    from xenvirtio.cli.signals import undo_when_ended
    from xenvirtio.toolstack.hotplug.resize import resize
    from xenvirtio.toolstack.local import local_toolstack

    undo_when_ended()
    with local_toolstack(say) as toolstack:
        done = resize(guest, device, size, toolstack, timeout, shrink=shrink)
    say(f"{done.vdev} has {done.after} bytes ({amount(done.after)}); before: {done.before}")
