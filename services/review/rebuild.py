"""What review knows of REGISTRY, made again. Nothing is retired by it, and nothing told."""

from __future__ import annotations

from typing import Final

import asyncpg

from services.review.following import CONSUMER, follow_registry, write_rows
from shared.commands.review import SERVICE
from shared.events.registry import STREAM as REGISTRY
from shared.streams.checkpoints import Source
from shared.streams.rereading import Facts, connected, end_of, read_again

TIMEOUT_S: Final = 10.0
APPLICATIONS: Final = Facts(CONSUMER, Source(REGISTRY), "DELETE FROM app_service; DELETE FROM app", follow_registry(write_rows))


async def follow_again(owner_dsn: str, nats_url: str, nats_seed: str | None) -> str:
    """Read the applications again; what was done, in words. Review may run.

    Raises Conflict when REGISTRY is not whole, and Unavailable.
    """
    async with connected(SERVICE, nats_url, nats_seed) as nc:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn=owner_dsn, timeout=TIMEOUT_S)
        try:
            await connection.execute(f"SET search_path = {SERVICE}; SET lock_timeout = '60s'")
            async with connection.transaction():
                events = await read_again(connection, nc, APPLICATIONS, await end_of(nc, REGISTRY, "the registry"))
        finally:
            await connection.close(timeout=TIMEOUT_S)
    return f"the applications were read again from {events} events"
