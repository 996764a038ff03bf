"""Streams with something in them, and consumers that write down what they see."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client

from shared.clock import SystemClock
from shared.postgres import Connection, Pool
from shared.streams.checkpoints import Source
from shared.streams.consumer import Consumer, Handle
from shared.streams.message import Message
from shared.streams.publish import Outgoing, publish_batch
from tests.support.crashes import Tripwire, TripwireClient, TripwirePool, until

SEE = "INSERT INTO seen (stream, subject, sequence, data) VALUES ($1, $2, $3, $4)"
LEDGER = Source("LEDGER")
FIRST, SECOND = Source("USAGE", "usage.records.1"), Source("USAGE", "usage.records.2")


async def see(connection: Connection, batch: Sequence[Message]) -> None:
    await connection.executemany(SEE, [(m.stream, m.subject, m.sequence, m.data.decode()) for m in batch])


class Stage:
    """Streams, what was published there, and consumers that write what they see."""

    def __init__(self, pool: Pool, nc: Client) -> None:
        self.pool = pool
        self.nc = nc
        self.published: dict[str, list[str]] = defaultdict(list)
        self.tasks: list[asyncio.Task[None]] = []

    async def publish(self, count: int, subject: str = "ledger.events.Thing") -> int:
        """The last sequence."""
        last = 0
        while count:
            size = min(count, 500)
            start = len(self.published[subject])
            data = [f"{subject} {start + n}" for n in range(size)]
            outgoing = [Outgoing(subject, text.encode(), {}) for text in data]
            last = await publish_batch(self.nc, outgoing, expected_last_sequence=None)
            self.published[subject] += data
            count -= size
        return last

    async def consumer(
        self, *sources: Source, wire: Tripwire | None = None, handle: Handle = see, nc: Client | None = None, **settings: Any
    ) -> tuple[Consumer, asyncio.Task[None]]:
        pool: Any = self.pool if wire is None else TripwirePool(self.pool, wire)
        connected = nc or self.nc
        client: Any = connected if wire is None else TripwireClient(connected, wire)
        consumer = Consumer("test", pool, lambda: client, handle, clock=SystemClock(), **settings)
        for source in sources:
            await consumer.add(source)
        task = asyncio.create_task(consumer.run())
        self.tasks.append(task)
        return consumer, task

    async def seen(self) -> dict[str, list[str]]:
        async with self.pool.acquire() as connection:
            rows = await connection.fetch("SELECT subject, data FROM seen ORDER BY n")
        found: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            found[row["subject"]].append(row["data"])
        return found

    async def settled(self, *subjects: str) -> None:
        """All that was published was seen, each once and in order."""

        async def all_there() -> bool:
            async with self.pool.acquire() as connection:
                count = await connection.fetchval("SELECT count(*) FROM seen")
            return bool(count >= sum(len(data) for data in self.published.values()))

        await until(all_there, "all messages to be seen")
        assert await self.seen() == {subject: data for subject, data in self.published.items() if data}

    async def checkpoint(self, source: Source = LEDGER) -> int:
        async with self.pool.acquire() as connection:
            return int(
                await connection.fetchval(
                    "SELECT sequence FROM checkpoint WHERE stream = $1 AND subject = $2", source.stream, source.subject or ""
                )
            )


async def ready(consumer: Consumer) -> None:
    await until(lambda: consumer.readiness().ready, "the consumer to be ready")


async def said(consumer: Consumer, words: str) -> None:
    await until(lambda: words in consumer.readiness().detail, f"{words!r} to be said")
    assert not consumer.readiness().ready
