"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

guest_argument = click.argument("guest", metavar="GUEST", help="Its name, domain number or UUID.")

release_option = click.option(
    "--release",
    "-r",
    default="trixie",
    help="trixie (Xen 4.20, Linux 6.12) or bookworm (Xen 4.17, Linux 6.1).",
)


def timeout_option(default: float, what: str) -> Decorator:
    """--timeout SECONDS, of which `what` tells people what it limits."""
    return click.option(
        "--timeout", type=click.FloatRange(min=1), default=default, metavar="SECONDS", help=what
    )


def output_option(default: str) -> Decorator:
    """--output FILE: where a `ResultFile` goes."""
    return click.option(
        "--output",
        "-o",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path(default),
        help="Where the results go, as JSON.",
    )
