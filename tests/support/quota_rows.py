"""Limits, usage and leases as rows of metering's schema, for tests that put gates and keepers on them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import count
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from prometheus_client import CollectorRegistry

from services.metering.ends import Ends
from services.metering.granting import Granting, Started
from services.metering.grants import Terms
from services.metering.guard import Guard
from services.metering.metrics import QuotaMetrics
from shared.clock import Clock
from shared.commands.quota import Answer, Leased, LeaseQuota, Returned, Wish
from shared.postgres import Connection, Pool
from shared.windows import civil

A, B = "a" * 20, "b" * 20
SERVICE: Final = "csr"
TERMS: Final = Terms(10.0, 1.0, {"csr": 5, "clova-voice": None})
_VERSIONS = count(1)

# Every limited scope whose units, counted and outstanding, have come above its limit, in whichever window.
_ABOVE: Final = """
    WITH held AS (
        SELECT client_id, account, service, day_start, month_start, greatest(0, coalesce(stated, units) - counted) AS units
        FROM quota_lease WHERE closed_at IS NULL
    ), used AS (
        SELECT client_id, service, 'd' AS period, day_start AS window_start, units FROM held
        UNION ALL SELECT client_id, service, 'm', month_start, units FROM held
        UNION ALL SELECT client_id, service, period, window_start, units FROM counter WHERE period IN ('d', 'm')
    )
    SELECT client_id, period, window_start, sum(u.units)::bigint, min(CASE period WHEN 'd' THEN daily ELSE monthly END) AS quota
    FROM used AS u JOIN app_limit USING (client_id, service) GROUP BY client_id, service, period, window_start
    HAVING sum(u.units) > min(CASE period WHEN 'd' THEN daily ELSE monthly END)
    UNION ALL
    SELECT account, 'account', window_start, sum(u.units)::bigint, min(l.monthly) FROM used AS u JOIN app USING (client_id)
    JOIN account_limit AS l USING (account, service) WHERE period = 'm' GROUP BY account, service, window_start
    HAVING sum(u.units) > min(l.monthly)
"""


async def open_accounts(connection: Connection, zone: str = "Asia/Seoul", apps: Sequence[str] = (A, B)) -> None:
    """Account acme in that zone, with these applications."""
    await connection.execute("INSERT INTO account VALUES ('acme', $1)", zone)
    await connection.execute(
        "INSERT INTO app (client_id, account, services, registered_at, position)"
        " SELECT a, 'acme', '{csr,clova-voice}', now(), 1 FROM unnest($1::text[]) AS a",
        list(apps),
    )


async def limit(
    connection: Connection, client_id: str, daily: int | None = None, monthly: int | None = None, service: str = SERVICE
) -> int:
    """Set an application's limits; the version."""
    version = next(_VERSIONS)
    await connection.execute(
        "INSERT INTO app_limit VALUES ($1, $2, 'acme', $3, $4, $5, '{}', '{}', now()) ON CONFLICT (client_id, service)"
        " DO UPDATE SET version = excluded.version, daily = excluded.daily, monthly = excluded.monthly",
        client_id, service, version, daily, monthly,
    )  # fmt: skip
    return version


async def account_limit(connection: Connection, monthly: int | None, service: str = SERVICE) -> None:
    """Set the account's limit."""
    await connection.execute(
        "INSERT INTO account_limit VALUES ('acme', $1, $2, $3, '{}', now()) ON CONFLICT (account, service)"
        " DO UPDATE SET version = excluded.version, monthly = excluded.monthly",
        service, next(_VERSIONS), monthly,
    )  # fmt: skip


async def count_units(
    connection: Connection, client_id: str, at: datetime, units: int, lease: str = "", zone: str = "Asia/Seoul"
) -> None:
    """What counting a record does, in one transaction."""
    windows = civil(zone)
    async with connection.transaction():
        for period, start in (("d", windows.day(at).start), ("m", windows.month(at).start)):
            await connection.execute("SELECT make_shelf($1, $2)", period, start)
            await connection.execute(
                "INSERT INTO counter AS c (client_id, service, period, window_start, calls, units, late_units)"
                " VALUES ($1, 'csr', $2, $3, 1, $4, 0) ON CONFLICT (client_id, service, period, window_start)"
                " DO UPDATE SET units = c.units + excluded.units",
                client_id, period, start, units,
            )  # fmt: skip
        if lease:
            await connection.execute("UPDATE quota_lease SET counted = counted + $2 WHERE lease = $1", lease, units)


async def above_limit(connection: Connection) -> list[tuple[Any, ...]]:
    """What should never be there: scopes with more units than their limits."""
    return [tuple(row) for row in await connection.fetch(_ABOVE)]


async def lease_rows(
    connection: Connection, columns: str = "lease, units, counted, stated, end_sequence"
) -> list[tuple[Any, ...]]:
    """Open leases."""
    return [tuple(row) for row in await connection.fetch(f"SELECT {columns} FROM quota_lease WHERE closed_at IS NULL ORDER BY 1")]


class Wisher:
    """A gate without anything of a gate but its requests, straight to the one who grants."""

    def __init__(self, granting: Granting, clock: Clock, publisher: str = "gate-1", partition: int = 0) -> None:
        self.publisher = publisher
        self._granting = granting
        self._clock = clock
        self._partition = partition

    async def ask(self, *wishes: Wish, returned: Sequence[Returned] = ()) -> tuple[Answer, ...]:
        """One request."""
        request = LeaseQuota(publisher=self.publisher, partition=self._partition, wishes=wishes, returned=tuple(returned))
        return (await self._granting.lease_quota(request)).answers

    async def wish(self, client_id: str = A, wanted: int = 1, needed: int = 1, lease: str = "", service: str = SERVICE) -> Answer:
        """One wish, answered."""
        [answer] = await self.ask(self.a_wish(client_id, wanted, needed, lease, service))
        return answer

    async def lease(self, client_id: str = A, wanted: int = 1, needed: int = 1, lease: str = "") -> Leased:
        """One wish that has to be granted."""
        answer = await self.wish(client_id, wanted, needed, lease)
        assert isinstance(answer, Leased), answer
        return answer

    def a_wish(self, client_id: str = A, wanted: int = 1, needed: int = 1, lease: str = "", service: str = SERVICE) -> Wish:
        return Wish(client_id, service, wanted, needed, self._clock.now(), lease)


def trusting(pool: Pool, ends: Ends) -> Guard:
    """A guard that has seen that everything is counted."""
    guard = Guard(pool, ends, ())
    guard.floor = {}
    return guard


@asynccontextmanager
async def recalls_heard(nc: Client) -> AsyncIterator[list[Any]]:
    """What is published on metering.recall meanwhile."""
    heard: list[Any] = []

    async def hear(message: Any) -> None:
        heard.append(msgspec.json.decode(message.data))

    subscription = await nc.subscribe("metering.recall", cb=hear)
    await nc.flush()
    try:
        yield heard
    finally:
        await subscription.unsubscribe()


def granting_on(pool: Pool, nc: Client, clock: Clock, guard: Guard | None = None) -> Granting:
    """One worker's granting."""
    granting = Granting(TERMS, 4, lambda: nc, clock)
    ends = Ends((), lambda: nc, clock)
    granting.start(Started(pool, guard or trusting(pool, ends), QuotaMetrics(CollectorRegistry())))
    return granting
