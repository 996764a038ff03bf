"""Named reads of what the open windows count."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from services.metering.queries import AppRow, Counted, Used
from shared.postgres import Connection
from shared.windows import Window

# One statement, so one snapshot and one round trip. The counters by their primary key.
_USAGE: Final = """
    SELECT 'window' AS what, '' AS subject, window_start AS at, calls, units, late_units, corrected_units FROM counter
    WHERE client_id = $1 AND service = $2 AND period = $3 AND window_start BETWEEN $4 AND $5
    UNION ALL SELECT 'rate', '', NULL, NULL, coalesce(sum(units), 0)::bigint, NULL, NULL FROM counter
    WHERE client_id = $1 AND service = $2 AND period = $6 AND window_start >= $7 AND window_start < $8
    UNION ALL SELECT 'progress', subject, recorded_at, sequence, NULL, NULL, NULL FROM progress WHERE sequence > 0
"""
_APPS: Final = """
    SELECT client_id, account, zone, services, registered_at FROM app JOIN account USING (account)
    WHERE client_id = ANY($1::text[]) AND account = $2 AND deleted_at IS NULL ORDER BY client_id
"""
_OPEN: Final = """
    SELECT client_id, service, period, calls, units, late_units FROM counter
    WHERE client_id = ANY($1::text[]) AND service = ANY($2::text[]) AND period = 'd' AND window_start = $3
    UNION ALL SELECT client_id, service, period, calls, units, late_units FROM counter
    WHERE client_id = ANY($1::text[]) AND service = ANY($2::text[]) AND period = 'm' AND window_start = $4
"""


class Reading(NamedTuple):
    """What the rows say of one application at one service, all of one moment. `recent` is what the windows of the forecast's
    basis count, in units."""

    by_window: Mapping[datetime, Used]
    recent: int
    counted: Mapping[str, Counted]


async def read_usage(
    connection: Connection, client_id: str, service: str, period: str, first: datetime, last: datetime, recent: tuple[str, Window]
) -> Reading:
    """The windows with any usage from `first` to `last`, by their start. `period`, and that of `recent`, is h, d or m."""
    recent_period, (since, until) = recent
    rows = await connection.fetch(_USAGE, client_id, service, period, first, last, recent_period, since, until)
    found: dict[str, list[tuple[str, datetime, int, int, int, int]]] = {"window": [], "rate": [], "progress": []}
    for what, *row in rows:
        found[what].append(tuple(row))
    [(_, _, _, units, *_)] = found["rate"]
    return Reading(
        {at: Used(*used) for _, at, *used in found["window"]},
        units,
        {subject: Counted(sequence, at) for subject, at, sequence, *_ in found["progress"]},
    )


async def find_apps(connection: Connection, account: str, client_ids: Sequence[str]) -> list[AppRow]:
    """Those of these applications that are the account's and not deleted."""
    return [AppRow.of(row) for row in await connection.fetch(_APPS, client_ids, account)]


async def used_in(
    connection: Connection, client_ids: Sequence[str], services: Collection[str], day: datetime, month: datetime
) -> dict[tuple[str, str, str], Used]:
    """What these applications used at these services in that day and that month, by (client_id, service, d or m)."""
    rows = await connection.fetch(_OPEN, client_ids, sorted(services), day, month)
    return {tuple(row[:3]): Used(*row[3:]) for row in rows}
