"""What the calendar asks for: new days on the dashboards, scheduled changes of limits, shelves for new months and none for old
ones, and forgetting what is too old to be repeated."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from services.metering.dashboard import BUCKET
from services.metering.domain import REMEMBERED_US
from services.metering.retention import Retention
from services.metering.schedules import carry_out
from shared.clock import Clock
from shared.eventlog.log import EventLog
from shared.events.metering import MeteringEvent
from shared.events.usage import CLOUDEVENTS_SUBJECT
from shared.postgres import Connection, Pool
from shared.rounds import Rounds
from shared.windows import civil

LOOK_S: Final = 0.5
DAYS_S: Final = 2.0
FORGET_S: Final = 600.0
FORGET_ROWS: Final = 5_000
ACQUIRE_S: Final = 10.0
REMEMBERED: Final = timedelta(microseconds=REMEMBERED_US)

_ZONES: Final = "SELECT DISTINCT zone FROM account"
_NEW_DAY: Final = """
    INSERT INTO rollover AS r (zone, day_start) VALUES ($1, $2)
    ON CONFLICT (zone) DO UPDATE SET day_start = excluded.day_start WHERE r.day_start < excluded.day_start RETURNING zone
"""
_MARK_ZONE: Final = """
    INSERT INTO kv_dirty (bucket, key)
    SELECT $2, account || '.' || client_id || '.' || service
    FROM app JOIN account USING (account), unnest(services) AS service
    WHERE zone = $1 AND deleted_at IS NULL ORDER BY 2
    ON CONFLICT (bucket, key) DO UPDATE SET token = nextval('kv_dirty_token')
"""
# Measured from what is counted, not from now: when USAGE is counted again from its beginning, old repetitions come again too.
_FORGET_PUBLISHERS: Final = """
    DELETE FROM publisher_position AS p USING progress AS g
    WHERE g.subject = 'usage.records.' || p.partition AND p.recorded_at < g.recorded_at - $1::interval
"""
_FORGET_EVENTS: Final = """
    DELETE FROM counted_event WHERE ctid = ANY(ARRAY(
        SELECT e.ctid FROM counted_event AS e
        WHERE e.recorded_at < (SELECT recorded_at FROM progress WHERE subject = $1) - $2::interval LIMIT $3))
"""


class Housekeeping:
    """Works while it is held: one worker does it for all. `committed` is called after each commit to the log."""

    def __init__(
        self,
        pool: Pool,
        event_log: EventLog[MeteringEvent],
        retention: Retention,
        clock: Clock,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._log = event_log
        self._retention = retention
        self._clock = clock
        self._committed = committed
        self._held = False
        self._rounds = Rounds("housekeeping waits", self._round, LOOK_S)
        self._days_at: float | None = None
        self._forgot_at: float | None = None

    async def begin(self) -> None:
        """This worker's turn."""
        self._held = True

    async def end(self) -> None:
        """Another's turn."""
        self._held = False

    async def run(self) -> None:
        """Look every LOOK_S, until cancelled."""
        await self._rounds.run()

    async def _round(self) -> None:
        if self._held:
            await self.look()

    async def look(self) -> None:
        """Do what is due."""
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            await carry_out(connection, self._log, self._clock.now(), self._committed)
            if self._is_time(self._days_at, DAYS_S):
                await open_days(connection, self._clock.now())
                self._days_at = self._clock.monotonic()
            if self._is_time(self._forgot_at, FORGET_S):
                await forget(connection)
                self._forgot_at = self._clock.monotonic()
            await self._retention.step(connection)

    def _is_time(self, last: float | None, every_s: float) -> bool:
        return last is None or self._clock.monotonic() - last >= every_s


async def open_days(connection: Connection, now: datetime) -> None:
    """Have the dashboards show the new windows of every zone in which a day has begun."""
    for row in await connection.fetch(_ZONES):
        day = civil(row["zone"]).day(now)
        async with connection.transaction():
            if await connection.fetchval(_NEW_DAY, row["zone"], day.start) is not None:
                await connection.execute(_MARK_ZONE, row["zone"], BUCKET)


async def forget(connection: Connection) -> None:
    """Forget publishers and events so old that what repeats them is too old to count."""
    await connection.execute(_FORGET_PUBLISHERS, REMEMBERED)
    forgotten = f"DELETE {FORGET_ROWS}"
    while forgotten == f"DELETE {FORGET_ROWS}":  # a piece at a time, so that no statement takes long
        forgotten = await connection.execute(_FORGET_EVENTS, CLOUDEVENTS_SUBJECT, REMEMBERED, FORGET_ROWS)
