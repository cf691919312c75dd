"""Host programs: output, failures, limits, locks, names."""

from __future__ import annotations

import time
import types
from pathlib import Path

import pytest

from xenvirtio.errors import LabError, MissingDependency, TimeLimit, UsageError
from xenvirtio.lab import Lab
from xenvirtio.lab.host import Host, program
from xenvirtio.lab.paths import Cache, locked


def test_output_is_returned_and_logged(tmp_path: Path) -> None:
    host = Host(tmp_path / "x.log")
    assert host.run(["sh", "-c", "cat; echo note >&2"], limit=10, what="try", stdin=b"in") == "in"
    log = host.log.read_text()
    assert "note" in log
    assert "cat; echo note" in log


def test_a_failure_says_what_failed_and_why(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"make it: sh failed with status 4: bad thing") as caught:
        Host(tmp_path / "x.log").run(["sh", "-c", "echo bad thing >&2; exit 4"], limit=10, what="make it")
    assert str(tmp_path / "x.log") in str(caught.value.hint)


def test_a_full_disk_is_named_as_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = types.SimpleNamespace(free=4096)
    monkeypatch.setattr("xenvirtio.lab.host.shutil.disk_usage", lambda _: usage)
    with pytest.raises(LabError, match=f"make it: false failed: no space is left in {tmp_path}") as caught:
        Host(tmp_path / "x.log").run(["false"], limit=10, what="make it")
    assert "XENVIRTIO_CACHE" in str(caught.value.hint)


def test_a_log_that_cannot_be_written_is_no_bug_of_ours() -> None:
    with pytest.raises(LabError, match="make it: cannot write /dev/full: No space left") as caught:
        Host(Path("/dev/full")).run(["true"], limit=10, what="make it")
    assert "XENVIRTIO_CACHE" in str(caught.value.hint)


def test_a_cache_folder_that_cannot_be_is_told_with_another(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "trees" / "lock"
    with pytest.raises(LabError, match="Not a directory") as caught, locked(place, "it", limit=1):
        pytest.fail("there is no lock")
    assert "XENVIRTIO_CACHE" in str(caught.value.hint)


def test_a_program_over_its_limit_is_ended_with_its_children(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(TimeLimit, match="wait: sh did not finish within"):
        Host(tmp_path / "x.log").run(["sh", "-c", "sleep 30; true"], limit=0.5, what="wait")
    assert time.monotonic() - start < 10


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("xenvirtio.lab.host.SYSTEM_PATH", "")
    with pytest.raises(MissingDependency) as caught:
        program("mksquashfs")
    assert caught.value.hint == "sudo apt-get install squashfs-tools"


def test_the_cache_folder_follows_the_environment() -> None:
    assert Cache.of({"XENVIRTIO_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}).root == Path("/a")
    assert Cache.of({"XDG_CACHE_HOME": "/b", "HOME": "/c"}).root == Path("/b/xenvirtio")
    assert Cache.of({"HOME": "/c"}).root == Path("/c/.cache/xenvirtio")


def test_a_lock_that_is_held_is_a_time_limit(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock", "it", limit=1),
        pytest.raises(TimeLimit, match="it is in use"),
        locked(tmp_path / "lock", "it", limit=0.2),
    ):
        pass
    with locked(tmp_path / "lock", "it", limit=0.2):
        pass


@pytest.mark.parametrize("name", ["", "../up", "a b", "-x", "x" * 41, "a/b", "."])
def test_a_bad_name_for_a_lab_is_the_users_mistake(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        Lab(name, cache=Cache(tmp_path))


def test_an_unknown_release_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Lab("x", "sarge", cache=Cache(tmp_path))
    assert "trixie" in str(caught.value.hint)


def test_a_lab_that_never_was_up_is_down(tmp_path: Path) -> None:
    lab = Lab("x", cache=Cache(tmp_path))
    assert lab.down() is False
    status = lab.status()
    assert (status.running, status.answers, status.logs) == (False, False, None)
    with pytest.raises(LabError, match="never been up"):
        lab.log()
    lab.destroy()
