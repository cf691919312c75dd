"""The command xenvirtio. Commands are imported when they are used, so that --help is quick.

Exit status: 0 done, 1 it could not be done, 2 the user's mistake, 3 the lab was lost, 130 interrupted;
`lab run` passes its command's status on, and has 125 for everything that is not the command's.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from xenvirtio.cli.output import say
from xenvirtio.errors import XenvirtioError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130

#: command → what it does; the module of that name in this package has it as `app`
COMMANDS = {
    "create": "Start a guest whose vd… disks and model=virtio NICs are virtio devices.",
    "list": "Show the guests that have virtio devices, and how these are.",
    "destroy": "Stop a guest at once, as pulling the plug does.",
    "attach": "Give a guest that runs another virtio disk or NIC.",
    "detach": "Take a virtio disk or NIC from a guest that runs.",
    "resize": "Change the size of a disk that a guest uses.",
    "link": "Put the link of a guest's NIC up or down.",
    "daemon": "Serve the virtio devices of all guests.",
    "lab": "A real Xen on a machine that has none.",
    "demo": "Show a guest with virtio devices in the lab, and prove that they work.",
    "doctor": "Check this machine, and name the package for each missing thing.",
}
#: commands that xenvirtio itself starts
HIDDEN = ("lifecycle",)


class Commands(click.Group):
    """Knows all commands by name and summary; imports the one that is called, and reports how it failed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the table's order
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS and cmd_name not in HIDDEN:
            raise click.NoSuchCommand(cmd_name, possibilities=COMMANDS, ctx=ctx)
        command: click.Command = import_module(f"xenvirtio.cli.{cmd_name}").app
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except XenvirtioError as error:
            report(error)
            sys.exit(error.exit_status)
        except KeyboardInterrupt:
            say("interrupted")
            sys.exit(INTERRUPTED)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        print(f"xenvirtio {version('xenvirtio')}")
        ctx.exit()


@click.group(
    cls=Commands,
    no_args_is_help=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    is_eager=True,
    expose_value=False,
    help="Show the version and exit.",
)
def app() -> None:
    """Standard virtio devices for every kind of Xen guest."""


def report(error: XenvirtioError) -> None:
    """Message and hint, for people."""
    say(error.message)
    if error.hint:
        print(f"  try: {error.hint}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status."""
    try:
        app(arguments, prog_name="xenvirtio")
    except Exception:  # whatever else is raised is our mistake, and told as one
        import traceback

        traceback.print_exc()
        say("this is a bug; please report it with the lines above")
        sys.exit(1)


if __name__ == "__main__":
    main()
