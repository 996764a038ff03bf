"""Tables as CSV (RFC 4180), safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

CSV: Final = "text/csv"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes a cell that begins with it for: something to compute, or to run."""


def as_csv(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> bytes:
    """The table with its header row, in UTF-8. A text that begins like a formula gets a ' in front."""
    written = io.StringIO()
    writer = csv.writer(written)  # its defaults are RFC 4180's: commas, CRLF, quotes where needed and doubled inside
    writer.writerow(header)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return written.getvalue().encode()


def wants_csv(format_: str | None, accept: str) -> bool:
    """Whether an answer is to be CSV: `format` says so, or without it an Accept header that names CSV and not JSON."""
    if format_ is not None:
        return format_ == "csv"
    named = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return CSV in named and "application/json" not in named


def _harmless(cell: str | int) -> str | int:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
