"""The same tests in two modes: compiled modules as installed (the default), or every module from its .py.

    pytest tests/unit                 the hot modules must be compiled (`make setup` does that)
    pytest tests/unit --interpreted   compiled modules are passed over, even if they are there

The header says which; tests/unit/test_mode.py fails if the mode asked for is not the one that runs.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from typing import TYPE_CHECKING

from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    import pytest

settings.register_profile("unit", deadline=None, derandomize=False, print_blob=True)
settings.load_profile("unit")


class OnlySources:
    """Finds modules of xenvirtio in .py files and nowhere else."""

    @staticmethod
    def find_spec(
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,  # noqa: ARG004
    ) -> ModuleSpec | None:
        if not name.startswith("xenvirtio."):
            return None
        for folder in path or ():
            spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name)
            if spec is not None and spec.loader is not None:
                return spec
        return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--interpreted", action="store_true", help="run xenvirtio uncompiled, from its .py files"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--interpreted"):
        loaded = [name for name in sys.modules if name.startswith("xenvirtio.")]
        assert not loaded, f"imported before the mode was chosen: {loaded}"
        sys.meta_path.insert(0, OnlySources)


def pytest_report_header(config: pytest.Config) -> str:
    wanted = "interpreted" if config.getoption("--interpreted") else "compiled"
    found = "compiled" if importlib.import_module("xenvirtio.queue.split").COMPILED else "interpreted"
    return f"xenvirtio: {found}" if found == wanted else f"xenvirtio: {found}, but {wanted} was asked for"
