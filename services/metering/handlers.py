"""What metering answers about usage. Subjects metering.queries.<Name>."""

from __future__ import annotations

import asyncio
from typing import Final

from services.metering import corrections, history, queries, reads
from services.metering.ends import Ends
from services.metering.limits import no_app
from services.metering.queries import AppRow
from services.metering.serving import Started, awaited
from shared.answering import Answering, Answers, reading
from shared.catalog import Catalog
from shared.clock import Clock
from shared.commands.corrections import CorrectionPage, ListCorrections
from shared.commands.metering import (
    SERVICE,
    CredentialUse,
    FirstCall,
    GetCredentialUse,
    GetFirstCall,
    GetUsage,
    GetUsageHistory,
    GetUsageOfApps,
    Usage,
    UsageHistory,
    UsageOfApps,
)
from shared.errors import NotFound
from shared.postgres import Connection
from shared.windows import CivilWindows, civil

HISTORIES_MAX: Final = 2
"""Long histories are read this many at a time, so that they leave connections for everything else."""


class Handlers(Answering[Started]):
    """What metering answers about usage."""

    service = SERVICE

    def __init__(self, catalog: Catalog, ends: Ends, clock: Clock) -> None:
        super().__init__()
        self._catalog = catalog
        self._ends = ends
        self._clock = clock
        self._histories = asyncio.Semaphore(HISTORIES_MAX)

    @property
    def answers(self) -> Answers:
        return {
            GetUsage: self.get_usage,
            GetUsageOfApps: self.get_usage_of_apps,
            GetUsageHistory: self.get_usage_history,
            GetFirstCall: self.get_first_call,
            GetCredentialUse: self.get_credential_use,
            ListCorrections: self.list_corrections,
        }

    async def get_usage(self, query: GetUsage) -> Usage:
        """Answer GetUsage."""
        now = self._clock.now()
        async with reading(self.running.pool) as connection:
            looked, app = await asyncio.gather(self._ends.look(), self._app(connection, query.account, query.client_id))
            return await reads.usage(connection, app, query, self._catalog, looked, now)

    async def get_usage_of_apps(self, query: GetUsageOfApps) -> UsageOfApps:
        """Answer GetUsageOfApps."""
        now = self._clock.now()
        looked = await self._ends.look()
        async with reading(self.running.pool) as connection:
            return await reads.usage_of_apps(connection, query, self._catalog, looked, now)

    async def get_usage_history(self, query: GetUsageHistory) -> UsageHistory:
        """Answer GetUsageHistory."""
        now = self._clock.now()
        looked = await self._ends.look()
        async with self._histories, reading(self.running.pool) as connection:
            app = None if query.client_id is None else await self._app(connection, query.account, query.client_id)
            zone = app.windows if app is not None else await self._zone(connection, query.account)
            return await reads.usage_history(connection, query, app, zone, self._catalog, looked, now)

    async def get_first_call(self, query: GetFirstCall) -> FirstCall:
        """Answer GetFirstCall."""
        async with reading(self.running.pool) as connection:
            looked, app = await asyncio.gather(self._ends.look(), self._app(connection, query.account, query.client_id))
            return await reads.first_call(connection, app, query, self._catalog, looked)

    async def get_credential_use(self, query: GetCredentialUse) -> CredentialUse:
        """Answer GetCredentialUse."""
        started = self.running
        async with reading(started.pool) as connection:
            app = await self._app(connection, query.account, query.client_id)
            return CredentialUse(secrets=await queries.secrets_used(connection, app.client_id))

    async def list_corrections(self, query: ListCorrections) -> CorrectionPage:
        """Answer ListCorrections."""
        async with reading(self.running.pool) as connection:
            return await corrections.page_of(connection, await self._app(connection, query.account, query.client_id), query)

    async def _app(self, connection: Connection, account: str, client_id: str) -> AppRow:
        app = await awaited(connection, self.running.directory, lambda: queries.find_app(connection, account, client_id))
        if app is None:
            raise no_app(client_id)
        return app

    async def _zone(self, connection: Connection, account: str) -> CivilWindows:
        """The account's zone, waited for as an application is."""
        zone = await awaited(connection, self.running.directory, lambda: history.zone_of(connection, account))
        if zone is None:
            raise NotFound(f"There is no account {account}.")
        return civil(zone)
