"""Reviews whose time runs out: what is said of them once, and how many there are."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from services.review.deciding import note_due_soon
from services.review.domain import evolve, service_app_stream
from services.review.following import ACTOR
from shared.answering import reading
from shared.clock import Clock
from shared.commands.reviews import Noted, NoteDueSoon
from shared.eventlog.transact import Transactor
from shared.events.review import ReviewEvent
from shared.ids import new_id
from shared.postgres import Pool
from shared.readiness import Readiness
from shared.rounds import Rounds

LOOK_S: Final = 30.0
AT_ONCE: Final = 100
"""Reviews of one round, at most; what is left has the next one, which follows at once."""
_DUE_SOON: Final = """
    SELECT review_id, account, client_id, service, seen_revision FROM application
    WHERE seen_state IN ('submitted', 'in_review') AND NOT due_soon AND seen_due_at <= $1 ORDER BY seen_due_at LIMIT $2
"""
_COUNTS: Final = """
    SELECT count(*) AS waiting, count(*) FILTER (WHERE seen_due_at < $1) AS overdue FROM application
    WHERE seen_state IN ('submitted', 'in_review')
"""


class DueSoon:
    """Says of each review, once for each revision, that it is due `ahead` of that time. Any number of processes may look."""

    def __init__(
        self, pool: Pool, transactor: Transactor[ReviewEvent], ahead: timedelta, clock: Clock, registry: CollectorRegistry
    ) -> None:
        self._pool = pool
        self._transactor = transactor
        self._ahead = ahead
        self._clock = clock
        self._waiting = Gauge("tollbook_review_waiting", "Applications that wait for a decision", registry=registry)
        self._overdue = Gauge("tollbook_review_overdue", "Of these, those whose time is over", registry=registry)
        self._rounds = Rounds("reviews due soon", self._look, LOOK_S)

    def wake(self) -> None:
        """Something was committed: it may be due soon already."""
        self._rounds.wake()

    async def run(self) -> None:
        """Until cancelled."""
        await self._rounds.run()

    def readiness(self) -> Readiness:
        """Ready while rounds go through."""
        return self._rounds.readiness()

    async def _look(self) -> None:
        now = self._clock.now()
        async with reading(self._pool) as connection:
            found = await connection.fetch(_DUE_SOON, now + self._ahead, AT_ONCE)
            counts = await connection.fetchrow(_COUNTS, now)
        assert counts is not None, "an aggregate is one row"
        self._waiting.set(counts["waiting"])
        self._overdue.set(counts["overdue"])
        for row in found:
            command = NoteDueSoon(
                command_id=new_id(),
                account=row["account"],
                actor=ACTOR,
                review_id=row["review_id"],
                revision=row["seen_revision"],
            )
            stream = service_app_stream(row["client_id"], row["service"])
            await self._note(command, stream)
        if len(found) == AT_ONCE:
            self._rounds.wake()

    async def _note(self, command: NoteDueSoon, stream: str) -> None:
        await self._transactor.run(command, stream, None, evolve, lambda state, _: note_due_soon(state, command), Noted)
