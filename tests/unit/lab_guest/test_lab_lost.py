"""A lost lab is neither a pass nor a failure of the lab tests: their harness, on tests that lose it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xenvirtio

ROOT = Path(__file__).parents[3]

TESTS = """
import pytest
from xenvirtio.errors import LabLost

def test_before():
    pass

@pytest.fixture
def losing():
    raise LabLost("the machine went away")

def test_in_{where}({argument}):
    {body}

def test_after():
    raise AssertionError("ran without a lab")
"""
CALL = {"where": "call", "argument": "", "body": 'raise LabLost("the machine went away")'}
SETUP = {"where": "setup", "argument": "losing", "body": "pass"}


def session(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests/lab/conftest.py", folder)
    (folder / "test_it.py").write_text(tests)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{Path(xenvirtio.__file__).parents[1]}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.mark.parametrize("place", [CALL, SETUP], ids=["call", "setup"])
def test_a_lost_lab_has_its_own_outcome_and_exit_status_and_ends_the_session(
    tmp_path: Path, place: dict[str, str]
) -> None:
    done = session(tmp_path, TESTS.format(**place))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "lab lost: the machine went away" in done.stdout
    assert "1 passed" in done.stdout
    assert "1 lab lost" in done.stdout
    assert "failed" not in done.stdout
    assert "ran without a lab" not in done.stdout


def test_a_failure_stays_a_failure(tmp_path: Path) -> None:
    done = session(tmp_path, "def test_it():\n    assert False\n")
    assert done.returncode == 1
    assert "1 failed" in done.stdout
