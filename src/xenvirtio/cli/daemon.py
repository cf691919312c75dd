"""xenvirtio daemon"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from xenvirtio.cli.app import command_app
from xenvirtio.worker.status import RUN_DIRECTORY

app = command_app()


class Level(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@app.command()
def daemon(
    run_dir: Annotated[
        Path, typer.Option(help="Where the lock, the status socket and the devices' state files are.")
    ] = RUN_DIRECTORY,
    log_level: Annotated[Level, typer.Option(help="Least severe messages to log.")] = Level.INFO,
) -> None:
    """Serve the virtio devices of all guests, in the foreground, until SIGTERM or Ctrl-C.

    Guests that are connected when it stops wait, and go on when it is started again. It logs to stderr, and
    tells systemd when it is ready.
    """
    from xenvirtio.worker.daemon import run_daemon

    run_daemon(run_dir, log_level.value)
