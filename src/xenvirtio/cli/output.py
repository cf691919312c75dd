"""How commands print: tables for a terminal, plain columns or JSON for everything else."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.toolstack.listing import DeviceRow

HEADINGS = (
    "GUEST",
    "DOMAIN",
    "TYPE",
    "DEVICE",
    "KIND",
    "TRANSPORT",
    "MEMORY",
    "STATE",
    "BACKING",
    "REQUESTS",
)


def print_json(value: Any) -> None:
    """Indented JSON on standard output."""
    print(json.dumps(value, indent=2))


def print_devices(rows: Sequence[DeviceRow]) -> None:
    """One line a device."""
    lines = [_cells(row) for row in rows]
    if sys.stdout.isatty():
        _print_table(lines)
    else:
        print_columns([HEADINGS, *lines])


def print_columns(lines: Sequence[Sequence[str]]) -> None:
    """Aligned by spaces, two at least between columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cells(row: DeviceRow) -> tuple[str, ...]:
    state = row.state if row.error is None else f"{row.state}: {row.error}"
    requests = row.counters.get("requests", row.counters.get("packets"))
    texts = (row.type, row.device, row.kind, row.transport, row.memory_access, state, row.backing, requests)
    return row.guest, str(row.domid), *("-" if text is None else str(text) for text in texts)


def _print_table(lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in ("DOMAIN", "REQUESTS") else "left")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)
