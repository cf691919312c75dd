"""The matrix's table, between two marker comments of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xenvirtio.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xenvirtio.lab.matrix.cells import Cell

BEGIN = "<!-- matrix: begin (written by make matrix) -->"
END = "<!-- matrix: end -->"
MIB = 1 << 20
#: characters of an error in the table; all of it is in the JSON
ERROR_SHOWN = 160


def table(cells: Sequence[Cell]) -> str:
    """Markdown: a row for each Xen, kernel and guest type, a column for each memory access."""
    accesses = list(dict.fromkeys(cell.access for cell in cells))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for cell in cells:
        rows.setdefault((cell.xen, cell.kernel, cell.guest), {})[cell.access] = _words(cell)
    lines = [_line(["Xen", "Linux", "guest", *accesses]), _line(["---"] * (3 + len(accesses)))]
    lines += [_line([*key, *(row.get(access, "") for access in accesses)]) for key, row in rows.items()]
    return "".join(f"{line}\n" for line in lines)


def rewrite(document: Path, cells: Sequence[Cell]) -> None:
    """Replaces what is between the markers; raises UsageError if the document has not both."""
    before, after = around(document)
    document.write_text(f"{before}{BEGIN}\n\n{table(cells)}\n{END}{after}")


def around(document: Path) -> tuple[str, str]:
    """The document before and after the markers. Raises UsageError."""
    try:
        text = document.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{document} cannot be read: {error}", hint=f"ls -l {document}") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(
            f"{document} has no place for the matrix", hint=f"two lines in it: {BEGIN} and {END}"
        )
    return before, after


def _words(cell: Cell) -> str:
    proofs = cell.proofs
    if "error" in proofs:
        return f"✗ {' '.join(proofs['error'].split())[:ERROR_SHOWN]}".replace("|", "/")
    disk, pings, tcp = proofs["disk_bytes"], proofs["pings"], proofs["tcp_bytes"]
    right = min(disk["right_in_guest"], disk["right_in_dom0"])
    return (
        f"{'✓' if cell.ok else '✗'} disk {right // MIB} of {disk['written'] // MIB} MiB"
        f"{', kept' if proofs['survived_guest_restart'] else ', NOT kept'}; "
        f"{pings['sent'] - pings['lost']} of {pings['sent']} pings; "
        f"TCP {tcp['to_guest'] // MIB} + {tcp['from_guest'] // MIB} MiB"
    )


def _line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"
