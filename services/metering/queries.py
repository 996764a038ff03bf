"""Named reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from services.metering.dashboard import UsageValue, encode, key_of, split_key, window_value
from services.metering.limits_of import Limits, limits_of
from shared.catalog import Catalog
from shared.clock import Clock
from shared.commands.metering import Period
from shared.postgres import Connection
from shared.streams.kv import ReadValues
from shared.windows import CivilWindows, Window, civil

_APP: Final = """
    SELECT client_id, account, zone, services, registered_at FROM app JOIN account USING (account)
    WHERE client_id = $1 AND account = $2 AND deleted_at IS NULL
"""
_PROGRESS: Final = "SELECT subject, sequence, recorded_at FROM progress WHERE sequence > 0"
_SECRETS: Final = "SELECT secret_id, last_used_at FROM credential_use WHERE client_id = $1"
_APPS: Final = """
    SELECT client_id, account, zone, services, registered_at FROM app JOIN account USING (account)
    WHERE client_id = ANY($1::text[]) AND deleted_at IS NULL
"""
_WINDOWS: Final = """
    SELECT client_id, service, period, calls, units FROM counter
    JOIN unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS wanted(client_id, service, period, window_start)
    USING (client_id, service, period, window_start)
"""
_ALL_KEYS: Final = """
    SELECT account || '.' || client_id || '.' || service AS key FROM (
        SELECT account, client_id, unnest(services) AS service FROM app WHERE deleted_at IS NULL
        UNION
        SELECT account, client_id, service FROM counter JOIN app USING (client_id) WHERE period = 'm' AND deleted_at IS NULL)
"""


class AppRow(NamedTuple):
    """An application that is not deleted."""

    client_id: str
    account: str
    windows: CivilWindows
    services: Sequence[str]
    registered_at: datetime

    @classmethod
    def of(cls, row: asyncpg.Record) -> AppRow:
        """From its columns, with the account's zone."""
        client_id, account, zone, *rest = row
        return cls(client_id, account, civil(zone), *rest)


class Used(NamedTuple):
    """What one window counts."""

    calls: int = 0
    units: int = 0
    late_units: int = 0


class Counted(NamedTuple):
    """The newest message of a subject of USAGE that is counted."""

    sequence: int
    recorded_at: datetime


async def find_app(connection: Connection, account: str, client_id: str) -> AppRow | None:
    """The account's application; None when there is none, it is another's, or it was deleted."""
    row = await connection.fetchrow(_APP, client_id, account)
    return None if row is None else AppRow.of(row)


async def counted_up_to(connection: Connection) -> dict[str, Counted]:
    """How far each subject of USAGE is counted; those of which nothing is are absent."""
    return {row["subject"]: Counted(row["sequence"], row["recorded_at"]) for row in await connection.fetch(_PROGRESS)}


async def secrets_used(connection: Connection, client_id: str) -> dict[str, datetime]:
    """When each of the application's secrets was last used, by secret_id."""
    return {row["secret_id"]: row["last_used_at"] for row in await connection.fetch(_SECRETS, client_id)}


async def dashboard_keys(connection: Connection) -> list[str]:
    """Every key of the bucket `usage`."""
    return [row["key"] for row in await connection.fetch(_ALL_KEYS)]


def dashboard_values(catalog: Catalog, clock: Clock) -> ReadValues:
    """What KvProjection asks: the values of keys of the bucket `usage`."""

    async def read(connection: Connection, keys: list[str]) -> dict[str, bytes | None]:
        now = clock.now()
        wanted = [split_key(key) for key in keys]
        rows = await connection.fetch(_APPS, sorted({client_id for _, client_id, _ in wanted}))
        apps = {row[0]: AppRow(row[0], row[1], civil(row[2]), row[3], row[4]) for row in rows}
        pairs = [(apps[client_id], service) for _, client_id, service in wanted if client_id in apps]
        used = await _used_now(connection, pairs, now)
        limits = await limits_of(connection, {(app.client_id, service) for app, service in pairs})
        counted = (await counted_up_to(connection)).values()
        values: dict[str, bytes | None] = dict.fromkeys(keys)
        for app, service in pairs:
            day, month = used.get((app.client_id, service, "d")), used.get((app.client_id, service, "m"))
            if service not in app.services and day is None and month is None:
                continue
            entry, limit = catalog.get(service), limits.get((app.client_id, service))
            quota = None if entry is None else entry.test_quota
            value = UsageValue(
                app.client_id,
                service,
                None if entry is None else entry.unit,
                window_value(app.windows.day(now), *_used_and_calls(day), _effective(limit, "daily", quota)),
                window_value(app.windows.month(now), *_used_and_calls(month), _effective(limit, "monthly", quota)),
                max((one.recorded_at for one in counted), default=app.registered_at),
                max((one.sequence for one in counted), default=0),
            )
            values[key_of(app.account, app.client_id, service)] = encode(value)
        return values

    return read


async def _used_now(
    connection: Connection, pairs: Iterable[tuple[AppRow, str]], now: datetime
) -> dict[tuple[str, str, str], Used]:
    """What the open windows count, by (client_id, service, period)."""
    wanted: list[tuple[str, str, str, datetime]] = []
    open_now: dict[str, tuple[Window, Window]] = {}
    for app, service in pairs:
        zone = app.windows.zone
        if zone not in open_now:
            open_now[zone] = app.windows.day(now), app.windows.month(now)
        day, month = open_now[zone]
        wanted += [(app.client_id, service, "d", day.start), (app.client_id, service, "m", month.start)]
    columns = [list(column) for column in zip(*wanted, strict=True)] or [[], [], [], []]
    rows = await connection.fetch(_WINDOWS, *columns)
    return {(row["client_id"], row["service"], row["period"]): Used(row["calls"], row["units"]) for row in rows}


def _effective(limits: Limits | None, period: Period, test_quota: int | None) -> int | None:
    return None if limits is None else limits.effective(period, test_quota)


def _used_and_calls(used: Used | None) -> tuple[int, int]:
    return (0, 0) if used is None else (used.units, used.calls)
