"""Marking the windows in which there may be something to tell since counting let them grow. Where no limit is near, none is.

Whoever makes marks goes by (client_id, service, period, window_start), accounts' own after all others, so that two never wait for
each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.metering.growth import App, Count, CounterKey
from shared.postgres import Connection
from shared.windows import from_us

_REMARK: Final = "ON CONFLICT (account, client_id, service, period, window_start) DO UPDATE SET marked_by = pg_current_xact_id()"
MARK_NEAR: Final = f"""
    INSERT INTO limit_mark (account, client_id, service, period, window_start)
    SELECT account, client_id, service, period, window_start FROM (
        SELECT l.account, g.*, l.version, CASE WHEN g.period = 'd' THEN l.daily ELSE l.monthly END AS amount,
            CASE WHEN g.period = 'd' THEN l.daily_rungs || r.daily ELSE l.monthly_rungs || r.monthly END AS rungs
        FROM grown AS g JOIN app_limit AS l USING (client_id, service)
        LEFT JOIN rung_asked AS r ON r.account = l.account AND r.client_id = l.client_id AND r.service = l.service
        WHERE g.period <> 'h') AS g
    WHERE amount > 0 AND units >= amount / 100 AND EXISTS (
        SELECT FROM unnest(rungs) AS rung WHERE units >= (amount * rung + 99) / 100 AND rung > coalesce((
            SELECT percent FROM told AS t WHERE t.account = g.account AND t.client_id = g.client_id AND t.service = g.service
                AND t.period = g.period AND t.window_start = g.window_start AND t.version = g.version), 0))
    ORDER BY client_id, service, period, window_start
    {_REMARK}
"""  # noqa: S608 - constants
"""The end of the statement that lets counters grow, as `grown`: marks those that have come to a rung (none is below 1 %) above
what was told. Their units are what will be there when the transaction ends, for whoever counts to the same counter waits until
then. If the limit that is seen here is not the newest, the transaction has begun before the newest one's mark is looked at, and
that mark stays until it has ended (docs/decisions/0013)."""
_MARK_ACCOUNTS: Final = f"""
    INSERT INTO limit_mark (account, client_id, service, period, window_start)
    SELECT account, '', service, 'm', window_start
    FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS g(account, service, window_start)
    JOIN account_limit AS t USING (account, service) WHERE t.monthly > 0
    ORDER BY service, window_start, account
    {_REMARK}
"""  # noqa: S608 - constants


async def mark_accounts(connection: Connection, counters: Mapping[CounterKey, Count], directory: Mapping[str, App]) -> None:
    """Mark the months of accounts with a limit whose units grew while they were open. All of them: units of an account are a sum,
    others write other parts of it meanwhile, and only an evaluation after both sees them together.

    Late in a transaction: from here to its end others that count for the account wait.
    """
    grown = {
        (directory[key.client_id].account, key.service, key.window_start_us)
        for key, count in counters.items()
        if key.period == "m" and count.units > count.after_close_units
    }
    if grown:
        accounts, services, starts = zip(*grown, strict=True)
        await connection.execute(_MARK_ACCOUNTS, accounts, services, [from_us(us) for us in starts])
