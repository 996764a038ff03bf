"""What metering tells about usage, from rows to replies."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from services.metering import current, history, queries
from services.metering.ends import Looked, as_of
from services.metering.forecast import Basis, basis_window, forecast
from services.metering.limits import check_service
from services.metering.limits_of import Limits, limits_of
from services.metering.queries import AppRow, Counted, Used
from shared.catalog import Catalog
from shared.commands.metering import (
    HISTORY_ROWS_MAX,
    HISTORY_WINDOWS,
    HISTORY_WINDOWS_MAX,
    INTERVAL_WINDOWS,
    FirstCall,
    GetFirstCall,
    GetUsage,
    GetUsageHistory,
    GetUsageOfApps,
    OpenWindow,
    OpenWindows,
    Period,
    Usage,
    UsageHistory,
    UsageOfApps,
    UsageSeries,
    WindowUsage,
)
from shared.postgres import Connection
from shared.windows import EPOCH, CivilWindows, Kind, Window, civil

_KIND: Final[Mapping[Period, Kind]] = {"daily": "day", "monthly": "month"}
_LETTER: Final[Mapping[Kind, str]] = {"hour": "h", "day": "d", "month": "m"}


class _Found(NamedTuple):
    """Series, and the Client ID above which there are more."""

    series: Sequence[UsageSeries]
    next_after: str | None


async def usage(connection: Connection, app: AppRow, query: GetUsage, catalog: Catalog, looked: Looked, now: datetime) -> Usage:
    """The reply to GetUsage; `looked` was seen before. Raises InvalidInput."""
    _check(query.service, catalog, app.services)
    windows = history_windows(app, query, now)
    kind = _KIND[query.period]
    open_now = app.windows.of(kind, now)
    first, last = min(windows[0].start, open_now.start), max(windows[-1].start, open_now.start)
    basis_kind, recent = basis_window(app.windows, query.period, now)
    read = await current.read_usage(
        connection, app.client_id, query.service, _LETTER[kind], first, last, (_LETTER[basis_kind], recent)
    )
    limits = (await limits_of(connection, [(app.client_id, query.service)])).get((app.client_id, query.service))
    limit = _limit(query.service, query.period, limits, catalog)
    used = read.by_window.get(open_now.start, Used())
    known_at = as_of(looked, read.counted, app.registered_at)
    return Usage(
        client_id=app.client_id,
        service=query.service,
        period=query.period,
        zone=app.windows.zone,
        used=used.units,
        calls=used.calls,
        limit=limit,
        late=used.late_units,
        corrected=used.corrected_units,
        late_share=used.late_units / used.units if used.units else 0.0,
        forecast=forecast(limit, used.units, open_now.end, Basis(max(recent.start, app.registered_at), known_at, read.recent)),
        window_start=open_now.start,
        resets_at=open_now.end,
        as_of=known_at,
        position=_position(read.counted),
        history=tuple(_window_usage(window, read.by_window.get(window.start, Used())) for window in windows),
    )


async def first_call(connection: Connection, app: AppRow, query: GetFirstCall, catalog: Catalog, looked: Looked) -> FirstCall:
    """The reply to GetFirstCall; `looked` was seen before. Raises InvalidInput."""
    _check(query.service, catalog, app.services)
    called, counted = await queries.ever_called(connection, app.client_id, query.service)
    return FirstCall(called=called, as_of=as_of(looked, counted, app.registered_at))


async def usage_of_apps(
    connection: Connection, query: GetUsageOfApps, catalog: Catalog, looked: Looked, now: datetime
) -> UsageOfApps:
    """The reply to GetUsageOfApps."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        counted = await queries.counted_up_to(connection)
        apps = await current.find_apps(connection, query.account, query.client_ids)
        pairs = [(app.client_id, service) for app in apps for service in app.services]
        limits = await limits_of(connection, pairs)
        zone = apps[0].windows if apps else civil("UTC")  # all are of one account
        day, month = zone.day(now), zone.month(now)
        used = await current.used_in(
            connection, [app.client_id for app in apps], {pair[1] for pair in pairs}, day.start, month.start
        )

    def window(pair: tuple[str, str], period: Period) -> OpenWindow:
        found = used.get((*pair, _LETTER[_KIND[period]]), Used())
        limit = _limit(pair[1], period, limits.get(pair), catalog)
        start, end = day if period == "daily" else month
        return OpenWindow(used=found.units, calls=found.calls, limit=limit, window_start=start, resets_at=end)

    return UsageOfApps(
        as_of=as_of(looked, counted, min((app.registered_at for app in apps), default=now)),
        position=_position(counted),
        usage=tuple(
            OpenWindows(client_id=pair[0], service=pair[1], daily=window(pair, "daily"), monthly=window(pair, "monthly"))
            for pair in pairs
        ),
    )


async def usage_history(
    connection: Connection,
    query: GetUsageHistory,
    app: AppRow | None,
    zone: CivilWindows,
    catalog: Catalog,
    looked: Looked,
    now: datetime,
) -> UsageHistory:
    """The reply to GetUsageHistory about `app`, or (None) about the account. Raises InvalidInput."""
    default = INTERVAL_WINDOWS[query.interval]
    # Thousands of hours take a tenth of a second to tell: others are answered meanwhile.
    windows = await asyncio.to_thread(
        history.asked_windows, zone, query.interval, query.from_, query.to, now, default, HISTORY_ROWS_MAX
    )
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        counted = await queries.counted_up_to(connection)
        if app is not None:
            found = await _of_app(connection, query, app, catalog, windows)
        elif query.by_app:
            found = await _by_app(connection, query, catalog, windows)
        else:
            found = await _of_account(connection, query, catalog, windows)
    return UsageHistory(
        zone=zone.zone,
        as_of=as_of(looked, counted, EPOCH if app is None else app.registered_at),
        position=_position(counted),
        window_starts=tuple(window.start for window in windows),
        until=windows[-1].end,
        series=tuple(found.series),
        next_after=found.next_after,
    )


async def _of_app(
    connection: Connection, query: GetUsageHistory, app: AppRow, catalog: Catalog, windows: Sequence[Window]
) -> _Found:
    asked, selected = _services(query.service, catalog, app.services)
    rows = await history.rows_of_apps(connection, [app.client_id], asked, _LETTER[query.interval], windows)
    always = {(app.client_id, service) for service in selected}
    return _Found(await asyncio.to_thread(history.in_columns, rows, windows, always), None)


async def _by_app(connection: Connection, query: GetUsageHistory, catalog: Catalog, windows: Sequence[Window]) -> _Found:
    page = await history.apps_after(connection, query.account, query.after or "", query.apps_max + 1)
    shown = page[: query.apps_max]
    asked, _ = _services(query.service, catalog, {service for _, services in shown for service in services})
    ids = [client_id for client_id, _ in shown]
    rows = await history.rows_of_apps(connection, ids, asked, _LETTER[query.interval], windows)
    series = await asyncio.to_thread(history.in_columns, rows, windows, ())
    return _Found(series, ids[-1] if len(page) > query.apps_max else None)


async def _of_account(connection: Connection, query: GetUsageHistory, catalog: Catalog, windows: Sequence[Window]) -> _Found:
    asked, selected = _services(query.service, catalog, await history.services_of(connection, query.account))
    rows = await history.rows_of_account(connection, query.account, asked, _LETTER[query.interval], windows)
    return _Found(await asyncio.to_thread(history.in_columns, rows, windows, {(None, service) for service in selected}), None)


def _services(service: str | None, catalog: Catalog, selected: Collection[str]) -> tuple[Collection[str], Collection[str]]:
    """The services to read, and those of them that get a series in any case. Raises InvalidInput."""
    if service is None:
        return {*catalog, *selected}, selected
    _check(service, catalog, selected)
    return {service}, {service}


def _check(service: str, catalog: Catalog, selected: Collection[str]) -> None:
    """Raises InvalidInput unless the service is in the catalog, or was selected when it still was."""
    if service not in selected:
        check_service(service, catalog)


def history_windows(app: AppRow, query: GetUsage, now: datetime) -> list[Window]:
    """The windows that a query asks for, in the order of time; at least one. Raises InvalidInput."""
    default = HISTORY_WINDOWS[query.period]
    return history.asked_windows(app.windows, _KIND[query.period], query.from_, query.to, now, default, HISTORY_WINDOWS_MAX)


def _limit(service: str, period: Period, limits: Limits | None, catalog: Catalog) -> int | None:
    entry = catalog.get(service)
    return None if limits is None else limits.effective(period, None if entry is None else entry.test_quota)


def _window_usage(window: Window, used: Used) -> WindowUsage:
    return WindowUsage(
        window_start=window.start, used=used.units, calls=used.calls, late=used.late_units, corrected=used.corrected_units
    )


def _position(counted: Mapping[str, Counted]) -> int:
    return max((one.sequence for one in counted.values()), default=0)
