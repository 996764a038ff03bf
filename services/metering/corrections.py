"""The list of corrections: a named read, and its page."""

from __future__ import annotations

from datetime import datetime
from typing import Final, get_args

import asyncpg

from services.metering.queries import AppRow
from shared.commands.corrections import CorrectionPage, CorrectionView, ListCorrections, Window
from shared.commands.metering import Moment
from shared.postgres import Connection

_WINDOWS: Final[tuple[Window, ...]] = get_args(Window)
_LIST: Final = """
    SELECT sequence, service, source, record_id, reason, old_quantity, new_quantity, occurred_at, counted_at, recorded_at, hour,
        day, month
    FROM correction
    WHERE client_id = $1 AND ($2::text IS NULL OR service = $2) AND ($3::bigint IS NULL OR sequence < $3)
        AND ($4::timestamptz IS NULL OR recorded_at >= $4) AND ($5::timestamptz IS NULL OR recorded_at <= $5)
        AND ($6::timestamptz IS NULL OR recorded_at < $6)
    ORDER BY sequence DESC LIMIT $7
"""


async def page_of(connection: Connection, app: AppRow, query: ListCorrections) -> CorrectionPage:
    """The page that is asked for."""
    first = _start(app, query.from_)
    until, before = (query.to, None) if isinstance(query.to, datetime) else (None, _end(app, query.to))
    rows = await connection.fetch(_LIST, app.client_id, query.service, query.before, first, until, before, query.limit + 1)
    shown = rows[: query.limit]
    next_before = shown[-1]["sequence"] if len(rows) > query.limit else None
    return CorrectionPage(corrections=tuple(map(_view, shown)), next_before=next_before)


def _start(app: AppRow, moment: Moment) -> datetime | None:
    return moment if moment is None or isinstance(moment, datetime) else app.windows.day_start(moment)


def _end(app: AppRow, moment: Moment) -> datetime | None:
    """Where a civil day ends, excluded."""
    return None if moment is None else app.windows.day(app.windows.day_start(moment)).end


def _view(row: asyncpg.Record) -> CorrectionView:
    return CorrectionView(
        position=row["sequence"],
        service=row["service"],
        source=row["source"],
        record_id=row["record_id"],
        reason=row["reason"],
        old=row["old_quantity"],
        new=row["new_quantity"],
        occurred_at=row["occurred_at"],
        reported_at=row["counted_at"],
        corrected_at=row["recorded_at"],
        counted_in=tuple(window for window in _WINDOWS if row[window]),
        closed=tuple(window for window in _WINDOWS if not row[window]),
    )
