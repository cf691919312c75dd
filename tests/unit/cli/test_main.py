"""The command xenvirtio: help without imports, exit statuses, how errors are told."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import click
import pytest

from xenvirtio.cli import main as cli
from xenvirtio.errors import ConfigError, LabLost, UsageError, XenError


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return caught.value.code if isinstance(caught.value.code, int) else 0


def raising(error: BaseException) -> types.ModuleType:
    """A module whose command fails like this."""

    @click.command("list")
    def app() -> None:
        raise error

    module = types.ModuleType("xenvirtio.cli.list")
    vars(module)["app"] = app
    return module


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UsageError("no such thing", "make one"), 2, "xenvirtio: no such thing\n  try: make one\n"),
        (XenError("Xen said no"), 1, "xenvirtio: Xen said no\n"),
        (LabLost("gone", "xenvirtio lab log"), 3, "xenvirtio: gone\n  try: xenvirtio lab log\n"),
        (
            ConfigError("why", file="g.cfg", line=2, column=3, excerpt="    abc\n      ^"),
            2,
            "xenvirtio: g.cfg:2:3: why\n    abc\n      ^\n",
        ),
        (KeyboardInterrupt(), 130, "xenvirtio: interrupted\n"),
    ],
)
def test_an_error_is_told_with_its_hint_and_has_its_status(
    error: BaseException,
    status: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "xenvirtio.cli.list", raising(error))
    assert run(["list"]) == status
    assert capsys.readouterr() == ("", told)


def test_an_error_that_nobody_expected_is_a_bug_with_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "xenvirtio.cli.list", raising(ZeroDivisionError("oh")))
    assert run(["list"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert "ZeroDivisionError: oh" in told
    assert "this is a bug" in told


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["create"], ["list", "--nonsense"], ["destroy", "a", "b"]]
)
def test_a_wrong_command_line_has_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Usage: xenvirtio" in capsys.readouterr().err


def loaded_after(statements: str) -> tuple[str, set[str]]:
    """What these statements print in a fresh interpreter, and the modules that are loaded then."""
    script = (
        "import sys\n"
        "from xenvirtio.cli.main import main\n"
        f"try:\n    {statements}\n"
        "except SystemExit:\n    pass\n"
        "print('LOADED', *sys.modules)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True, env=env
    )
    told, _, names = done.stdout.rpartition("LOADED")
    return told, set(names.split())


def test_help_names_every_command_but_the_hidden_and_imports_no_room() -> None:
    told, loaded = loaded_after("main(['--help'])")
    for command in ("create", "list", "destroy", "daemon", "lab", "demo", "doctor"):
        assert f"\n  {command} " in told
    assert "lifecycle" not in told
    assert {name for name in loaded if name.startswith("xenvirtio.")} == {
        "xenvirtio.cli",
        "xenvirtio.cli.main",
        "xenvirtio.cli.output",
        "xenvirtio.errors",
    }
    assert not loaded & {"lark", "rich", "cffi"}


@pytest.mark.parametrize(
    ("statements", "used", "unused"),
    [
        ("main(['list'])", "xenvirtio.toolstack.local", {"lark", "xenvirtio.toolstack.create"}),
        ("main(['create', '/nowhere/guest.cfg'])", "lark", {"cffi", "xenvirtio.device"}),
        ("import xenvirtio.worker.daemon", "cffi", {"lark", "xenvirtio.toolstack"}),
    ],
)
def test_a_command_starts_without_what_it_does_not_use(statements: str, used: str, unused: set[str]) -> None:
    _, loaded = loaded_after(statements)
    assert used in loaded
    assert not loaded & (unused | {"asyncio", "importlib.metadata", "pyroute2", "rich", "xenvirtio.lab"})


@pytest.mark.parametrize(
    "command", ["create", "list", "destroy", "attach", "detach", "resize", "link", "lifecycle"]
)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"Usage: xenvirtio {command} ")
    assert "\b" not in told
