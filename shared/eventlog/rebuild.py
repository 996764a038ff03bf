"""Building a service's read tables again from its log: the proof that they hold nothing that the log does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import asyncpg

from shared.eventlog.changes import Change, apply
from shared.eventlog.log import EventLog, Recorded
from shared.events.codec import Event

E = TypeVar("E", bound=Event)


async def rebuild(
    owner_dsn: str, schema: str, event_log: EventLog[E], project: Callable[[Recorded, E], list[Change]], tables: Sequence[str]
) -> int:
    """Empty `tables` and project the whole log into them, in one transaction that no command can come between.

    Readers see the old rows until it commits. Returns how many events were projected. Nothing is sent to anyone by it.
    """
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn=owner_dsn, timeout=10)
    projected = 0
    try:
        await connection.execute(f"SET search_path = {schema}")
        async with connection.transaction():
            await event_log.lock_head(connection)
            for table in tables:
                await connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names from the service's own code
            async for page in event_log.pages(connection):
                changes = [change for recorded in page for change in project(recorded, event_log.decode(recorded))]
                await apply(connection, changes)
                projected += len(page)
    finally:
        await connection.close(timeout=10)
    return projected
