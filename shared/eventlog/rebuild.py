"""Building a service's read tables again from its log: the proof that they hold nothing that the log does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final, TypeVar

import asyncpg

from shared.eventlog.changes import Change
from shared.eventlog.folding import Folding
from shared.eventlog.log import EventLog, Placed, collector_at_rest
from shared.events.codec import Event
from shared.postgres import Connection

E = TypeVar("E", bound=Event)

HELD_MAX: Final = 500_000
"""How many changes may come together in memory before their rows are written: a few hundred megabytes of them."""


async def rebuild(
    owner_dsn: str, schema: str, event_log: EventLog[E], project: Callable[[Placed, E], list[Change]], tables: Sequence[str]
) -> int:
    """Empty `tables` and project the whole log into them, in one transaction that no command can come between.

    What `project` writes besides the rows of `tables` must be `Idempotent`. Readers see the old rows until it commits. Returns
    how many events were projected. Nothing is sent to anyone by it.
    """
    async with _connected(owner_dsn, schema) as writing, _connected(owner_dsn, schema) as reading, writing.transaction():
        # So that the other connection finds the log as it is now, to its end. The table is locked, not its row alone: a statement
        # that waits for a row has looked at the tables before it waited, and would not find the rows that are made here.
        await writing.execute("LOCK TABLE log_head IN EXCLUSIVE MODE")
        for table in tables:
            await writing.execute(f"DELETE FROM {table}")  # noqa: S608 - names from the service's own code
        with collector_at_rest():
            return await _project(event_log, project, reading, writing)


async def _project(
    event_log: EventLog[E], project: Callable[[Placed, E], list[Change]], reading: Connection, writing: Connection
) -> int:
    projected = 0
    folding = Folding()
    async with aclosing(event_log.replay(reading)) as pages:
        async for page in pages:
            for past in page:
                folding.add(project(past, past.event))
            projected += len(page)
            if folding.held >= HELD_MAX:
                await folding.write(writing)
    await folding.write(writing)
    return projected


@asynccontextmanager
async def _connected(owner_dsn: str, schema: str) -> AsyncIterator[Connection]:
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn=owner_dsn, timeout=10)
    try:
        await connection.execute(f"SET search_path = {schema}")
        yield connection
    finally:
        await connection.close(timeout=10)
