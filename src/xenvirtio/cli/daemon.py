"""xenvirtio daemon"""

from __future__ import annotations

from pathlib import Path

import click

from xenvirtio.worker.status import RUN_DIRECTORY


@click.command("daemon")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    default=RUN_DIRECTORY,
    help="Where the lock, the status socket and the devices' state files are.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="Least severe messages to log.",
)
def app(run_dir: Path, log_level: str) -> None:
    """Serve the virtio devices of all guests, in the foreground, until SIGTERM or Ctrl-C.

    Guests that are connected when it stops wait, and go on when it is started again. It logs to stderr, and
    tells systemd when it is ready.
    """
    from xenvirtio.worker.daemon import run_daemon

    run_daemon(run_dir, log_level)
