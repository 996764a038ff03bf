"""Marking the windows of limited scopes that counting lets grow: one statement, late in counting's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.metering.domain import App, Count, CounterKey
from shared.postgres import Connection
from shared.windows import from_us

# The limits are read after the counters were written, so that a limit that this does not see yet sees the counters, or its
# own mark is looked at again after this transaction has ended.
_MARK: Final = """
    INSERT INTO limit_mark (account, client_id, service, period, window_start)
    SELECT account, client_id, service, period, window_start FROM (
        WITH grown AS (
            SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
                AS g(account, client_id, service, period, window_start))
        SELECT g.* FROM grown AS g JOIN app_limit AS l USING (client_id, service)
        WHERE CASE g.period WHEN 'd' THEN l.daily ELSE l.monthly END > 0
        UNION
        SELECT account, '', service, period, window_start FROM grown AS g JOIN account_limit AS t USING (account, service)
        WHERE g.period = 'm' AND t.monthly > 0) AS limited
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (account, client_id, service, period, window_start) DO UPDATE SET marked_by = pg_current_xact_id()
"""


async def mark_grown(connection: Connection, counters: Mapping[CounterKey, Count], directory: Mapping[str, App]) -> None:
    """Mark those of the days and months whose units grew while they were open, of scopes that have a limit."""
    grown = [key for key, count in counters.items() if key.period != "h" and count.units - count.after_close_units > 0]
    if not grown:
        return
    starts = {key.window_start_us: from_us(key.window_start_us) for key in grown}
    await connection.execute(
        _MARK,
        [directory[key.client_id].account for key in grown],
        [key.client_id for key in grown],
        [key.service for key in grown],
        [key.period for key in grown],
        [starts[key.window_start_us] for key in grown],
    )
