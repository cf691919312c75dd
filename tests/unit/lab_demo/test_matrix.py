"""The matrix's cells and its table."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.unit.lab_demo.test_report import guest
from xenvirtio.cli.matrix import app
from xenvirtio.errors import LabError, UsageError
from xenvirtio.lab.matrix import Cell, rewrite, run
from xenvirtio.lab.matrix.table import BEGIN, END, table
from xenvirtio.lab.stages import Progress

if TYPE_CHECKING:
    from pathlib import Path

CELLS = [Cell.shown("4.20.5", guest(kind), "grant") for kind in ("pv", "hvm")] + [
    Cell.failed("4.20.5", "6.12.1", kind, "foreign", LabError("no answer\nmore")) for kind in ("pv", "hvm")
]


def test_a_cell_says_what_was_proven() -> None:
    record = CELLS[0].as_json()
    assert set(record) == {"xen", "kernel", "guest", "access", "ok", "proofs"}
    assert record["ok"] is True
    assert record["proofs"]["pings"] == {"sent": 20, "lost": 0}


def test_a_guest_reached_in_another_way_than_asked_is_not_ok() -> None:
    assert Cell.shown("4.20.5", guest("pv"), "grant").ok
    assert not Cell.shown("4.20.5", guest("pv"), "foreign").ok
    assert not Cell.shown("4.20.5", replace(guest("pv"), transport="pci"), "grant").ok


def test_the_table_has_a_row_a_guest_and_a_column_an_access() -> None:
    lines = table(CELLS).splitlines()
    assert lines[0] == "| Xen | Linux | guest | grant | foreign |"
    assert [line.split(" | ")[2] for line in lines[2:]] == ["pv", "hvm"]
    assert all("✓" in line and "✗ no answer more |" in line for line in lines[2:])


def test_only_what_is_between_the_markers_is_written_and_again(tmp_path: Path) -> None:
    document = tmp_path / "parity.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rewrite(document, CELLS)
    rewrite(document, CELLS)
    assert document.read_text() == f"before\n{BEGIN}\n\n{table(CELLS)}\n{END}\nafter\n"


def test_a_document_without_a_place_is_refused_and_kept(tmp_path: Path) -> None:
    document = tmp_path / "parity.md"
    document.write_text(f"before {BEGIN}")
    with pytest.raises(UsageError, match="no place"):
        rewrite(document, CELLS)
    assert document.read_text() == f"before {BEGIN}"


def test_a_lab_that_does_not_come_up_fails_its_own_cells_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lab(name: str, *_: object, **__: object) -> None:
        raise LabError(f"no {name}")

    monkeypatch.setattr(sys.modules["xenvirtio.lab.matrix.run"], "Lab", no_lab)
    cells = run(["trixie", "bookworm"], Progress())
    assert [cell.xen for cell in cells] == ["4.20"] * 6 + ["4.17"] * 6
    assert not any(cell.ok for cell in cells)
    assert cells[0].proofs == {"error": "no matrix-trixie"}


def test_the_table_of_some_releases_does_not_replace_that_of_all(tmp_path: Path) -> None:
    document = tmp_path / "parity.md"
    document.write_text(f"{BEGIN}\n{END}\n")
    command = ["-r", "trixie", "-d", str(document), "-o", str(tmp_path / "matrix.json")]
    with pytest.raises(UsageError, match="every release"):
        app.main(command, standalone_mode=False)


def test_a_document_is_looked_at_before_the_run(tmp_path: Path) -> None:
    document = tmp_path / "parity.md"
    document.write_text("no markers")
    with pytest.raises(UsageError, match="no place"):
        app.main(["-d", str(document), "-o", str(tmp_path / "matrix.json")], standalone_mode=False)
    assert not (tmp_path / "matrix.json").exists()


def test_a_lab_that_cannot_be_ended_costs_no_cell_that_was_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def __enter__(self) -> Stuck:
            return self

        def __exit__(self, *_: object) -> None:
            raise LabError("it does not end")

    module = sys.modules["xenvirtio.lab.matrix.run"]
    monkeypatch.setattr(module, "Lab", lambda *_, **__: Stuck())
    monkeypatch.setattr(module, "Backend", lambda _: SimpleNamespace(start=lambda: None))
    monkeypatch.setattr(module, "facts", lambda _: {"xen": "4.20.5", "kernel": "6.12.1"})
    monkeypatch.setattr(module, "Show", lambda *words: SimpleNamespace(type=words[4]))
    monkeypatch.setattr(
        module, "_cell", lambda show, _: Cell("4.20.5", "6.12.1", show.type, "grant", True, {})
    )
    assert [cell.ok for cell in run(["trixie"], Progress())] == [True] * 6
