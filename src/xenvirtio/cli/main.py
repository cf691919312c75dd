"""The command xenvirtio. Commands are imported when they are used, so that --help is quick.

Exit status: 0 done, 1 it could not be done, 2 the user's mistake, 3 the lab was lost, 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from xenvirtio.cli.app import command_app
from xenvirtio.errors import XenvirtioError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130

#: command → (its module in this package, what it does); the module has a typer `app`
COMMANDS = {
    "create": ("create", "Start a guest whose vd… disks and model=virtio NICs are virtio devices."),
    "list": ("list", "Show the guests that have virtio devices, and how these are."),
    "destroy": ("destroy", "Stop a guest at once, as pulling the plug does."),
    "daemon": ("daemon", "Serve the virtio devices of all guests."),
    "lab": ("lab", "A real Xen on a machine that has none."),
    "demo": ("demo", "Show a guest with virtio devices in the lab, and prove that they work."),
    "doctor": ("doctor", "Check this machine, and name the package for each missing thing."),
}
#: commands that xenvirtio itself starts
HIDDEN = {"lifecycle": ("lifecycle", "Attend a guest until it is gone.")}


class Commands(TyperGroup):
    """Knows all commands by name and summary; imports the one that is called, and reports how it failed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (_, summary) in (COMMANDS | HIDDEN).items():
            self.commands[name] = TyperCommand(name, help=summary, hidden=name in HIDDEN)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the order of the table, not of the alphabet
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        module, _ = (COMMANDS | HIDDEN)[str(name)]
        app = import_module(f"xenvirtio.cli.{module}").app
        command = typer.main.get_command(app)
        command.name = name
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except XenvirtioError as error:
            report(error)
            raise typer.Exit(error.exit_status) from None
        except KeyboardInterrupt:
            print("xenvirtio: interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = command_app(cls=Commands, no_args_is_help=True)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"xenvirtio {version('xenvirtio')}")
        raise typer.Exit


@app.callback()
def xenvirtio_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Standard virtio devices for every kind of Xen guest."""


def report(error: XenvirtioError) -> None:
    """Message and hint, for people."""
    print(f"xenvirtio: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  try: {error.hint}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status."""
    try:
        app(arguments, prog_name="xenvirtio")
    except Exception:
        traceback.print_exc()
        print("xenvirtio: this is a bug; please report it with the lines above", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
