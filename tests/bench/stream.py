"""Foreign events into a projection, exactly once: the registry's stream into metering's tables, through the consumer."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from nats.aio.client import Client

from services.metering.following import registry_consumer
from shared.clock import SystemClock
from shared.events.registry import CODEC
from shared.events.registry import STREAM as REGISTRY
from shared.postgres import Pool, open_pool
from shared.streams.checkpoints import Source
from tests.bench.examples import issue, lives, opened, publish_registry
from tests.bench.measure import Aim, Row, interleaved, row, said
from tests.bench.place import WAIT_S, Place
from tests.bench.pulling import decoder, fetched
from tests.support.servers import PostgresDatabase, connect_nats

APPS: Final = 15_000
_FORGET: Final = "TRUNCATE app, account, kv_dirty; DELETE FROM checkpoint"


async def projected(nc: Client, pool: Pool, last: int) -> float:
    """Follow the stream from its first event into empty tables: events a second."""
    consumer = registry_consumer(pool, lambda: nc, SystemClock())
    await consumer.add(Source(REGISTRY))
    began = time.perf_counter()
    running = asyncio.create_task(consumer.run())
    try:
        await asyncio.sleep(0.02)  # it reads its checkpoint first
        await consumer.caught_up(REGISTRY, last, WAIT_S)
        return last / (time.perf_counter() - began)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def forgotten(database: PostgresDatabase) -> None:
    """Empty the tables, and forget that anything was read."""
    import asyncpg

    connection = await asyncpg.connect(database.owner_dsn, server_settings={"search_path": "metering"})
    try:
        await connection.execute(_FORGET)
    finally:
        await connection.close()


async def measure(place: Place) -> list[Row]:
    """The consumer beside nats-py's own loop, on the same stream."""
    async with place.cleared() as (nc, database):
        dsn = await database.service_schema("metering")
        events = [opened(), *(event for _, event in lives(issue(APPS)))]
        said(f"  filling REGISTRY: {len(events):,} events")
        last = await publish_registry(nc, events)
        pool = await open_pool(dsn.dsn, "metering")
        decode = decoder(CODEC)

        own = await connect_nats(place.nats_url)  # its reading is replaced; the reference has nats-py's as it comes

        async def ours() -> float:
            await forgotten(database)
            return await projected(own, pool, last)

        try:
            found = await interleaved(
                {
                    "projected into PostgreSQL": ours,
                    "nats-py fetch(1000)": lambda: fetched(nc, REGISTRY, "registry.events.>", last, decode),
                }
            )
        finally:
            await pool.close()
            await own.close()
    mine, reference = found.values()
    what = "foreign events projected into PostgreSQL, each exactly once"
    return [row("stream", what, "events/s", mine, reference, "nats-py `fetch(1000)` and decode, no database", Aim(2.0))]
