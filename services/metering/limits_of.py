"""Which limits apply to calls of an application at a service: one query for as many of them as are asked about."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from shared.commands.metering import Period
from shared.postgres import Connection

_LIMITS: Final = """
    SELECT a.client_id, asked.service, a.account, zone, asked.service = ANY(a.test_services) AS test,
        coalesce(l.version, 0) AS version, l.daily, l.monthly,
        coalesce(t.version, 0) AS account_version, t.monthly AS account_monthly
    FROM unnest($1::text[], $2::text[]) AS asked(client_id, service)
    JOIN app AS a USING (client_id) JOIN account USING (account)
    LEFT JOIN app_limit AS l ON l.client_id = a.client_id AND l.service = asked.service
    LEFT JOIN account_limit AS t ON t.account = a.account AND t.service = asked.service
    WHERE a.deleted_at IS NULL
"""


class Limits(NamedTuple):
    """The limits of one application at one service, in the service's unit (None: no limit; 0: blocked).

    `test`: the service is in tier test, so that the catalog's test quota is a limit of the month, too. A version of 0: none was
    ever set. `account_version` and `account_monthly` are of the account's own limit over all of its applications.
    """

    client_id: str
    service: str
    account: str
    zone: str
    test: bool
    version: int
    daily: int | None
    monthly: int | None
    account_version: int
    account_monthly: int | None

    def effective(self, period: Period, test_quota: int | None) -> int | None:
        """The application's own limit of that period; `test_quota` is the catalog's for the service."""
        if period == "daily":
            return self.daily
        known = [limit for limit in (self.monthly, test_quota if self.test else None) if limit is not None]
        return min(known, default=None)


async def limits_of(connection: Connection, pairs: Collection[tuple[str, str]]) -> dict[tuple[str, str], Limits]:
    """By (client_id, service), for the pairs (each once) whose application is known and not deleted. A service need not be
    selected."""
    asked: Sequence[tuple[str, str]] = sorted(pairs)
    rows = await connection.fetch(_LIMITS, [pair[0] for pair in asked], [pair[1] for pair in asked])
    return {(row["client_id"], row["service"]): Limits(*row) for row in rows}
