"""Named reads of limits: as they are shown, what decisions are made on, and how they came to be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import asyncpg
import msgspec

from services.metering.dashboard import encode_limits, limits_key, split_limits_key
from services.metering.limits import AccountFacts, AppFacts, Limit, OpenWindow, amounts_of, scheduled_view
from services.metering.queries import find_app
from services.metering.thresholds import KIND, PERIOD
from shared.catalog import Catalog
from shared.commands.limits import AccountLimitView, LimitsView, ScheduledView
from shared.eventlog.log import Meta
from shared.events.metering import CODEC, AccountLimitChanged, LimitChanged
from shared.postgres import Connection
from shared.streams.kv import ReadValues
from shared.windows import CivilWindows, civil

AHEAD: Final = timedelta(minutes=5)
"""How far a publisher's clock may be ahead: a window that begins within it counts already."""

UNITS: Final = """
    CASE WHEN w.client_id <> '' THEN (
        SELECT units - after_close_units FROM counter AS c
        WHERE c.client_id = w.client_id AND c.service = w.service AND c.period = w.period AND c.window_start = w.window_start)
    ELSE (
        SELECT sum(units - after_close_units)::bigint FROM app AS a JOIN counter AS c USING (client_id)
        WHERE a.account = w.account AND c.service = w.service AND c.period = w.period AND c.window_start = w.window_start)
    END"""
"""Units of the scope and window of the row `w` that were counted while it was open; null for none."""

_SCOPES: Final = "unnest($1::text[], $2::text[], $3::text[]) AS s(account, client_id, service)"
_VIEWS: Final = f"""
    SELECT s.account, s.client_id, s.service, coalesce(l.version, t.version, 0) AS version, l.daily,
        coalesce(l.monthly, t.monthly) AS monthly, l.daily_rungs, coalesce(l.monthly_rungs, t.monthly_rungs) AS monthly_rungs,
        coalesce(l.changed_at, t.changed_at) AS changed_at, coalesce(s.service = ANY(a.test_services), false) AS test
    FROM {_SCOPES} JOIN account USING (account)
    LEFT JOIN app AS a ON a.client_id = s.client_id AND a.account = s.account AND a.deleted_at IS NULL
    LEFT JOIN app_limit AS l ON l.client_id = s.client_id AND l.service = s.service
    LEFT JOIN account_limit AS t ON s.client_id = '' AND t.account = s.account AND t.service = s.service
    WHERE s.client_id = '' OR a.client_id IS NOT NULL
"""  # noqa: S608 - constants
_WAITING: Final = f"""
    SELECT account, client_id, service, schedule_id, effective_at, daily, monthly, daily_rungs, monthly_rungs, reason,
        requested_by, requested_at
    FROM {_SCOPES} JOIN limit_schedule USING (account, client_id, service)
    ORDER BY effective_at, requested_at, schedule_id
"""  # noqa: S608 - constants
_OPEN: Final = f"""
    SELECT w.period, w.window_start, coalesce({UNITS}, 0) AS units, coalesce(t.percent, 0) AS told
    FROM (SELECT $1::text AS account, $2::text AS client_id, $3::text AS service, o.period, o.window_start
        FROM unnest($5::text[], $6::timestamptz[]) AS o(period, window_start)) AS w
    LEFT JOIN told AS t ON t.account = w.account AND t.client_id = w.client_id AND t.service = w.service
        AND t.period = w.period AND t.window_start = w.window_start AND t.version = $4
    ORDER BY w.period, w.window_start
"""  # noqa: S608 - constants
_ZONE: Final = "SELECT zone FROM account WHERE account = $1"
_KEYS: Final = """
    SELECT account, client_id, service FROM app_limit UNION SELECT account, '', service FROM account_limit
    UNION SELECT account, client_id, service FROM limit_schedule
"""
_NEWEST: Final = "SELECT position, recorded_at FROM event ORDER BY position DESC LIMIT 1"
_HISTORY: Final = """
    SELECT type, schema, data, meta, recorded_at FROM event
    WHERE stream = $1 AND type = $2 AND ($3::int IS NULL OR (data->>'version')::int < $3)
    ORDER BY version DESC LIMIT $4
"""

Scope = tuple[str, str, str]
"""(account, client_id, service); client_id "": the account's own limit."""
View = LimitsView | AccountLimitView


class Changed(NamedTuple):
    """One change of a limit, from the log."""

    event: LimitChanged | AccountLimitChanged
    changed_by: str
    changed_at: datetime


async def find_zone(connection: Connection, account: str) -> str | None:
    """The account's zone, None when metering knows no such account."""
    zone: str | None = await connection.fetchval(_ZONE, account)
    return zone


async def views_of(connection: Connection, scopes: Collection[Scope], catalog: Catalog) -> dict[Scope, View]:
    """The limits in force and what waits; of the scopes whose account, or application, is there. Version 0: none was set."""
    columns = [[scope[place] for scope in scopes] for place in range(3)]
    waiting: dict[Scope, list[ScheduledView]] = {}
    for row in await connection.fetch(_WAITING, *columns):
        waiting.setdefault(_scope(row), []).append(_scheduled(row))
    views: dict[Scope, View] = {}
    for row in await connection.fetch(_VIEWS, *columns):
        scope = _scope(row)
        views[scope] = _view(row, tuple(waiting.get(scope, ())), catalog)
    return views


async def app_view(connection: Connection, account: str, client_id: str, service: str, catalog: Catalog) -> LimitsView:
    """The limits of an application at a service. The shape of "none" for an application that is not there."""
    found = (await views_of(connection, [(account, client_id, service)], catalog)).get((account, client_id, service))
    if isinstance(found, LimitsView):
        return found
    return LimitsView(client_id=client_id, service=service, version=0, changed_at=None)


async def account_view(connection: Connection, account: str, service: str, catalog: Catalog) -> AccountLimitView:
    """The account's limit at a service. The shape of "none" for an account that is not there."""
    found = (await views_of(connection, [(account, "", service)], catalog)).get((account, "", service))
    return found if isinstance(found, AccountLimitView) else AccountLimitView(service=service, version=0, changed_at=None)


async def app_facts(connection: Connection, scope: Scope, now: datetime, catalog: Catalog) -> AppFacts:
    """What a decision about the scope, an application's, is made on."""
    account, client_id, service = scope
    app = await find_app(connection, account, client_id)
    view = await app_view(connection, account, client_id, service, catalog)
    if app is None:
        return AppFacts(now, None, view, ())
    return AppFacts(now, app.services, view, await open_windows(connection, scope, view.version, app.windows, now))


async def account_facts(connection: Connection, scope: Scope, now: datetime, catalog: Catalog) -> AccountFacts:
    """The same for an account's own limit."""
    account, _, service = scope
    zone = await find_zone(connection, account)
    view = await account_view(connection, account, service, catalog)
    if zone is None:
        return AccountFacts(now, False, view, ())
    return AccountFacts(now, True, view, await open_windows(connection, scope, view.version, civil(zone), now))


async def open_windows(
    connection: Connection, scope: Scope, version: int, windows: CivilWindows, now: datetime
) -> list[OpenWindow]:
    """The windows of a scope that count now, or may within AHEAD; what was told is of `version`."""
    periods = ("d", "m") if scope[1] else ("m",)
    wanted = sorted({(period, windows.of(KIND[period], at).start) for period in periods for at in (now, now + AHEAD)})
    columns = [period for period, _ in wanted], [start for _, start in wanted]
    rows = await connection.fetch(_OPEN, *scope, version, *columns)
    return [OpenWindow(PERIOD[row["period"]], row["window_start"], row["units"], row["told"]) for row in rows]


async def changes_of(connection: Connection, stream: str, before: int | None, limit: int) -> list[Changed]:
    """The newest `limit` changes in the scope's stream, of a version below `before` (None: all), the newest first."""
    type_ = AccountLimitChanged if stream.startswith("account-limit/") else LimitChanged
    found = []
    for row in await connection.fetch(_HISTORY, stream, type_.__name__, before, limit):
        event = CODEC.decode(row["type"], row["schema"], row["data"])
        assert isinstance(event, LimitChanged | AccountLimitChanged), "it was asked for by its type"
        found.append(Changed(event, msgspec.json.decode(row["meta"], type=Meta).actor, row["recorded_at"]))
    return found


# -- the bucket `limits`


async def limits_keys(connection: Connection) -> list[str]:
    """Every key of the bucket `limits`."""
    return sorted(limits_key(*row) for row in await connection.fetch(_KEYS))


def limits_values(catalog: Catalog) -> ReadValues:
    """What KvProjection asks: the values of keys of the bucket `limits`. No key for a scope without a limit or a change that
    waits, nor for a deleted application."""

    async def read(connection: Connection, keys: list[str]) -> Mapping[str, bytes | None]:
        values: dict[str, bytes | None] = dict.fromkeys(keys)
        newest = await connection.fetchrow(_NEWEST)
        position, as_of = (0, None) if newest is None else newest
        for scope, view in (await views_of(connection, [split_limits_key(key) for key in keys], catalog)).items():
            if view.version or view.scheduled:
                entry = catalog.get(view.service)
                unit = None if entry is None else entry.unit
                values[limits_key(*scope)] = encode_limits(view, unit, as_of, position)
        return values

    return read


def _scope(row: asyncpg.Record) -> Scope:
    return row["account"], row["client_id"], row["service"]


def _scheduled(row: asyncpg.Record) -> ScheduledView:
    limit = Limit(row["daily"], row["monthly"], tuple(row["daily_rungs"]), tuple(row["monthly_rungs"]))
    return scheduled_view(limit, row["schedule_id"], row["effective_at"], row["reason"], row["requested_by"], row["requested_at"])


def _view(row: asyncpg.Record, scheduled: Sequence[ScheduledView], catalog: Catalog) -> View:
    known: dict[str, Any] = {
        "service": row["service"],
        "version": row["version"],
        "changed_at": row["changed_at"],
        "scheduled": tuple(scheduled),
    }
    if row["version"]:
        daily_rungs = tuple(row["daily_rungs"]) if row["daily_rungs"] is not None else Limit().daily_rungs
        known |= amounts_of(Limit(row["daily"], row["monthly"], daily_rungs, tuple(row["monthly_rungs"])))
    if not row["client_id"]:
        known = {name: value for name, value in known.items() if name in AccountLimitView.model_fields}
        return AccountLimitView(**known)
    entry = catalog.get(row["service"])
    test_quota = entry.test_quota if row["test"] and entry is not None else None
    return LimitsView(client_id=row["client_id"], test_quota=test_quota, **known)
