"""xenvirtio lab: a real Xen in a virtual machine on this host."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xenvirtio.cli import check_module, doctor, matrix, soak
from xenvirtio.cli.options import release_option, timeout_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.lab.dom0.protocol import Kind

#: of `lab run`, where every lower status may be the command's own; as docker run has it
LAB_FAILED = 125

name_option = click.option(
    "--name",
    "-n",
    envvar="XENVIRTIO_LAB",
    show_envvar=True,
    default="default",
    help="Which lab; several can run at once.",
)


class InOrder(click.Group):
    """Its commands are listed as they stand in this file, by use and not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        return list(self.commands)


@click.group("lab", cls=InOrder, no_args_is_help=True)
def app() -> None:
    """A real Xen on a machine that has none: in QEMU, without KVM if need be."""
    from xenvirtio.cli.signals import undo_when_ended

    undo_when_ended()


@app.command()
@name_option
@release_option
def up(name: str, release: str) -> None:
    """Start the lab; make what is missing, and build again what is older than the sources."""
    from xenvirtio.lab import Lab
    from xenvirtio.lab.stages import progress_for

    Lab(name, release, progress=progress_for(sys.stderr)).up()
    print(f"Lab {name!r} is up. Try: xenvirtio lab run -- xl info", file=sys.stderr)


@app.command()
@name_option
def down(name: str) -> None:
    """Stop the lab's machine at once. What was written in it is forgotten."""
    from xenvirtio.lab import Lab

    was_up = Lab(name).down()
    print(f"Lab {name!r} is down." if was_up else f"Lab {name!r} was not up.", file=sys.stderr)


@app.command()
def status() -> None:
    """Show every lab."""
    from xenvirtio.cli.output import print_columns
    from xenvirtio.lab import all_labs

    code = {True: "current", False: "older than the sources", None: "-"}
    rows = [("LAB", "STATE", "RELEASE", "ACCELERATOR", "QEMU", "CODE", "LOGS")]
    for lab in all_labs():
        now = lab.status()
        state = "down" if not now.running else "up" if now.answers else "does not answer"
        logs = str(now.logs or "-")
        emulation = (now.accelerator or "-", (now.qemu or "-").partition(" ")[0])
        rows.append((now.name, state, now.release or "-", *emulation, code[now.current], logs))
    if len(rows) == 1:
        print("There is no lab. Make one: xenvirtio lab up", file=sys.stderr)
    else:
        print_columns(rows)


@app.command(context_settings={"ignore_unknown_options": True})
@click.argument(
    "command", nargs=-1, required=True, metavar="-- COMMAND...", help="The command and its arguments."
)
@name_option
@timeout_option(600, "How long it may take.")
def run(command: Sequence[str], name: str, timeout: float) -> None:
    """Run a command in dom0.

    Its input, output and exit status are passed on. 125 means that the lab failed, and not the command: it
    was lost or is not up, or the time is over; the message says which.
    """
    from xenvirtio.cli.main import report
    from xenvirtio.errors import XenvirtioError
    from xenvirtio.lab import Lab

    stdin = None if os.isatty(0) else 0
    try:
        status = (
            Lab(name).run(list(command), timeout=timeout, on_output=_pass_on, stdin_from=stdin).returncode
        )
    except XenvirtioError as error:
        report(error)
        status = LAB_FAILED
    except BrokenPipeError:  # as in `lab run -- yes | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere
        status = 128 + signal.SIGPIPE
    sys.exit(status)


@app.command()
@name_option
def shell(name: str) -> None:
    """Open a shell in dom0."""
    from xenvirtio.lab import Lab

    sys.exit(Lab(name).shell())


@app.command()
@click.argument("guest", metavar="GUEST", help="Its name or domain number.")
@name_option
def console(guest: str, name: str) -> None:
    """Open a guest's console; ctrl-] leaves it."""
    from xenvirtio.lab import Lab

    sys.exit(Lab(name).console(guest))


@app.command()
@name_option
def log(name: str) -> None:
    """Print the newest boot's logs: versions, command line, QEMU, Xen and dom0."""
    from xenvirtio.lab import Lab

    boot = Lab(name).log()
    for file in ("versions.json", "command", "qemu.log", "console.log"):
        if (boot / file).is_file():
            print(f"==> {boot / file} <==\n{(boot / file).read_text(errors='replace').rstrip()}\n")


@app.command()
@click.argument("local", type=click.Path(path_type=Path))
@click.argument("remote")
@name_option
def put(local: Path, remote: str, name: str) -> None:
    """Copy a file into dom0."""
    from xenvirtio.lab import Lab

    Lab(name).put(local, remote)


@app.command()
@click.argument("remote")
@click.argument("local", type=click.Path(path_type=Path))
@name_option
def get(remote: str, local: Path, name: str) -> None:
    """Copy a file out of dom0."""
    from xenvirtio.lab import Lab

    Lab(name).get(remote, local)


@app.command()
@name_option
@click.option(
    "--all", "everything", is_flag=True, help="Every lab, with images and snapshots: all in the cache folder."
)
def destroy(name: str, everything: bool) -> None:
    """Stop a lab and remove its folder."""
    from xenvirtio.lab import Lab, destroy_all

    if everything:
        destroy_all()
    elif not Lab(name).destroy():
        print(f"There is no lab {name!r}.", file=sys.stderr)


app.add_command(check_module.app)
app.add_command(soak.app)
app.add_command(matrix.app)
app.add_command(doctor.app)


def _pass_on(kind: Kind, data: bytes) -> None:
    stream = sys.stdout.buffer if kind.name == "STDOUT" else sys.stderr.buffer
    stream.write(data)
    stream.flush()


if __name__ == "__main__":
    from xenvirtio.cli.main import main

    main(["lab", *sys.argv[1:]])
