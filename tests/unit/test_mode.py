"""What was asked for on the command line, compiled or interpreted, is what runs."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
HOT = [module["name"] for module in PROJECT["tool"]["setuptools"]["ext-modules"]]


@pytest.mark.parametrize("name", HOT)
def test_every_hot_module_runs_in_the_mode_asked_for(name: str, pytestconfig: pytest.Config) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    if pytestconfig.getoption("--interpreted"):
        assert file.endswith(".py")
    else:
        assert file.endswith(".so"), "not compiled: run `make setup`, or pytest with --interpreted"


def test_the_modules_know_it_themselves(pytestconfig: pytest.Config) -> None:
    for name in ("memory.segments", "memory.base", "memory.regions", "memory.grant", "memory.foreign"):
        assert importlib.import_module(f"xenvirtio.{name}").COMPILED != pytestconfig.getoption("--interpreted")
    for name in ("queue.batch", "queue.split"):
        assert importlib.import_module(f"xenvirtio.{name}").COMPILED != pytestconfig.getoption("--interpreted")


def test_every_hot_module_has_its_c_shape_beside_it() -> None:
    source = Path(__file__).parents[2] / "src"
    for name in HOT:
        path = source / name.replace(".", "/")
        assert path.with_suffix(".py").exists()
        assert path.with_suffix(".pxd").exists()
