"""What metering answers. Subjects metering.queries.<Name>."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple

from faststream.nats import NatsBroker

from services.metering import queries
from services.metering.directory import Directory
from services.metering.ends import Ends, as_of
from services.metering.queries import AppRow, Used
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
from shared.errors import FieldProblem, InvalidInput, NotFound, TollbookError, Unavailable
from shared.postgres import Connection, Pool
from shared.readiness import Readiness
from shared.streams.passing import may_pass
from shared.windows import Kind, Window

WORKERS_MAX: Final = 16
ACQUIRE_S: Final = 2.0
REGISTRY_WAIT_S: Final = 0.5
RELAY_WAIT_S: Final = 0.1
_KIND: Final[Mapping[Period, Kind]] = {"daily": "day", "monthly": "month"}
_PERIOD: Final[Mapping[Period, str]] = {"daily": "d", "monthly": "m"}


class Started(NamedTuple):
    """What there is once the service has started."""

    pool: Pool
    directory: Directory


class Handlers:
    """Everything that metering answers. `services` are the ids of the catalog. Before `start` it answers Unavailable."""

    def __init__(self, services: Collection[str], ends: Ends, clock: Clock) -> None:
        self._services = services
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
        async with _connection(started.pool) as connection:
            app = await self._app(connection, query.account, query.client_id)
            self._check_service(app, query.service)
            windows = history_windows(app, query, now)
            open_now = app.windows.of(_KIND[query.period], now)
            first, last = min(windows[0].start, open_now.start), max(windows[-1].start, open_now.start)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                counted = await queries.counted_up_to(connection)
                used = await queries.used_by_window(connection, app.client_id, query.service, _PERIOD[query.period], first, last)
        current = used.get(open_now.start, Used())
        return Usage(
            client_id=app.client_id,
            service=query.service,
            period=query.period,
            zone=app.windows.zone,
            used=current.units,
            calls=current.calls,
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
        async with _connection(started.pool) as connection:
            app = await self._app(connection, query.account, query.client_id)
            return CredentialUse(secrets=await queries.secrets_used(connection, app.client_id))

    def _running(self) -> Started:
        if self._started is None:
            raise Unavailable("Metering is starting.")
        return self._started

    async def _app(self, connection: Connection, account: str, client_id: str) -> AppRow:
        """The application. One that was registered a moment ago may still be on its way here: it is waited for."""
        app = await queries.find_app(connection, account, client_id)
        for delay_s in (0.0, RELAY_WAIT_S):
            if app is None:
                await asyncio.sleep(delay_s)
                await self._running().directory.await_registry(connection, REGISTRY_WAIT_S)
                app = await queries.find_app(connection, account, client_id)
        if app is None:
            raise NotFound(f"There is no application {client_id}.")
        return app

    def _check_service(self, app: AppRow, service: str) -> None:
        if service not in self._services and service not in app.services:
            known = ", ".join(sorted(self._services))
            problem = FieldProblem("service", f"there is no service {service}", f"Give one of: {known}.")
            raise InvalidInput("The query breaks the rules named in `fields`.", [problem])


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
