"""How every command of ours looks to typer."""

from __future__ import annotations

from typing import Any

import typer


def command_app(**settings: Any) -> typer.Typer:
    """An empty application: plain help texts, -h, no completion options, tracebacks as Python prints them."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        **settings,
    )
