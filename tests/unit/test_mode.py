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
    interpreted = pytestconfig.getoption("--interpreted")
    for name in HOT:
        if name.startswith(("xenvirtio.memory", "xenvirtio.queue")):
            assert importlib.import_module(name).COMPILED is not interpreted


def test_every_hot_module_has_its_c_shape_beside_it() -> None:
    source = Path(__file__).parents[2] / "src"
    for name in HOT:
        path = source / name.replace(".", "/")
        assert path.with_suffix(".py").exists()
        assert path.with_suffix(".pxd").exists()
