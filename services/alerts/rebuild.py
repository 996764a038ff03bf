"""What alerts knows of others' streams, made again: the rows of REGISTRY, and where it goes on in streams that are others now.

Nothing is told by it. What a stream that has another history holds up to its end of now is passed over: what of
it is new, and what was told before, cannot be known.
"""

from __future__ import annotations

from typing import Final

import asyncpg
from nats.aio.client import Client

from services.alerts.following import follow_registry, write_rows
from services.alerts.serving import METERING_CONSUMER, REGISTRY_CONSUMER, REVIEW_CONSUMER
from shared.commands.contacts import SERVICE
from shared.events.metering import STREAM as METERING
from shared.events.registry import STREAM as REGISTRY
from shared.events.review import STREAM as REVIEW
from shared.postgres import Connection
from shared.streams.checkpoints import Point, Source, put_point
from shared.streams.declare import stream_state
from shared.streams.rereading import Facts, connected, end_of, has_changed, message_at, read_again

TIMEOUT_S: Final = 10.0
APPLICATIONS: Final = Facts(
    REGISTRY_CONSUMER, Source(REGISTRY), "DELETE FROM app; DELETE FROM account", follow_registry(write_rows)
)
TOLD: Final = ((METERING_CONSUMER, Source(METERING)), (REVIEW_CONSUMER, Source(REVIEW, optional=True)))


async def follow_again(owner_dsn: str, nats_url: str, nats_seed: str | None) -> str:
    """Read the applications again, and go on at the end of what has another history; what was done, in words. Alerts may run.

    Raises Conflict when REGISTRY is not whole, and Unavailable.
    """
    async with connected(SERVICE, nats_url, nats_seed) as nc:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn=owner_dsn, timeout=TIMEOUT_S)
        try:
            await connection.execute(f"SET search_path = {SERVICE}; SET lock_timeout = '60s'")
            async with connection.transaction():
                events = await read_again(connection, nc, APPLICATIONS, await end_of(nc, REGISTRY, "the registry"))
                passed = [source.stream for consumer, source in TOLD if await _go_on(connection, nc, consumer, source)]
        finally:
            await connection.close(timeout=TIMEOUT_S)
    read = f"the applications were read again from {events} events"
    return f"{read}; {' and '.join(passed)}, with another history now, is followed from its end" if passed else read


async def _go_on(connection: Connection, nc: Client, consumer: str, source: Source) -> bool:
    if not await has_changed(connection, nc, consumer, source):
        return False
    state = await stream_state(nc, source.stream)
    last = None if state is None else await message_at(nc, source.stream, state.last)
    await put_point(connection, consumer, source, last or Point(0, b""))
    return True
