"""What became of tries, into the log and the rows: what comes in while a transaction runs goes together into the next one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from services.alerts.appending import append, no_standstill
from services.alerts.asking import ACTOR
from services.alerts.metrics import DeliveryMetrics
from services.alerts.outbox import Claimed, Put, put_back
from services.alerts.requests import request_stream
from shared.clock import Clock
from shared.eventlog.log import Entry, EventLog, Meta
from shared.events.alerts import AlertsEvent, FailureReason, NotificationDelivered, NotificationFailed
from shared.postgres import Connection, Pool
from shared.streams.passing import may_pass

log = logging.getLogger(__name__)

BATCH_MAX: Final = 64
BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0
ACQUIRE_S: Final = 10.0
META: Final = Meta(actor=ACTOR)

# What was taken by the provider was taken, whoever has the claim by now (claim ''); all else is for who has it to say.
_OPEN: Final = """
    SELECT w.place, m.message_id, n.request_id, n.account, n.client_id, n.contact_id, n.method, n.due_at, n.deadline
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(message_id, claim, place)
    JOIN message AS m ON m.message_id = w.message_id AND w.claim IN ('', m.claimed_by)
    LEFT JOIN message_item AS i ON i.message_id = m.message_id
    LEFT JOIN notification AS n ON n.request_id = i.request_id AND n.state = 'waiting'
    ORDER BY w.place, n.position
"""
_REMOVE: Final = "DELETE FROM message WHERE message_id = ANY($1::text[])"


class Delivered(NamedTuple):
    """The provider has taken it."""

    claimed: Claimed
    attempts: int
    provider_id: str
    answer: str


class Failed(NamedTuple):
    """It will not be sent; of those whose deadline is after `by`, only this message will not be."""

    claimed: Claimed
    attempts: int
    reason: FailureReason
    answer: str
    by: datetime | None = None


class Later(NamedTuple):
    """It waits, until `next_at` at least."""

    claimed: Claimed
    attempts: int
    next_at: datetime
    answer: str


Outcome = Delivered | Failed | Later


class Recorder:
    """Records outcomes. `committed` is called after each commit that appended something."""

    def __init__(
        self,
        pool: Pool,
        event_log: EventLog[AlertsEvent],
        metrics: DeliveryMetrics,
        clock: Clock,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self.trouble = ""
        self._pool = pool
        self._log = event_log
        self._metrics = metrics
        self._clock = clock
        self._committed = committed
        self._waiting: list[tuple[Outcome, asyncio.Future[None]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def record(self, outcome: Outcome) -> None:
        """Returns once it is committed, however long that takes: who forgets what was sent sends it twice."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((outcome, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="alerts:recording")
        await done

    async def ask(self, connection: Connection) -> None:
        """Raise Unavailable if nothing may be recorded now. A log that is behind its stream has forgotten what was sent."""
        self._log.guard(await self._log.head(connection))

    async def _work(self) -> None:
        at_once, backoff_s = BATCH_MAX, BACKOFF_MIN_S
        while self._waiting:
            batch = self._waiting[:at_once]
            try:
                await self._commit([outcome for outcome, _ in batch])
            except Exception as error:
                self._report(error)
                if not may_pass(error):  # one of them may be the reason: each on its own, so that the others get through
                    self._waiting.append(self._waiting.pop(0))
                    at_once = 1
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
                continue
            at_once, backoff_s, self.trouble = BATCH_MAX if not self.trouble else at_once, BACKOFF_MIN_S, ""
            del self._waiting[: len(batch)]
            for _, done in batch:
                if not done.done():
                    done.set_result(None)

    def _report(self, error: Exception) -> None:
        said = f"what was sent cannot be recorded: {type(error).__name__}"
        if said != self.trouble:
            log.error("alerts: %s", said, exc_info=None if may_pass(error) else error)
        self.trouble = said

    async def _commit(self, outcomes: Sequence[Outcome]) -> None:
        settled = [outcome for outcome in outcomes if not isinstance(outcome, Later)]
        later = [one for one in outcomes if isinstance(one, Later)]
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection, connection.transaction():
            observed = await self._settle(connection, settled) if settled else []
            await put_back(
                connection,
                [Put(one.claimed.message_id, one.claimed.claim, one.attempts, one.next_at, one.answer) for one in later],
            )
        if observed:
            self._committed()
        for outcome, row in observed:
            self._metrics.settled(outcome.claimed.method, _fate(outcome), self._clock.now() - row["due_at"])

    async def _settle(
        self, connection: Connection, settled: Sequence[Delivered | Failed]
    ) -> list[tuple[Delivered | Failed, asyncpg.Record]]:
        """Record the fate of everything that the messages tell, and remove them. What somebody else has recorded is left as it
        is: the head is locked, so its messages are gone."""
        await no_standstill(connection)
        head = await self._log.lock_head(connection)
        ids = [one.claimed.message_id for one in settled]
        claims = ["" if isinstance(one, Delivered) else one.claimed.claim for one in settled]
        rows = await connection.fetch(_OPEN, ids, claims)
        told = [(settled[row["place"] - 1], row) for row in rows if row["request_id"] is not None]
        told = [(outcome, row) for outcome, row in told if not _outlives(outcome, row["deadline"])]
        entries: list[Entry[AlertsEvent]] = [
            Entry(request_stream(row["request_id"]), 1, [_event(outcome, row)], META) for outcome, row in told
        ]
        await append(connection, self._log, head, entries)
        await connection.execute(_REMOVE, list({row["message_id"] for row in rows}))
        return told


def _outlives(outcome: Delivered | Failed, deadline: datetime) -> bool:
    return isinstance(outcome, Failed) and outcome.by is not None and deadline > outcome.by


def _fate(outcome: Delivered | Failed) -> str:
    return "delivered" if isinstance(outcome, Delivered) else outcome.reason


def _event(outcome: Delivered | Failed, row: asyncpg.Record) -> NotificationDelivered | NotificationFailed:
    common = {name: row[name] for name in ("request_id", "account", "client_id", "contact_id", "method", "message_id")}
    if isinstance(outcome, Delivered):
        return NotificationDelivered(**common, attempts=outcome.attempts, provider_id=outcome.provider_id, answer=outcome.answer)
    return NotificationFailed(**common, attempts=outcome.attempts, reason=outcome.reason, answer=outcome.answer)
