"""Crossings and exhaustions into the log: what counting, limits and refusals have marked is looked at, and what is new is told.

A limit has rungs of its own, and those that a customer asks for at alerts are looked at besides. A rule that is set in the middle
of a window tells what is above the highest percentage told there by then, never what is below.

Counting never waits for the log, and any number of evaluators may run: what is appended is decided under the lock of the log's
head, on the rows of one snapshot, which say what was told. docs/decisions/0013 has the reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import asyncpg

from services.metering.limit_queries import UNITS
from services.metering.projection import project
from services.metering.thresholds import PERIOD, Marked, WindowKey, threshold_stream, to_tell
from shared.clock import Clock
from shared.eventlog.changes import apply
from shared.eventlog.log import Entry, EventLog, Head, Meta
from shared.events.metering import MeteringEvent, QuotaExhausted, ThresholdCrossed
from shared.postgres import Connection, Pool
from shared.readiness import Readiness
from shared.rounds import Rounds
from shared.windows import EPOCH

MARKS_MAX: Final = 1_000
"""Windows in one look, at most."""
POLL_S: Final = 0.1
PAUSE_S: Final = 0.02
"""Between two rounds at least: counting commits more often than anybody has to hear of it."""
REST: Final = 4
"""Between two rounds, at least so many times as long as the last one took: the rest of the time is counting's."""
ACCOUNTS_EVERY_S: Final = 0.3
"""Accounts' limits are looked at this often at most: each look sums over all applications of an account."""
ACQUIRE_S: Final = 10.0
META: Final = Meta(actor="service:metering")

_WINDOW: Final = "(account, client_id, service, period, window_start)"
# One snapshot for all of it. Every transaction before `over` has ended and is seen; `own` is younger than all that
# had begun when the snapshot was taken, if this is a transaction of its own.
_LOOK: Final = f"""
    SELECT w.account, w.client_id, w.service, w.period, w.window_start, w.marked_by::text::bigint AS marked_by, zone,
        coalesce(l.version, t.version) AS version,
        CASE WHEN w.period = 'd' THEN l.daily ELSE coalesce(l.monthly, t.monthly) END AS amount,
        CASE WHEN w.period = 'd' THEN l.daily_rungs || r.daily
            ELSE coalesce(l.monthly_rungs, t.monthly_rungs) || r.monthly END AS rungs,
        coalesce(l.changed_at, t.changed_at) AS changed_at,
        coalesce({UNITS}, 0) AS units, coalesce(told.percent, 0) AS told,
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS over, pg_current_xact_id()::text::bigint AS own
    FROM (
        SELECT * FROM limit_mark
        WHERE {_WINDOW} > ($1::text, $2::text, $3::text, $4::text, $5::timestamptz) AND ($6 OR client_id <> '')
        ORDER BY account, client_id, service, period, window_start LIMIT $7) AS w
    LEFT JOIN account USING (account)
    LEFT JOIN app_limit AS l ON w.client_id <> '' AND l.client_id = w.client_id AND l.service = w.service
    LEFT JOIN account_limit AS t ON w.client_id = '' AND t.account = w.account AND t.service = w.service
    LEFT JOIN rung_asked AS r ON r.account = w.account AND r.client_id = w.client_id AND r.service = w.service
    LEFT JOIN told ON told.account = w.account AND told.client_id = w.client_id AND told.service = w.service
        AND told.period = w.period AND told.window_start = w.window_start AND told.version = coalesce(l.version, t.version)
    ORDER BY w.account, w.client_id, w.service, w.period, w.window_start
"""  # noqa: S608 - constants
# A mark that is made anew just now is locked: it stays anyway.
_REMOVE: Final = f"""
    DELETE FROM limit_mark WHERE ctid = ANY(ARRAY(
        SELECT m.ctid FROM limit_mark AS m
        JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[])
            AS seen(account, client_id, service, period, window_start, marked_by) USING {_WINDOW}
        WHERE m.marked_by::text::bigint = seen.marked_by FOR UPDATE OF m SKIP LOCKED))
"""  # noqa: S608 - constants
_EXHAUSTED: Final = f"""
    SELECT e.*, coalesce(t.exhausted, false) AS told FROM exhausted_mark AS e LEFT JOIN told AS t USING {_WINDOW[:-1]}, version)
    ORDER BY account, client_id, service, period, window_start, version LIMIT $1
"""  # noqa: S608 - constants
_REMOVE_EXHAUSTED: Final = f"""
    DELETE FROM exhausted_mark WHERE {_WINDOW[:-1]}, version) IN (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::int[]))
"""  # noqa: S608 - constants
_ANY: Final = "SELECT EXISTS (SELECT FROM limit_mark), EXISTS (SELECT FROM exhausted_mark)"
_VERSIONS: Final = """
    SELECT stream, (SELECT max(version) FROM event WHERE event.stream = s.stream) AS version FROM unnest($1::text[]) AS s(stream)
"""

_BEGINNING: Final = WindowKey("", "", "", "", EPOCH)
"""Before every window: no account has that name."""


class Seen(NamedTuple):
    """A mark as it was first looked at: which one it was, and a transaction that is younger than all that ran then."""

    marked_by: int
    younger: int


class Look(NamedTuple):
    """Marked windows as one snapshot shows them, in order. `marks` tells the marks; all transactions before `over` had ended, all
    that had begun come before `own`."""

    windows: Sequence[Marked]
    marks: Mapping[WindowKey, int]
    over: int
    own: int

    def crossings(self) -> list[MeteringEvent]:
        """What is to be told."""
        return [event for window in self.windows for event in to_tell(window)]


class Evaluator:
    """Tells what was marked, until cancelled. `committed` is called after each commit that told something."""

    def __init__(
        self, pool: Pool, event_log: EventLog[MeteringEvent], clock: Clock, committed: Callable[[], None] = lambda: None
    ) -> None:
        self._pool = pool
        self._log = event_log
        self._clock = clock
        self._committed = committed
        self._rounds = Rounds("thresholds", self._timed, POLL_S)
        self._seen: dict[WindowKey, Seen] = {}
        self._accounts_at: float | None = None

    def wake(self) -> None:
        """Something was counted or decided: look now. Call it from the event loop's thread."""
        self._rounds.wake()

    def readiness(self) -> Readiness:
        """Ready while what is marked is looked at."""
        return self._rounds.readiness()

    async def run(self) -> None:
        """Look whenever woken, else every POLL_S, until cancelled."""
        await self._rounds.run()

    async def _timed(self) -> float:
        began = self._clock.monotonic()
        await self.round()
        return max(PAUSE_S, REST * (self._clock.monotonic() - began))

    async def round(self) -> None:
        """Look once at everything that is marked; accounts' limits only if it is time for them."""
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            marked, exhausted = await connection.fetchrow(_ANY) or (False, False)
            if exhausted:
                await self._tell_exhausted(connection)
            if not marked:
                self._seen.clear()
                return
            now = self._clock.monotonic()
            accounts = self._accounts_at is None or now - self._accounts_at >= ACCOUNTS_EVERY_S
            if accounts:
                self._accounts_at = now
            still: dict[WindowKey, Seen] = {} if accounts else {key: one for key, one in self._seen.items() if not key.client_id}
            after: WindowKey | None = _BEGINNING
            while after is not None:
                after = await self._page(connection, after, accounts, still)
            self._seen = still

    async def _page(
        self, connection: Connection, after: WindowKey, accounts: bool, still: dict[WindowKey, Seen]
    ) -> WindowKey | None:
        """Look at the marks after a place; the place to go on from, if there may be more. `still` gets those that stay."""
        look = await _look(connection, after, accounts)
        if look.crossings():
            async with connection.transaction():
                head = await self._log.lock_head(connection)
                look = await _look(connection, after, accounts)  # now with what others have told meanwhile
                await self._append(connection, head, look.crossings())
            self._committed()
            look = await _look(connection, after, accounts)
        keys = list(look.marks)
        await self._remove(connection, look, still)
        return keys[-1] if len(keys) == MARKS_MAX else None

    async def _remove(self, connection: Connection, look: Look, still: dict[WindowKey, Seen]) -> None:
        """Remove the marks of which all is told and after which nobody can write what this look did not see. A transaction that
        has written and does not see a limit began before the limit was committed, so before the first look at the limit's mark:
        it has ended once all have that are older than that look."""
        settled: list[tuple[object, ...]] = []
        for window in look.windows:
            marked_by = look.marks[window.key]
            seen = self._seen.get(window.key)
            if seen is None or seen.marked_by != marked_by:
                seen = Seen(marked_by, look.own)
            if look.over >= seen.younger and not to_tell(window):
                settled.append((*window.key, marked_by))
            else:
                still[window.key] = seen
        if settled:
            await connection.execute(_REMOVE, *(list(column) for column in zip(*settled, strict=True)))

    async def _tell_exhausted(self, connection: Connection) -> None:
        """Tell the first refusal in each window, once for each version of its limit."""
        async with connection.transaction():
            head = await self._log.lock_head(connection)
            rows = await connection.fetch(_EXHAUSTED, MARKS_MAX)
            await self._append(connection, head, [_exhausted(row) for row in rows if not row["told"]])
            marks = [(*_key(row), row["version"]) for row in rows]
            if marks:
                await connection.execute(_REMOVE_EXHAUSTED, *(list(column) for column in zip(*marks, strict=True)))
        self._committed()

    async def _append(self, connection: Connection, head: Head, events: Sequence[MeteringEvent]) -> None:
        """Append what is told, each scope's to its own stream, and project it. The head is locked."""
        by_stream: dict[str, list[MeteringEvent]] = {}
        for event in events:
            assert isinstance(event, ThresholdCrossed | QuotaExhausted), "others are decided by commands"
            stream = threshold_stream(event.account, event.client_id, event.service)
            by_stream.setdefault(stream, []).append(event)
        if not by_stream:
            return
        rows = await connection.fetch(_VERSIONS, list(by_stream))
        versions = {row["stream"]: row["version"] or 0 for row in rows}
        entries = [Entry(stream, versions[stream], told, META) for stream, told in by_stream.items()]
        recorded = self._log.prepare(head, entries)
        await self._log.write(connection, recorded)
        told = [event for stream in by_stream.values() for event in stream]
        pairs = zip(recorded, told, strict=True)
        await apply(connection, [change for row, event in pairs for change in project(row, event)])


async def _look(connection: Connection, after: WindowKey, accounts: bool) -> Look:
    rows = await connection.fetch(_LOOK, *after, accounts, MARKS_MAX)
    # Without its account's zone (the registry's events are being read again) a window is looked at later.
    windows = [_marked(row) for row in rows if row["zone"] is not None]
    marks = {_key(row): row["marked_by"] for row in rows}
    return Look(windows, marks, rows[0]["over"] if rows else 0, rows[0]["own"] if rows else 0)


def _key(row: asyncpg.Record) -> WindowKey:
    return WindowKey(row["account"], row["client_id"], row["service"], row["period"], row["window_start"])


def _marked(row: asyncpg.Record) -> Marked:
    return Marked(
        key=_key(row),
        zone=row["zone"],
        version=row["version"],
        limit=row["amount"],
        rungs=row["rungs"] or (),
        changed_at=row["changed_at"],
        units=row["units"],
        told=row["told"],
    )


def _exhausted(row: asyncpg.Record) -> QuotaExhausted:
    return QuotaExhausted(
        account=row["account"],
        client_id=row["client_id"],
        service=row["service"],
        period=PERIOD[row["period"]],
        window_start=row["window_start"],
        window_end=row["window_end"],
        used=row["used"],
        limit=row["quota"],
        limit_version=row["version"],
    )
