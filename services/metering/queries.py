"""Named reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from services.metering.dashboard import UsageValue, encode, key_of, split_key, window_value
from services.metering.limits_of import lower
from shared.catalog import Catalog, CatalogEntry
from shared.clock import Clock
from shared.postgres import Connection
from shared.streams.kv import ReadValues
from shared.windows import CivilWindows, Window, civil

_APP: Final = """
    SELECT client_id, account, zone, services, registered_at FROM app JOIN account USING (account)
    WHERE client_id = $1 AND account = $2 AND deleted_at IS NULL
"""
_PROGRESS: Final = "SELECT subject, sequence, recorded_at FROM progress WHERE sequence > 0"
# One statement, so that it is of one moment; always a row at least. Months are kept for ever, and so are corrections, which
# remember what they have taken back from the counters.
_CALLED: Final = """
    SELECT (
        EXISTS (SELECT FROM counter WHERE client_id = $1 AND service = $2 AND period = 'm' AND calls > 0)
        OR EXISTS (SELECT FROM correction WHERE client_id = $1 AND service = $2 AND old_quantity IS NOT NULL)
    ) AS called, subject, sequence, recorded_at
    FROM (VALUES (1)) AS one LEFT JOIN progress ON sequence > 0
"""
_SECRETS: Final = "SELECT secret_id, last_used_at FROM credential_use WHERE client_id = $1"
# One statement, so that all of it is of one moment. An application whose zone is not among $3 comes without its counters.
# The starts are compared as values besides, so that the planner knows which few shelves can have the rows.
_SHOWN: Final = """
    SELECT app.client_id, k.service, account.account, account.zone, app.registered_at, k.service = ANY(app.services) AS selected,
        k.service = ANY(app.test_services) AS test, l.daily, l.monthly,
        d.calls AS day_calls, d.units AS day_units, m.calls AS month_calls, m.units AS month_units, p.sequence, p.recorded_at
    FROM unnest($1::text[], $2::text[]) AS k(client_id, service)
    JOIN app ON app.client_id = k.client_id AND app.deleted_at IS NULL JOIN account USING (account)
    LEFT JOIN app_limit AS l ON l.client_id = k.client_id AND l.service = k.service
    LEFT JOIN unnest($3::text[], $4::timestamptz[], $5::timestamptz[]) AS z(zone, day, month) ON z.zone = account.zone
    LEFT JOIN counter AS d
        ON d.client_id = k.client_id AND d.service = k.service AND d.period = 'd' AND d.window_start = z.day
            AND d.window_start = ANY($4)
    LEFT JOIN counter AS m
        ON m.client_id = k.client_id AND m.service = k.service AND m.period = 'm' AND m.window_start = z.month
            AND m.window_start = ANY($5)
    CROSS JOIN (SELECT max(sequence) AS sequence, max(recorded_at) AS recorded_at FROM progress WHERE sequence > 0) AS p
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
    corrected_units: int = 0


class Open(NamedTuple):
    """The windows of a zone that are open now."""

    day: Window
    month: Window


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


async def ever_called(connection: Connection, client_id: str, service: str) -> tuple[bool, dict[str, Counted]]:
    """Whether anything of the application at the service was ever counted, and how far everything is, as `counted_up_to`."""
    rows = await connection.fetch(_CALLED, client_id, service)
    counted = {row["subject"]: Counted(row["sequence"], row["recorded_at"]) for row in rows if row["subject"] is not None}
    return rows[0]["called"], counted


async def secrets_used(connection: Connection, client_id: str) -> dict[str, datetime]:
    """When each of the application's secrets was last used, by secret_id."""
    return {row["secret_id"]: row["last_used_at"] for row in await connection.fetch(_SECRETS, client_id)}


async def dashboard_keys(connection: Connection) -> list[str]:
    """Every key of the bucket `usage`."""
    return [row["key"] for row in await connection.fetch(_ALL_KEYS)]


def dashboard_values(catalog: Catalog, clock: Clock) -> ReadValues:
    """What KvProjection asks: the values of keys of the bucket `usage`."""
    zones: dict[str, CivilWindows] = {}

    async def read(connection: Connection, keys: list[str]) -> dict[str, bytes | None]:
        wanted = [split_key(key) for key in keys]
        client_ids, services = [key[1] for key in wanted], [key[2] for key in wanted]
        while True:
            now = clock.now()
            windows = {zone: Open(in_zone.day(now), in_zone.month(now)) for zone, in_zone in zones.items()}
            starts = [[one.day.start for one in windows.values()], [one.month.start for one in windows.values()]]
            rows = await connection.fetch(_SHOWN, client_ids, services, list(windows), *starts)
            unknown = {row["zone"] for row in rows} - zones.keys()
            if not unknown:
                break
            zones.update((zone, civil(zone)) for zone in unknown)
        values: dict[str, bytes | None] = dict.fromkeys(keys)
        for row in rows:
            if row["selected"] or row["month_calls"] is not None or row["day_calls"] is not None:
                value = _shown(row, windows[row["zone"]], catalog.get(row["service"]))
                values[key_of(row["account"], value.client_id, value.service)] = encode(value)
        return values

    return read


def _shown(row: asyncpg.Record, windows: Open, entry: CatalogEntry | None) -> UsageValue:
    monthly = lower(row["monthly"], entry.test_quota if entry is not None and row["test"] else None)
    return UsageValue(
        row["client_id"],
        row["service"],
        None if entry is None else entry.unit,
        window_value(windows.day, row["day_units"] or 0, row["day_calls"] or 0, row["daily"]),
        window_value(windows.month, row["month_units"] or 0, row["month_calls"] or 0, monthly),
        row["recorded_at"] or row["registered_at"],
        row["sequence"] or 0,
    )
