"""Events into alerts' own log, many at once, in a transaction that has more to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from services.alerts.projection import project
from shared.eventlog.changes import apply
from shared.eventlog.log import Entry, EventLog, Head
from shared.events.alerts import AlertsEvent
from shared.postgres import Connection

AT_ONCE: Final = 2_000
"""Events in a statement: few enough that none takes long, and that what else waits has a turn in between."""


STANDSTILL_S: Final = 5
_NO_STANDSTILL: Final = f"SELECT set_config('idle_in_transaction_session_timeout', '{STANDSTILL_S}s', true)"


async def no_standstill(connection: Connection) -> None:
    """From here on to its end this transaction may pause for STANDSTILL_S: if its process stands still, it is given up, so that
    others get what it has locked."""
    await connection.execute(_NO_STANDSTILL)


async def append(connection: Connection, log: EventLog[AlertsEvent], head: Head, entries: Sequence[Entry[AlertsEvent]]) -> Head:
    """Append the entries, of one event each, and project them. The caller holds the head; returns where it is then."""
    for start in range(0, len(entries), AT_ONCE):
        some = entries[start : start + AT_ONCE]
        recorded = log.prepare(head, some)
        await log.write(connection, recorded)
        pairs = zip(recorded, (entry.events[0] for entry in some), strict=True)
        await apply(connection, [change for row, event in pairs for change in project(row, event)])
        head = Head(recorded[-1].position, recorded[-1].hash)
        await asyncio.sleep(0)
    return head
