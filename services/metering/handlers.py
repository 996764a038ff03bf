"""What metering answers. Subjects metering.queries.<Name>."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from faststream.nats import NatsBroker

from services.metering import current, history, queries
from services.metering.current import Limits, limit_that_holds
from services.metering.directory import Directory
from services.metering.ends import Ends, as_of
from services.metering.forecast import Basis, basis_window, forecast
from services.metering.queries import AppRow, Counted, Used
from shared.catalog import Catalog
from shared.clock import Clock
from shared.commands.metering import (
    HISTORY_ROWS_MAX,
    HISTORY_WINDOWS,
    HISTORY_WINDOWS_MAX,
    INTERVAL_WINDOWS,
    SERVICE,
    CredentialUse,
    GetCredentialUse,
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
from shared.commands.requester import subject_of
from shared.errors import FieldProblem, InvalidInput, NotFound, TollbookError, Unavailable
from shared.postgres import Connection, Pool
from shared.readiness import Readiness
from shared.streams.passing import may_pass
from shared.windows import EPOCH, CivilWindows, Kind, Window, civil

WORKERS_MAX: Final = 16
HISTORIES_MAX: Final = 2
"""Long histories are read this many at a time, so that they leave connections for everything else."""
ACQUIRE_S: Final = 2.0
REGISTRY_WAIT_S: Final = 0.5
RELAY_WAIT_S: Final = 0.1
_KIND: Final[Mapping[Period, Kind]] = {"daily": "day", "monthly": "month"}
_PERIOD: Final[Mapping[Kind, str]] = {"hour": "h", "day": "d", "month": "m"}

T = TypeVar("T")


class Started(NamedTuple):
    """What there is once the service has started."""

    pool: Pool
    directory: Directory


class _Found(NamedTuple):
    """Series, and the Client ID above which there are more."""

    series: Sequence[UsageSeries]
    next_after: str | None


class Handlers:
    """Everything that metering answers. Before `start` it answers Unavailable."""

    def __init__(self, catalog: Catalog, ends: Ends, clock: Clock) -> None:
        self._catalog = catalog
        self._ends = ends
        self._clock = clock
        self._started: Started | None = None

    def start(self, started: Started) -> None:
        """Answer from now on."""
        self._started = started

    def readiness(self) -> Readiness:
        """Not ready until started."""
        started = self._started is not None
        return Readiness(started, "" if started else "starting")

    def subscribe(self, broker: NatsBroker) -> None:
        """Take metering's queries; several workers share them (queue group)."""

        @broker.subscriber(subject_of(SERVICE, GetUsage), queue=SERVICE, max_workers=WORKERS_MAX)
        async def get_usage(query: GetUsage) -> Usage:
            return await self.get_usage(query)

        @broker.subscriber(subject_of(SERVICE, GetUsageOfApps), queue=SERVICE, max_workers=WORKERS_MAX)
        async def get_usage_of_apps(query: GetUsageOfApps) -> UsageOfApps:
            return await self.get_usage_of_apps(query)

        @broker.subscriber(subject_of(SERVICE, GetUsageHistory), queue=SERVICE, max_workers=HISTORIES_MAX)
        async def get_usage_history(query: GetUsageHistory) -> UsageHistory:
            return await self.get_usage_history(query)

        @broker.subscriber(subject_of(SERVICE, GetCredentialUse), queue=SERVICE, max_workers=WORKERS_MAX)
        async def get_credential_use(query: GetCredentialUse) -> CredentialUse:
            return await self.get_credential_use(query)

    async def get_usage(self, query: GetUsage) -> Usage:
        """Answer GetUsage."""
        now = self._clock.now()
        looked, app = await asyncio.gather(self._ends.look(), self._find(query.account, query.client_id))
        self._check_service(query.service, app.services)
        windows = history_windows(app, query, now)
        open_now = app.windows.of(_KIND[query.period], now)
        first, last = min(windows[0].start, open_now.start), max(windows[-1].start, open_now.start)
        kind, recent = basis_window(app.windows, query.period, now)
        async with _connection(self._running().pool) as connection:
            read = await current.read_usage(
                connection, app.client_id, query.service, _PERIOD[_KIND[query.period]], first, last, (_PERIOD[kind], recent)
            )
        used = read.by_window.get(open_now.start, Used())
        limit = self._limit(app, query.service, query.period, read.limits)
        known_at = as_of(looked, read.counted, app.registered_at)
        basis = Basis(max(recent.start, app.registered_at), known_at, read.recent)
        return Usage(
            client_id=app.client_id,
            service=query.service,
            period=query.period,
            zone=app.windows.zone,
            used=used.units,
            calls=used.calls,
            limit=limit,
            late=used.late_units,
            late_share=used.late_units / used.units if used.units else 0.0,
            forecast=forecast(limit, used.units, open_now.end, basis),
            window_start=open_now.start,
            resets_at=open_now.end,
            as_of=known_at,
            position=_position(read.counted),
            history=tuple(_window_usage(window, read.by_window.get(window.start, Used())) for window in windows),
        )

    async def get_usage_of_apps(self, query: GetUsageOfApps) -> UsageOfApps:
        """Answer GetUsageOfApps."""
        now = self._clock.now()
        looked = await self._ends.look()
        async with (
            _connection(self._running().pool) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            counted = await queries.counted_up_to(connection)
            apps = await current.find_apps(connection, query.account, query.client_ids)
            ids, services = [app.client_id for app in apps], {service for app in apps for service in app.services}
            limits = await current.limits_of(connection, ids)
            zone = apps[0].windows if apps else civil("UTC")
            day, month = zone.day(now), zone.month(now)
            used = await current.used_in(connection, ids, services, day.start, month.start)

        def window(app: AppRow, service: str, period: Period) -> OpenWindow:
            found = used.get((app.client_id, service, _PERIOD[_KIND[period]]), Used())
            limit = self._limit(app, service, period, limits.get((app.client_id, service), Limits()))
            start, end = day if period == "daily" else month
            return OpenWindow(used=found.units, calls=found.calls, limit=limit, window_start=start, resets_at=end)

        return UsageOfApps(
            as_of=as_of(looked, counted, min((app.registered_at for app in apps), default=now)),
            position=_position(counted),
            usage=tuple(
                OpenWindows(
                    client_id=app.client_id,
                    service=service,
                    daily=window(app, service, "daily"),
                    monthly=window(app, service, "monthly"),
                )
                for app in apps
                for service in app.services
            ),
        )

    async def get_usage_history(self, query: GetUsageHistory) -> UsageHistory:
        """Answer GetUsageHistory."""
        now = self._clock.now()
        looked = await self._ends.look()
        app = None if query.client_id is None else await self._find(query.account, query.client_id)
        async with _connection(self._running().pool) as connection:
            zone = app.windows if app is not None else await self._zone(connection, query.account)
            # Thousands of hours take a tenth of a second to tell: others are answered meanwhile.
            windows = await asyncio.to_thread(_windows_of, zone, query, now)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                counted = await queries.counted_up_to(connection)
                found = await self._series(connection, query, app, windows)
        return UsageHistory(
            zone=zone.zone,
            as_of=as_of(looked, counted, EPOCH if app is None else app.registered_at),
            position=_position(counted),
            window_starts=tuple(window.start for window in windows),
            until=windows[-1].end,
            series=tuple(found.series),
            next_after=found.next_after,
        )

    async def _series(
        self, connection: Connection, query: GetUsageHistory, app: AppRow | None, windows: Sequence[Window]
    ) -> _Found:
        period, next_after = _PERIOD[query.interval], None
        ids: list[str] = []
        if app is not None:
            ids, selected = [app.client_id], set(app.services)
        elif query.by_app:
            page = await history.apps_after(connection, query.account, query.after or "", query.apps_max + 1)
            next_after = page[query.apps_max - 1][0] if len(page) > query.apps_max else None
            ids = [client_id for client_id, _ in page[: query.apps_max]]
            selected = {service for _, services in page for service in services}
        else:
            selected = await history.services_of(connection, query.account)
        services = {*self._catalog, *selected}
        if query.service is not None:
            self._check_service(query.service, selected)
            services = selected = {query.service}
        if app is None and not query.by_app:
            rows = await history.rows_of_account(connection, query.account, services, period, windows)
        else:
            rows = await history.rows_of_apps(connection, ids, services, period, windows)
        whose = None if app is None else app.client_id
        always = set() if query.by_app and app is None else {(whose, service) for service in selected}
        return _Found(await asyncio.to_thread(history.in_columns, rows, windows, always), next_after)

    async def get_credential_use(self, query: GetCredentialUse) -> CredentialUse:
        """Answer GetCredentialUse."""
        app = await self._find(query.account, query.client_id)
        async with _connection(self._running().pool) as connection:
            return CredentialUse(secrets=await queries.secrets_used(connection, app.client_id))

    def _running(self) -> Started:
        if self._started is None:
            raise Unavailable("Metering is starting.")
        return self._started

    async def _find(self, account: str, client_id: str) -> AppRow:
        """The application. One that was registered a moment ago may still be on its way here: it is waited for."""
        async with _connection(self._running().pool) as connection:
            app = await self._awaited(connection, lambda: queries.find_app(connection, account, client_id))
        if app is None:
            raise NotFound(f"There is no application {client_id}.")
        return app

    async def _zone(self, connection: Connection, account: str) -> CivilWindows:
        """The account's zone, waited for as an application is."""
        zone = await self._awaited(connection, lambda: history.zone_of(connection, account))
        if zone is None:
            raise NotFound(f"There is no account {account}.")
        return civil(zone)

    async def _awaited(self, connection: Connection, look: Callable[[], Awaitable[T | None]]) -> T | None:
        found = await look()
        for delay_s in (0.0, RELAY_WAIT_S):
            if found is None:
                await asyncio.sleep(delay_s)
                await self._running().directory.await_registry(connection, REGISTRY_WAIT_S)
                found = await look()
        return found

    def _limit(self, app: AppRow, service: str, period: Period, limits: Limits) -> int | None:
        waits = service in app.test_services and service in self._catalog
        return limit_that_holds(period, limits, self._catalog[service].test_quota if waits else None)

    def _check_service(self, service: str, selected: Collection[str]) -> None:
        if service not in self._catalog and service not in selected:
            known = ", ".join(sorted(self._catalog))
            problem = FieldProblem("service", f"there is no service {service}", f"Give one of: {known}.")
            raise InvalidInput(history.BROKEN, [problem])


def history_windows(app: AppRow, query: GetUsage, now: datetime) -> list[Window]:
    """The windows that a query asks for, in the order of time; at least one. Raises InvalidInput."""
    default = HISTORY_WINDOWS[query.period]
    return history.asked_windows(app.windows, _KIND[query.period], query.from_, query.to, now, default, HISTORY_WINDOWS_MAX)


def _windows_of(zone: CivilWindows, query: GetUsageHistory, now: datetime) -> list[Window]:
    default = INTERVAL_WINDOWS[query.interval]
    return history.asked_windows(zone, query.interval, query.from_, query.to, now, default, HISTORY_ROWS_MAX)


def _position(counted: Mapping[str, Counted]) -> int:
    return max((one.sequence for one in counted.values()), default=0)


def _window_usage(window: Window, used: Used) -> WindowUsage:
    return WindowUsage(window_start=window.start, used=used.units, calls=used.calls, late=used.late_units)


@asynccontextmanager
async def _connection(pool: Pool) -> AsyncIterator[Connection]:
    """A connection; a lost database as what the asker may try again."""
    try:
        async with pool.acquire(timeout=ACQUIRE_S) as connection:
            yield connection
    except TollbookError:
        raise
    except Exception as error:
        if not may_pass(error):
            raise
        raise Unavailable("Metering's database does not answer now. Trying again later is safe.") from error
