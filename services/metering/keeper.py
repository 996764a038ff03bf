"""Closes quota leases from which nothing can come any more, so that what was set aside for them is there for others again.

Two ways. A lease that its gate has *returned* is closed when all that the gate said it had spent is counted: its records are in
then, and one that is taken back afterwards lowers the counter, which is all that it should do. Such a lease has no end: should a
gate spend from it even so, that is usage and counts. Any other lease, also one whose gate has died or whose records were taken
back, is closed when it is *over* and its partition is counted up to the end that it had after that (docs/decisions/0013, 5).

Finding an end costs a message in USAGE (ends.py): in each round one for each partition with a lease that is over and has no end
yet, and none while there is no such lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

import asyncpg

from services.metering import quota
from services.metering.ends import Ends
from services.metering.metrics import QuotaMetrics
from shared.clock import Clock
from shared.postgres import Connection, Pool
from shared.readiness import Readiness
from shared.rounds import Rounds

LOOK_S: Final = 0.25
LEASES_MAX: Final = 2_000
"""Leases looked at in one round, and closed in one; the others have their turn in the next."""
FORGET_S: Final = 60.0
FORGET_AFTER: Final = timedelta(hours=24)
ACQUIRE_S: Final = 10.0

_OPEN: Final = """
    SELECT client_id, service, lease, subject, extensions, end_sequence, units, counted, stated FROM quota_lease
    WHERE closed_at IS NULL AND (client_id, service, lease) > ($1, $2, $3) ORDER BY client_id, service, lease LIMIT $4
"""
_COUNTED: Final = "SELECT coalesce(max(sequence), 0) FROM progress"
# An end that was found later is as true: what was acknowledged before the first is below the second, too, or was lost with the
# stream. Within one stream ends only grow. A lower one is of a stream that was lost and made again; that begins above every
# checkpoint, so whatever it has got is still counted before its end is reached. Nothing might ever reach the first.
_END: Final = """
    WITH locked AS MATERIALIZED (SELECT lease FROM quota_lease WHERE lease = ANY($1::text[]) ORDER BY lease FOR NO KEY UPDATE)
    UPDATE quota_lease AS q SET end_sequence = e.end_sequence
    FROM locked JOIN unnest($1::text[], $2::int[], $3::bigint[]) AS e(lease, extensions, end_sequence) USING (lease)
    WHERE q.lease = locked.lease AND q.extensions = e.extensions AND q.closed_at IS NULL
        AND (q.end_sequence IS NULL OR q.end_sequence > e.end_sequence)
"""
# A lease with an end cannot be extended, nor one that was returned: what is due here stays due. Those that a transaction is about
# to count for are left to the next round.
_CLOSE: Final = """
    WITH due AS MATERIALIZED (
        SELECT lease FROM quota_lease AS q LEFT JOIN progress AS p USING (subject)
        WHERE closed_at IS NULL AND (counted >= stated OR coalesce(p.sequence, 0) >= end_sequence)
        ORDER BY lease LIMIT $2 FOR NO KEY UPDATE OF q SKIP LOCKED)
    UPDATE quota_lease AS q SET closed_at = $1 FROM due WHERE q.lease = due.lease AND q.closed_at IS NULL
"""
_FORGET: Final = """
    DELETE FROM quota_lease WHERE ctid = ANY(ARRAY(SELECT ctid FROM quota_lease WHERE closed_at < $1 ORDER BY closed_at LIMIT $2))
"""

_Key = tuple[str, str, str]
_BEGINNING: Final[_Key] = ("", "", "")


class Seen(NamedTuple):
    """Since when, by the interval timer, a lease has been known with so many extensions."""

    extensions: int
    since_s: float


class Over(NamedTuple):
    """A lease that is not closed, and over. `end_sequence`: the end that was found, if any."""

    lease: str
    subject: str
    extensions: int
    end_sequence: int | None


class Keeper:
    """Works while it is held: one worker does it for all. Should two hold it for a moment, each goes by its own timers."""

    def __init__(self, pool: Pool, ends: Ends, lease_s: float, margin_s: float, metrics: QuotaMetrics, clock: Clock) -> None:
        self._pool = pool
        self._ends = ends
        self._lease_s = lease_s
        self._margin_s = margin_s
        self._metrics = metrics
        self._clock = clock
        self._held = False
        self._rounds = Rounds("quota leases are not closed now", self._round, LOOK_S)
        self._forgot_at: float | None = None
        self._start_anew()

    def _start_anew(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._seen_again: dict[str, Seen] = {}
        self._after = _BEGINNING
        self._sums = (0, 0)

    def readiness(self) -> Readiness:
        """Ready while the rounds go through, or it is another's turn."""
        return self._rounds.readiness()

    async def begin(self) -> None:
        """This worker's turn: its timers start now."""
        self._start_anew()
        self._held = True

    async def end(self) -> None:
        """Another's turn."""
        self._held = False
        self._metrics.kept(0, 0)

    async def run(self) -> None:
        """Look every LOOK_S, until cancelled."""
        await self._rounds.run()

    async def _round(self) -> None:
        if self._held:
            await self.look()

    async def look(self) -> None:
        """One round. Raises what asyncpg raises."""
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            rows = await connection.fetch(_OPEN, *self._after, LEASES_MAX)
            counted: int = await connection.fetchval(_COUNTED)
        over = self._note(rows)
        ends = await self._find_ends(over, counted)  # on no connection: JetStream may be slow
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            await self._set_ends(connection, over, ends)
            closed = await connection.execute(_CLOSE, self._clock.now(), LEASES_MAX)
            self._metrics.closed(int(closed.removeprefix("UPDATE ")))
            await self._forget(connection)

    def _note(self, leases: Sequence[asyncpg.Record]) -> list[Over]:
        """Start the timers of what is new, and find what is over. Called after the rows were read, so whatever they say was so
        before now."""
        now_s = self._clock.monotonic()
        over: list[Over] = []
        count, units = self._sums
        for _, _, lease, subject, extensions, end, granted, counted, stated in leases:
            seen = self._seen.get(lease)
            if seen is None or seen.extensions != extensions:
                seen = Seen(extensions, now_s)
            self._seen_again[lease] = seen
            if end is not None or quota.may_look_for_end(now_s - seen.since_s, self._lease_s, self._margin_s):
                over.append(Over(lease, subject, extensions, end))
            units += quota.outstanding(granted, counted, stated)
        self._sums = (count + len(leases), units)
        if len(leases) == LEASES_MAX:
            client_id, service, lease, *_ = leases[-1]
            self._after = (client_id, service, lease)
            return over
        self._metrics.kept(*self._sums)
        self._seen, self._seen_again = self._seen_again, {}
        self._after, self._sums = _BEGINNING, (0, 0)
        return over

    async def _find_ends(self, over: Sequence[Over], counted: int) -> Mapping[str, int]:
        """Where partitions end, as far as JetStream says: those with a lease that has no end yet, and those that seem to end
        below what was noted. Either the stream was made again, or who answers does not know better: finding the end tells."""
        without = {one.subject for one in over if one.end_sequence is None}
        noted: dict[str, int] = {}
        for one in over:
            if one.end_sequence is not None and one.subject not in without:
                noted[one.subject] = max(one.end_sequence, noted.get(one.subject, 0))
        newest = await asyncio.gather(*(self._ends.newest(subject) for subject in noted))
        below = {subject for subject, now in zip(noted, newest, strict=True) if now is not None and now < noted[subject]}
        return await self._ends.find(without | below, counted)

    async def _set_ends(self, connection: Connection, over: Sequence[Over], ends: Mapping[str, int]) -> None:
        """Write the ends of leases that were not extended since they were read."""
        known = [one for one in over if one.subject in ends]
        if known:
            columns = [one.lease for one in known], [one.extensions for one in known], [ends[one.subject] for one in known]
            await connection.execute(_END, *columns)

    async def _forget(self, connection: Connection) -> None:
        """Forget leases that were closed long ago. The places of what came from them too late stay."""
        if self._forgot_at is None or self._clock.monotonic() - self._forgot_at >= FORGET_S:
            await connection.execute(_FORGET, self._clock.now() - FORGET_AFTER, LEASES_MAX)
            self._forgot_at = self._clock.monotonic()
