"""Sharing the sources out among workers: by leases in PostgreSQL, by its clock.

Every second a worker says that it lives, renews its leases, gives back what is above its fair share, and takes what is free up to
it. A worker that says nothing for EXPIRY_S loses its leases to the others. Should two follow one source for a moment, the
checkpoint's compare-and-set lets only one of them commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, Protocol

from shared.clock import Clock
from shared.postgres import Connection, Pool
from shared.readiness import Readiness
from shared.streams.passing import may_pass

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 1.0
EXPIRY_S: Final = 4.0
ACQUIRE_S: Final = 2.0

_DECLARE: Final = "INSERT INTO lease (source) SELECT unnest($1::text[]) ON CONFLICT (source) DO NOTHING"
_LIVE: Final = """
    INSERT INTO worker (worker, seen_at) VALUES ($1, now()) ON CONFLICT (worker) DO UPDATE SET seen_at = excluded.seen_at
"""
_FORGET_DEAD: Final = "DELETE FROM worker WHERE seen_at < now() - make_interval(secs => $1)"
_COUNT: Final = "SELECT count(*) FROM worker"
_RENEW: Final = """
    UPDATE lease SET expires_at = now() + make_interval(secs => $2)
    WHERE source IN (SELECT source FROM lease WHERE worker = $1 AND source = ANY($3::text[]) ORDER BY source FOR UPDATE)
    RETURNING source
"""
_TAKE: Final = """
    UPDATE lease SET worker = $1, expires_at = now() + make_interval(secs => $2)
    WHERE source IN (
        SELECT source FROM lease WHERE source = ANY($3::text[]) AND (worker IS NULL OR expires_at < now())
        ORDER BY source LIMIT $4 FOR UPDATE SKIP LOCKED)
    RETURNING source
"""
_GIVE_BACK: Final = "UPDATE lease SET worker = NULL, expires_at = NULL WHERE worker = $1 AND source = ANY($2::text[])"
_LEAVE: Final = "DELETE FROM worker WHERE worker = $1"


class Part(Protocol):
    """What is done with a source while it is held. Both may be called in any state, and neither raises for what may pass."""

    async def begin(self) -> None: ...

    async def end(self) -> None: ...


class Partitions:
    """Holds this worker's share of the `parts`. `worker` is a name that no other process has or had."""

    def __init__(self, pool: Pool, worker: str, parts: Mapping[str, Part], clock: Clock) -> None:
        self.held: set[str] = set()
        self._pool = pool
        self._worker = worker
        self._parts = parts
        self._clock = clock
        self._heard_at: float | None = None

    def readiness(self) -> Readiness:
        """Ready while PostgreSQL hears this worker; holding nothing is fine."""
        late = self._heard_at is None or self._clock.monotonic() - self._heard_at > EXPIRY_S
        if late:
            return Readiness(False, "PostgreSQL has not heard this worker's heartbeat")
        return Readiness(True, f"follows {len(self.held)} of {len(self._parts)}: {', '.join(sorted(self.held))}")

    async def run(self) -> None:
        """Share until cancelled; then give everything back."""
        try:
            while True:
                try:
                    await self.beat()
                except Exception as error:
                    if not may_pass(error):
                        raise
                    log.warning("metering: no heartbeat: %s", error or type(error).__name__)
                    if self._heard_at is not None and self._clock.monotonic() - self._heard_at > EXPIRY_S:
                        await self._end(self.held.copy())
                await asyncio.sleep(HEARTBEAT_S)
        finally:
            await self._leave()

    async def beat(self) -> None:
        """One heartbeat: afterwards the parts that are held, and only they, are begun. Raises what asyncpg raises."""
        names = sorted(self._parts)
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection, connection.transaction():
            fair = await self._fair_share(connection)
            renewed = {row["source"] for row in await connection.fetch(_RENEW, self._worker, EXPIRY_S, names)}
            taken: set[str] = set()
            if len(renewed) < fair:
                wanted = fair - len(renewed)
                taken = {row["source"] for row in await connection.fetch(_TAKE, self._worker, EXPIRY_S, names, wanted)}
        self._heard_at = self._clock.monotonic()
        await self._end(self.held - renewed)
        surplus = set(sorted(renewed)[fair:])
        if surplus:
            await self._end(surplus)
            async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
                await connection.execute(_GIVE_BACK, self._worker, sorted(surplus))
        for name in sorted((renewed | taken) - surplus - self.held):
            self.held.add(name)
            await self._parts[name].begin()

    async def _fair_share(self, connection: Connection) -> int:
        """How many parts each of the workers that live may hold: all of them together can hold every part."""
        if self._heard_at is None:
            await connection.execute(_DECLARE, sorted(self._parts))
        await connection.execute(_LIVE, self._worker)
        await connection.execute(_FORGET_DEAD, EXPIRY_S)
        live: int = await connection.fetchval(_COUNT)
        return -(-len(self._parts) // live)

    async def _end(self, names: set[str]) -> None:
        for name in sorted(names):
            self.held.discard(name)
            await self._parts[name].end()

    async def _leave(self) -> None:
        """Let the others take over at once. If that fails, they do when the leases expire."""
        await self._end(self.held.copy())
        try:
            async with asyncio.timeout(ACQUIRE_S), self._pool.acquire(timeout=ACQUIRE_S) as connection:
                await connection.execute(_GIVE_BACK, self._worker, sorted(self._parts))
                await connection.execute(_LEAVE, self._worker)
        except Exception as error:
            if not may_pass(error):
                raise
            log.info("metering: the leases are left to expire: %s", type(error).__name__)
