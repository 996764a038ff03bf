"""Sending again what operators want retried: after the decision is in the log, as often as it takes.

Between sending and noting that it was sent there may be a crash; then it is sent twice. What counts counts once all the same
(letters.py); what is bad again becomes a dead letter twice.
"""

from __future__ import annotations

import logging
from typing import Final

from services.metering import letter_rows
from services.metering.lease_counts import keep_lapsed
from services.metering.letter_stream import fetch_letter
from services.metering.letters import places_of, plan_retry
from services.metering.metrics import LetterMetrics
from shared.clock import Clock
from shared.postgres import Pool
from shared.readiness import Readiness
from shared.rounds import Rounds
from shared.streams.jetstream import Connected
from shared.streams.publish import publish_batch

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
COUNT_S: Final = 15.0
AT_ONCE_MAX: Final = 100
ACQUIRE_S: Final = 10.0


class Resender:
    """Works while it is held: one worker does it for all. Should two hold it for a moment, what they send is the same."""

    def __init__(self, pool: Pool, nc: Connected, metrics: LetterMetrics, clock: Clock) -> None:
        self._pool = pool
        self._nc = nc
        self._metrics = metrics
        self._clock = clock
        self._held = False
        self._rounds = Rounds("dead letters are not sent again now", self._round, LOOK_S)
        self._counted_at: float | None = None

    def readiness(self) -> Readiness:
        """Ready while what is to be sent can be, or it is another's turn."""
        return self._rounds.readiness()

    async def begin(self) -> None:
        """This worker's turn."""
        self._held = True

    async def end(self) -> None:
        """Another's turn."""
        self._held = False
        self._counted_at = None
        self._metrics.forget()

    async def run(self) -> None:
        """Look every LOOK_S, until cancelled."""
        await self._rounds.run()

    async def _round(self) -> None:
        if self._held:
            await self.look()

    async def look(self) -> None:
        """Send what is due, and count what is open."""
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            due = await letter_rows.to_send(connection, AT_ONCE_MAX)
        for sequence in due:
            sent_as = await self._send_once(sequence)
            async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
                await letter_rows.note_sent(connection, sequence, sent_as)
        now = self._clock.monotonic()
        if self._counted_at is None or now - self._counted_at >= COUNT_S:
            async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
                counts = await letter_rows.counts_of(connection)
            if self._held:
                self._metrics.open({one.why: one.open for one in counts.counts})
                self._counted_at = now

    async def _send_once(self, sequence: int) -> int | None:
        """Its sequence in USAGE; None if it cannot be sent any more. Raises Unavailable."""
        nc = self._nc()
        message = await fetch_letter(nc, sequence)
        planned = None if message is None else plan_retry(message, nc.max_payload)
        if message is None or planned is None or isinstance(planned, str):
            log.error("metering: the dead letter %d cannot be sent again: %s", sequence, planned or "it is lost")
            return None
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:  # first: from now on it counts where it is sent to
            await keep_lapsed(connection, places_of(message))
        return await publish_batch(nc, [planned], expected_last_sequence=None)
