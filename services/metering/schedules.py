"""Carrying out scheduled changes of limits, by whichever worker has the housekeeping: each once, in the order of their time, also
when metering was away then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from services.metering import limit_queries, limits
from services.metering.projection import project
from shared.eventlog.changes import apply
from shared.eventlog.log import Entry, EventLog, Meta
from shared.events.metering import MeteringEvent
from shared.postgres import Connection
from shared.windows import civil

DUE_MAX: Final = 200
"""Changes that one look carries out, at most; each in a transaction of its own, on what the one before has made."""

_DUE: Final = """
    SELECT schedule_id, account, client_id, service, requested_by, zone FROM limit_schedule JOIN account USING (account)
    WHERE effective_at <= $1 ORDER BY effective_at, requested_at, schedule_id LIMIT $2
"""


async def carry_out(
    connection: Connection, event_log: EventLog[MeteringEvent], now: datetime, committed: Callable[[], None] = lambda: None
) -> int:
    """Have the changes that are due at `now` take effect; how many did. The events' actor is who asked for the change."""
    done = 0
    for row in await connection.fetch(_DUE, now, DUE_MAX):
        scope = (row["account"], row["client_id"], row["service"])
        async with connection.transaction():
            head = await event_log.lock_head(connection)
            stream = limits.stream_of(*scope)
            history = await event_log.read_stream(connection, stream)
            state = limits.Scope()
            for recorded in history:
                state = limits.evolve(state, event_log.decode(recorded))
            windows = await limit_queries.open_windows(connection, scope, state.version, civil(row["zone"]), now)
            events = limits.take_effect(state, windows, row["schedule_id"])
            meta = Meta(actor=row["requested_by"], causation_id=row["schedule_id"])
            appended = event_log.prepare(head, [Entry(stream, len(history), events, meta)], now)
            await event_log.write(connection, appended)
            pairs = zip(appended, events, strict=True)
            await apply(connection, [change for one, event in pairs for change in project(one, event)])
        if events:
            committed()
            done += 1
    return done
