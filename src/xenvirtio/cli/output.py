"""How commands print: tables for a terminal, plain columns or JSON for everything else."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.toolstack.listing import DeviceRow

HEADINGS = (
    *("GUEST", "DOMAIN", "TYPE", "DEVICE", "KIND", "TRANSPORT", "MEMORY"),
    *("STATE", "BACKING", "IN", "OUT"),
)
NUMBERS = ("DOMAIN", "IN", "OUT")


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
    keys = ("bytes_read", "bytes_written") if row.kind == "disk" else ("rx_bytes", "tx_bytes")
    amounts = [amount(row.counters[key]) if key in row.counters else None for key in keys]
    texts = (row.type, row.device, row.kind, row.transport, row.memory_access, state, row.backing, *amounts)
    return row.guest, str(row.domid), *(text or "-" for text in texts)


def amount(count: int) -> str:
    """Bytes for people: 512 B, 1.5 KiB, 64.0 MiB."""
    value, unit = float(count), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, bigger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def _print_table(lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)
