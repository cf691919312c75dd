"""`xenvirtio lab`: a real Xen in a virtual machine on this host."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from xenvirtio.errors import XenvirtioError
from xenvirtio.lab import Lab, all_labs, destroy_all
from xenvirtio.lab.dom0.protocol import Kind
from xenvirtio.lab.stages import progress_for

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(
    help="A real Xen on a machine that has none: QEMU, without KVM if need be.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Option("--name", "-n", help="Which lab; several can run at once.", envvar="XENVIRTIO_LAB")]
Release = Annotated[
    str,
    typer.Option("--release", "-r", help="trixie: Xen 4.20, Linux 6.12. bookworm: Xen 4.17, Linux 6.1.", envvar="RELEASE"),
]


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Errors become one message, a hint and an exit status."""
    try:
        yield
    except XenvirtioError as error:
        print(f"xenvirtio: {error}", file=sys.stderr)
        if error.hint:
            print(f"  next: {error.hint}", file=sys.stderr)
        raise typer.Exit(error.exit_status) from error


@app.command()
def up(name: Name = "default", release: Release = "trixie") -> None:
    """Start the lab; what is missing is made, what is older than the sources is built again."""
    with _errors():
        lab = Lab(name, release, progress=progress_for(sys.stderr))
        lab.up()
        print(f"Lab {name!r} is up. Try: xenvirtio lab run -- xl info; xenvirtio lab shell")


@app.command()
def down(name: Name = "default") -> None:
    """Stop the lab's machine. What was written in it is forgotten."""
    with _errors():
        print(f"Lab {name!r} is down." if Lab(name).down() else f"Lab {name!r} was not up.")


@app.command()
def status() -> None:
    """Show every lab."""
    with _errors():
        table = Table("LAB", "STATE", "RELEASE", "ACCELERATOR", "CODE", "LOGS", box=None, pad_edge=False)
        for lab in all_labs():
            now = lab.status()
            state = "down" if not now.running else "up" if now.answers else "up, but does not answer"
            code = {True: "current", False: "older than the sources", None: ""}[now.current]
            table.add_row(now.name, state, now.release or "", now.accelerator or "", code, str(now.logs or ""))
        if table.row_count:
            Console(soft_wrap=True).print(table)
        else:
            print("There is no lab. Make one: xenvirtio lab up")


@app.command(context_settings={"ignore_unknown_options": True})
def run(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The command and its arguments.")],
    name: Name = "default",
    timeout: Annotated[float, typer.Option(help="Seconds that the command may take.")] = 600.0,
) -> None:
    """Run a command in dom0; exits with its status, or with 3 if the lab was lost."""
    with _errors():
        stdin = None if os.isatty(0) else 0
        status = Lab(name).run(command, timeout=timeout, on_output=_pass_on, stdin_from=stdin).returncode
    raise typer.Exit(status)


@app.command()
def shell(name: Name = "default") -> None:
    """Open a shell in dom0."""
    with _errors():
        status = Lab(name).shell()
    raise typer.Exit(status)


@app.command()
def console(guest: Annotated[str, typer.Argument(help="A guest's name or domid.")], name: Name = "default") -> None:
    """Open a guest's console; Ctrl-] leaves it."""
    with _errors():
        status = Lab(name).console(guest)
    raise typer.Exit(status)


@app.command()
def log(name: Name = "default") -> None:
    """Print the newest boot's log: Xen, dom0, QEMU; and the folder that holds it."""
    with _errors():
        boot = Lab(name).log()
        for file in ("versions.json", "command", "qemu.log", "console.log"):
            path = boot / file
            if path.is_file():
                print(f"==> {path} <==\n{path.read_text(errors='replace').rstrip()}\n")


@app.command()
def put(local: str, remote: str, name: Name = "default") -> None:
    """Copy a file into dom0."""
    with _errors():
        Lab(name).put(Path(local), remote)


@app.command()
def get(remote: str, local: str, name: Name = "default") -> None:
    """Copy a file out of dom0."""
    with _errors():
        Lab(name).get(remote, Path(local))


@app.command()
def destroy(
    name: Name = "default",
    everything: Annotated[bool, typer.Option("--all", help="All labs, images and snapshots.")] = False,
) -> None:
    """Remove a lab; with --all, everything that the lab keeps in its cache."""
    with _errors():
        if everything:
            destroy_all()
            print("Every lab is removed, with images and snapshots.")
        else:
            Lab(name).destroy()
            print(f"Lab {name!r} is removed.")


def _pass_on(kind: Kind, data: bytes) -> None:
    stream = sys.stdout.buffer if kind == Kind.STDOUT else sys.stderr.buffer
    stream.write(data)
    stream.flush()


if __name__ == "__main__":
    app()
