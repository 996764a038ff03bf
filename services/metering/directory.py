"""Which applications there are, as counting needs it: remembered, and always as new as the transaction that asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import asyncpg

from services.metering.fields import CLIENT_ID
from services.metering.growth import App
from shared.clock import Clock
from shared.events.registry import STREAM as REGISTRY
from shared.postgres import Connection
from shared.streams.awaiting import await_applied
from shared.streams.jetstream import Connected
from shared.windows import civil, to_us

REGISTRY_CONSUMER: Final = "metering-registry"
APPS_MAX: Final = 200_000
"""Applications remembered, at most: about 100 MB."""
REGISTRY_WAIT_S: Final = 5.0

# Always a row at least: `made` is another number when the table was emptied for a rebuild.
_CHANGED: Final = """
    SELECT pg_relation_filenode('app') AS made, changed.* FROM (VALUES (1)) AS one LEFT JOIN (
        SELECT client_id, account, zone, deleted_at, position FROM app JOIN account USING (account) WHERE position > $1
    ) AS changed ON true
"""
_SOME: Final = """
    SELECT client_id, account, zone, deleted_at, position FROM app JOIN account USING (account) WHERE client_id = ANY($1::text[])
"""
_NEWEST: Final = "SELECT coalesce(max(position), 0) AS position, pg_relation_filenode('app') AS made FROM app"


class Directory:
    """The applications that records spoke of lately."""

    def __init__(self, nc: Connected, clock: Clock) -> None:
        self._nc = nc
        self._clock = clock
        self._apps: dict[str, App] = {}
        self._position: int | None = None
        self._made = 0

    async def refresh(self, connection: Connection) -> None:
        """Bring what is remembered up to date. First in every transaction."""
        if self._position is None or len(self._apps) > APPS_MAX:
            await self._begin(connection)
            return
        for row in await connection.fetch(_CHANGED, self._position):
            if row["made"] != self._made:
                await self._begin(connection)
                return
            if row["client_id"] is not None:
                self._apps[row["client_id"]] = _app(row)
                self._position = max(self._position, row["position"])

    async def _begin(self, connection: Connection) -> None:
        """Remember nothing."""
        self._apps.clear()
        row = await connection.fetchrow(_NEWEST)
        assert row is not None, "an aggregate"
        self._position, self._made = row["position"], row["made"]

    async def load(self, connection: Connection, client_ids: Iterable[str]) -> Mapping[str, App]:
        """A directory with those of the applications that exist.

        One that is not there is looked for again when everything that the registry had decided by now has come here. Raises
        Unavailable when that takes too long.
        """
        missing = self._missing(client_ids)
        if missing:
            await self._fetch(connection, missing)
            missing = self._missing(missing)
        if missing:
            await self.await_registry(connection)
            await self._fetch(connection, missing)
        return self._apps

    async def await_registry(self, connection: Connection, timeout_s: float = REGISTRY_WAIT_S) -> None:
        """Wait until every event that is in the registry's stream now has been applied here, by whichever worker."""
        await await_applied(connection, self._nc, REGISTRY_CONSUMER, REGISTRY, timeout_s, self._clock)

    def _missing(self, client_ids: Iterable[str]) -> list[str]:
        return [one for one in client_ids if one not in self._apps and CLIENT_ID.fullmatch(one)]

    async def _fetch(self, connection: Connection, client_ids: list[str]) -> None:
        for row in await connection.fetch(_SOME, client_ids):
            self._apps[row["client_id"]] = _app(row)


def _app(row: asyncpg.Record) -> App:
    deleted_at = row["deleted_at"]
    return App(row["account"], civil(row["zone"]), None if deleted_at is None else to_us(deleted_at))
