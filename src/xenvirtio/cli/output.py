"""How commands print: tables for a terminal, plain columns or JSON for everything else."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xenvirtio.toolstack.listing import DeviceRow

HEADINGS = (
    *("GUEST", "DOMAIN", "TYPE", "DEVICE", "TRANSPORT", "MEMORY", "STATE"),
    *("IN/S", "REQ/S", "OUT/S", "REQ/S", "IN", "OUT", "BACKING"),
)
NUMBERS = ("DOMAIN", "IN/S", "OUT/S", "REQ/S", "IN", "OUT")
#: a device that the backend gave up; why is told below the table
FAILED = "failed"


def say(line: str) -> None:
    """A step or a remark, to standard error: output is for results."""
    print(f"xenvirtio: {line}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Indented JSON on standard output."""
    print(json.dumps(value, indent=2))


def print_devices(rows: Sequence[DeviceRow]) -> None:
    """One line a device, and then one for each error."""
    lines = [_cells(row) for row in rows]
    if sys.stdout.isatty():
        _print_table(lines)
    else:
        print_columns([HEADINGS, *lines])
    for row in rows:
        if row.error is not None:
            print(f"{row.guest} {row.device}: {row.error} ({row.state})")


def print_columns(lines: Sequence[Sequence[str]]) -> None:
    """Aligned by spaces, two at least between columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cells(row: DeviceRow) -> tuple[str, ...]:
    state = row.state if row.error is None else FAILED
    texts = (row.type, row.device, row.transport, row.memory_access, state)
    rates, totals = row.rates, row.totals
    numbers = ["-"] * 6
    if rates is not None:
        numbers[:4] = (
            amount(rates.in_bytes),
            count(rates.in_requests),
            amount(rates.out_bytes),
            count(rates.out_requests),
        )
    if totals is not None:
        numbers[4:] = amount(totals.in_bytes), amount(totals.out_bytes)
    return row.guest, str(row.domid), *(text or "-" for text in texts), *numbers, row.backing


def count(rate: float) -> str:
    """A number of requests for people: 0, 0.4, 12, 120000."""
    return f"{rate:.1f}" if 0 < rate < 10 else f"{rate:.0f}"


def amount(size: float) -> str:
    """Bytes for people: 512 B, 1.5 KiB, 64.0 MiB."""
    value, unit = float(size), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, bigger
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


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
