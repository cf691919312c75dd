"""The import directions of docs/architecture.md hold."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import xenvirtio

SOURCE = Path(xenvirtio.__file__).parent

#: room → rooms that it may import (itself and `errors` always)
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "spec": set(),
    "xen": {"spec"},
    "memory": {"spec", "xen"},
    "queue": {"memory", "spec"},
    "device": {"queue", "memory", "spec"},
    "transport": {"device", "queue", "memory", "xen", "spec"},
    "worker": {"transport", "device", "queue", "memory", "xen", "spec"},
    "toolstack": {"transport", "device", "worker", "xen", "spec"},
    "lab": {"spec"},
    "cli": {"toolstack", "worker", "lab", "spec"},
    "testing": {"worker", "transport", "device", "queue", "memory", "xen", "spec", "toolstack"},
}


def room_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported_rooms(source: str) -> set[str]:
    """The rooms of xenvirtio that a module's text imports, at its top or inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
            if node.module == "xenvirtio":
                names = [f"xenvirtio.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("xenvirtio.")}
    return rooms


MODULES = [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_what_the_architecture_allows(path: Path) -> None:
    room = room_of(path)
    allowed = ALLOWED[room] | {room, "errors", "__version__"}
    assert imported_rooms(path.read_text()) <= allowed


def test_no_module_uses_relative_imports_which_this_test_would_not_see() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_a_forbidden_import_would_be_seen() -> None:
    assert imported_rooms("def f():\n    from xenvirtio.xen import evtchn\n") == {"xen"}
    assert imported_rooms("from xenvirtio import lab\nimport xenvirtio.cli.main\n") == {"lab", "cli"}
