"""What metering answers about usage. Subjects metering.queries.<Name>."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Final

from faststream.nats import NatsBroker

from services.metering import queries
from services.metering.ends import Ends, as_of
from services.metering.limits import check_service, no_app
from services.metering.limits_of import limits_of
from services.metering.projection import LETTER
from services.metering.queries import AppRow, Used
from services.metering.serving import Started, awaited, reading
from shared.catalog import Catalog
from shared.clock import Clock
from shared.commands.metering import (
    HISTORY_WINDOWS,
    HISTORY_WINDOWS_MAX,
    SERVICE,
    CredentialUse,
    GetCredentialUse,
    GetUsage,
    Moment,
    Period,
    Usage,
    WindowUsage,
)
from shared.commands.requester import subject_of
from shared.errors import FieldProblem, InvalidInput, Unavailable
from shared.postgres import Connection
from shared.readiness import Readiness
from shared.windows import Kind, Window

WORKERS_MAX: Final = 16
_KIND: Final[Mapping[Period, Kind]] = {"daily": "day", "monthly": "month"}


class Handlers:
    """What metering answers about usage. Before `start` it answers Unavailable."""

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

        @broker.subscriber(subject_of(SERVICE, GetCredentialUse), queue=SERVICE, max_workers=WORKERS_MAX)
        async def get_credential_use(query: GetCredentialUse) -> CredentialUse:
            return await self.get_credential_use(query)

    async def get_usage(self, query: GetUsage) -> Usage:
        """Answer GetUsage."""
        now = self._clock.now()
        started = self._running()
        looked = await self._ends.look()
        async with reading(started.pool) as connection:
            app = await self._app(connection, query.account, query.client_id)
            self._check_service(app, query.service)
            windows = history_windows(app, query, now)
            open_now = app.windows.of(_KIND[query.period], now)
            first, last = min(windows[0].start, open_now.start), max(windows[-1].start, open_now.start)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                counted = await queries.counted_up_to(connection)
                used = await queries.used_by_window(connection, app.client_id, query.service, LETTER[query.period], first, last)
                limit = await self._limit(connection, app.client_id, query.service, query.period)
        current = used.get(open_now.start, Used())
        return Usage(
            client_id=app.client_id,
            service=query.service,
            period=query.period,
            zone=app.windows.zone,
            used=current.units,
            calls=current.calls,
            limit=limit,
            late=current.late_units,
            window_start=open_now.start,
            resets_at=open_now.end,
            as_of=as_of(looked, counted, app.registered_at),
            position=max((one.sequence for one in counted.values()), default=0),
            history=tuple(_window_usage(window, used.get(window.start, Used())) for window in windows),
        )

    async def get_credential_use(self, query: GetCredentialUse) -> CredentialUse:
        """Answer GetCredentialUse."""
        started = self._running()
        async with reading(started.pool) as connection:
            app = await self._app(connection, query.account, query.client_id)
            return CredentialUse(secrets=await queries.secrets_used(connection, app.client_id))

    async def _limit(self, connection: Connection, client_id: str, service: str, period: Period) -> int | None:
        """The application's own limit, or the test quota if that is lower."""
        limits = (await limits_of(connection, [(client_id, service)])).get((client_id, service))
        entry = self._catalog.get(service)
        return None if limits is None else limits.effective(period, None if entry is None else entry.test_quota)

    def _running(self) -> Started:
        if self._started is None:
            raise Unavailable("Metering is starting.")
        return self._started

    async def _app(self, connection: Connection, account: str, client_id: str) -> AppRow:
        app = await awaited(connection, self._running().directory, lambda: queries.find_app(connection, account, client_id))
        if app is None:
            raise no_app(client_id)
        return app

    def _check_service(self, app: AppRow, service: str) -> None:
        if service not in app.services:
            check_service(service, self._catalog)


def history_windows(app: AppRow, query: GetUsage, now: datetime) -> list[Window]:
    """The windows that a query asks for, in the order of time; at least one. Raises InvalidInput."""
    kind = _KIND[query.period]
    last = now if query.to is None else _instant(app, query.to)
    if query.from_ is not None:
        first = _instant(app, query.from_)
    else:
        first = app.windows.before(kind, last, HISTORY_WINDOWS[query.period] - 1).start
    found = list(islice(app.windows.between(kind, first, last), HISTORY_WINDOWS_MAX + 1))
    if not found:
        problem = FieldProblem("from", "it is after `to`", "Give an earlier `from`, or a later `to`.")
    elif len(found) > HISTORY_WINDOWS_MAX:
        problem = FieldProblem(
            "from", f"from there to `to` are more than {HISTORY_WINDOWS_MAX} windows", "Ask for the history piece by piece."
        )
    else:
        return found
    raise InvalidInput("The query breaks the rules named in `fields`.", [problem])


def _instant(app: AppRow, moment: Moment) -> datetime:
    assert moment is not None, "looked at before"
    return moment if isinstance(moment, datetime) else app.windows.day_start(moment)


def _window_usage(window: Window, used: Used) -> WindowUsage:
    return WindowUsage(window_start=window.start, used=used.units, calls=used.calls)
