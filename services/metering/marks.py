"""Marking the windows of limited scopes that counting lets grow: late in counting's transaction, and next to nothing where there
are no limits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from services.metering.growth import App, Count, CounterKey
from shared.postgres import Connection
from shared.windows import from_us

# Read after the counters were written: a transaction that does not see a limit here has begun before that limit's mark is looked
# at, and the mark stays until it has ended (docs/decisions/0013).
_LIMITED: Final = """
    SELECT '' AS account, client_id, service, coalesce(daily, 0) > 0 AS d, coalesce(monthly, 0) > 0 AS m
    FROM app_limit WHERE client_id = ANY($1::text[])
    UNION ALL
    SELECT account, '', service, false, coalesce(monthly, 0) > 0 FROM account_limit WHERE account = ANY($2::text[])
"""
_MARK: Final = """
    INSERT INTO limit_mark (account, client_id, service, period, window_start)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
    ON CONFLICT (account, client_id, service, period, window_start) DO UPDATE SET marked_by = pg_current_xact_id()
"""


async def mark_grown(connection: Connection, counters: Mapping[CounterKey, Count], directory: Mapping[str, App]) -> None:
    """Mark those of the days and months whose units grew while they were open, of scopes that have a limit."""
    grown = [key for key, count in counters.items() if key.period != "h" and count.units > count.after_close_units]
    if not grown:
        return
    clients = {key.client_id for key in grown}
    accounts = {directory[client_id].account for client_id in clients}
    rows = await connection.fetch(_LIMITED, sorted(clients), sorted(accounts))
    if not rows:
        return
    scopes = [(row[0], row[1], row[2], row[3], row[4]) for row in rows]
    own = {(client_id, service): (day, month) for _, client_id, service, day, month in scopes if client_id}
    shared = {(account, service) for account, client_id, service, _, month in scopes if not client_id and month}
    starts = {us: from_us(us) for us in {key.window_start_us for key in grown}}
    marks: set[tuple[str, str, str, str, datetime]] = set()
    for client_id, service, period, start_us in grown:
        limited = own.get((client_id, service))
        if limited is not None and limited[period == "m"]:
            marks.add((directory[client_id].account, client_id, service, period, starts[start_us]))
        if shared and period == "m" and (account := directory[client_id].account, service) in shared:
            marks.add((account, "", service, period, starts[start_us]))
    if marks:
        await connection.execute(_MARK, *(list(column) for column in zip(*sorted(marks), strict=True)))
