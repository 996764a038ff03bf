"""What metering answers about usage. Subjects metering.queries.<Name>."""

from __future__ import annotations

import asyncio
from typing import Final

from faststream.nats import NatsBroker

from services.metering import corrections, history, queries, reads
from services.metering.ends import Ends
from services.metering.limits import no_app
from services.metering.queries import AppRow
from services.metering.serving import Started, awaited, reading
from shared.catalog import Catalog
from shared.clock import Clock
from shared.commands.corrections import CorrectionPage, ListCorrections
from shared.commands.metering import (
    SERVICE,
    CredentialUse,
    GetCredentialUse,
    GetUsage,
    GetUsageHistory,
    GetUsageOfApps,
    Usage,
    UsageHistory,
    UsageOfApps,
)
from shared.commands.requester import subject_of
from shared.errors import NotFound, Unavailable
from shared.postgres import Connection
from shared.readiness import Readiness
from shared.windows import CivilWindows, civil

WORKERS_MAX: Final = 16
HISTORIES_MAX: Final = 2
"""Long histories are read this many at a time, so that they leave connections for everything else."""


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

        @broker.subscriber(subject_of(SERVICE, GetUsageOfApps), queue=SERVICE, max_workers=WORKERS_MAX)
        async def get_usage_of_apps(query: GetUsageOfApps) -> UsageOfApps:
            return await self.get_usage_of_apps(query)

        @broker.subscriber(subject_of(SERVICE, GetUsageHistory), queue=SERVICE, max_workers=HISTORIES_MAX)
        async def get_usage_history(query: GetUsageHistory) -> UsageHistory:
            return await self.get_usage_history(query)

        @broker.subscriber(subject_of(SERVICE, GetCredentialUse), queue=SERVICE, max_workers=WORKERS_MAX)
        async def get_credential_use(query: GetCredentialUse) -> CredentialUse:
            return await self.get_credential_use(query)

        @broker.subscriber(subject_of(SERVICE, ListCorrections), queue=SERVICE, max_workers=WORKERS_MAX)
        async def list_corrections(query: ListCorrections) -> CorrectionPage:
            return await self.list_corrections(query)

    async def get_usage(self, query: GetUsage) -> Usage:
        """Answer GetUsage."""
        now = self._clock.now()
        async with reading(self._running().pool) as connection:
            looked, app = await asyncio.gather(self._ends.look(), self._app(connection, query.account, query.client_id))
            return await reads.usage(connection, app, query, self._catalog, looked, now)

    async def get_usage_of_apps(self, query: GetUsageOfApps) -> UsageOfApps:
        """Answer GetUsageOfApps."""
        now = self._clock.now()
        looked = await self._ends.look()
        async with reading(self._running().pool) as connection:
            return await reads.usage_of_apps(connection, query, self._catalog, looked, now)

    async def get_usage_history(self, query: GetUsageHistory) -> UsageHistory:
        """Answer GetUsageHistory."""
        now = self._clock.now()
        looked = await self._ends.look()
        async with reading(self._running().pool) as connection:
            app = None if query.client_id is None else await self._app(connection, query.account, query.client_id)
            zone = app.windows if app is not None else await self._zone(connection, query.account)
            return await reads.usage_history(connection, query, app, zone, self._catalog, looked, now)

    async def get_credential_use(self, query: GetCredentialUse) -> CredentialUse:
        """Answer GetCredentialUse."""
        started = self._running()
        async with reading(started.pool) as connection:
            app = await self._app(connection, query.account, query.client_id)
            return CredentialUse(secrets=await queries.secrets_used(connection, app.client_id))

    async def list_corrections(self, query: ListCorrections) -> CorrectionPage:
        """Answer ListCorrections."""
        async with reading(self._running().pool) as connection:
            return await corrections.page_of(connection, await self._app(connection, query.account, query.client_id), query)

    def _running(self) -> Started:
        if self._started is None:
            raise Unavailable("Metering is starting.")
        return self._started

    async def _app(self, connection: Connection, account: str, client_id: str) -> AppRow:
        app = await awaited(connection, self._running().directory, lambda: queries.find_app(connection, account, client_id))
        if app is None:
            raise no_app(client_id)
        return app

    async def _zone(self, connection: Connection, account: str) -> CivilWindows:
        """The account's zone, waited for as an application is."""
        zone = await awaited(connection, self._running().directory, lambda: history.zone_of(connection, account))
        if zone is None:
            raise NotFound(f"There is no account {account}.")
        return civil(zone)
