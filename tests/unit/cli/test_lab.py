"""xenvirtio lab: what its commands pass on, and the statuses that they exit with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from xenvirtio.cli import main as cli
from xenvirtio.errors import LabError, LabLost, TimeLimit, UsageError
from xenvirtio.lab import Completed, Lab, modulecheck

if TYPE_CHECKING:
    from xenvirtio.lab.paths import Cache


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["lab", *arguments])
    return caught.value.code if isinstance(caught.value.code, int) else 0


@pytest.mark.parametrize(
    ("arguments", "release"), [([], "trixie"), (["--release", "bookworm"], "bookworm"), (["-r", "x"], "x")]
)
def test_check_module_checks_this_checkouts_module_and_prints_what_was_said(
    arguments: list[str],
    release: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    asked: list[tuple[Cache, str, Path]] = []

    def check(cache: Cache, name: str, module: Path, _: Any) -> str:
        asked.append((cache, name, module))
        return "checkpatch: clean\n"

    monkeypatch.setattr(modulecheck, "check", check)
    monkeypatch.setenv("XENVIRTIO_CACHE", str(tmp_path))
    assert run("check-module", *arguments) == 0
    assert capsys.readouterr().out == "checkpatch: clean\n"
    ((cache, name, module),) = asked
    assert (cache.root, name) == (tmp_path, release)
    assert module == Path(__file__).parents[3] / "guest/linux"


def test_a_module_that_is_not_clean_has_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(*_: object) -> str:
        raise LabError("check the guest module: unshare failed", hint="see build.log")

    monkeypatch.setattr(modulecheck, "check", check)
    assert run("check-module") == 1
    assert "check the guest module" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (Completed(("x",), 3, "", ""), 3),
        (LabLost("gone"), 125),
        (TimeLimit("too late"), 125),
        (UsageError("no name for a lab"), 125),
        (BrokenPipeError(), 141),
    ],
)
def test_run_tells_the_commands_status_from_the_labs(
    end: Completed | Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*_: object, **__: object) -> Completed:
        if isinstance(end, Exception):
            raise end
        return end

    redirected: list[int] = []
    monkeypatch.setattr(Lab, "run", ends)
    monkeypatch.setattr(os, "dup2", lambda _, to: redirected.append(to))
    assert run("run", "--", "x") == status
    assert redirected == ([1] if isinstance(end, BrokenPipeError) else [])


def test_destroy_says_whether_there_was_such_a_lab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XENVIRTIO_CACHE", str(tmp_path))
    (tmp_path / "labs/one").mkdir(parents=True)
    assert run("destroy", "--name", "one") == 0
    assert not (tmp_path / "labs/one").exists()
    assert capsys.readouterr().err == ""
    assert run("destroy", "--name", "one") == 0
    assert capsys.readouterr().err == "There is no lab 'one'.\n"


def test_all_that_the_lab_made_goes_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = tmp_path / "disk"
    monkeypatch.setenv("XENVIRTIO_CACHE", str(cache))
    for folder in ("images/trixie-1", "labs/one", "labs/.Trash", "guests/x", "photos"):
        (cache / folder).mkdir(parents=True)
    assert run("status") == 0
    assert run("destroy", "--all") == 0
    assert [path.name for path in cache.iterdir()] == ["photos"]
    (cache / "photos").rmdir()
    assert run("destroy", "--all") == 0
    assert not cache.exists()


@pytest.mark.parametrize("words", [("put", "nothing", "/x"), ("get", "/etc/passwd", "nowhere/x")])
def test_a_file_that_cannot_be_copied_is_a_mistake(
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert "No such file or directory" in said
    assert "ls -l" in said


@pytest.mark.parametrize("minutes", ["nan", "inf"])
def test_a_soak_has_an_end(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("soak", "--minutes", minutes) == 2
    assert minutes in capsys.readouterr().err
