"""Other services' events into requests: what consumers do with each batch, in the transaction of their checkpoint.

Each request begins a stream of its own, whose name follows from what is told, to whom and how. Whatever is heard of again,
because it was redelivered or its stream is read from the beginning, finds its stream there and asks for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from services.alerts.appending import AT_ONCE, append
from services.alerts.audience import audience_of
from services.alerts.following import Told
from services.alerts.requests import request_stream
from services.alerts.review_causes import of_review
from services.alerts.serving import METERING_CONSUMER, REVIEW_CONSUMER
from services.alerts.telling import Asked, Cause, of_metering, of_registry, react
from shared.clock import Clock
from shared.eventlog.log import Entry, EventLog, Head, Meta
from shared.events import metering, review
from shared.events.alerts import AlertsEvent
from shared.postgres import Connection, Pool
from shared.streams.consumer import Consumer, Poison
from shared.streams.facts import Unreadable, decode
from shared.streams.jetstream import Connected
from shared.streams.message import Message

ACTOR: Final = "service:alerts"
BATCH_MAX: Final = 1_000
"""Events in a transaction, at most."""
BUFFER_MESSAGES: Final = 4_000
CAUSES_AT_ONCE: Final = 200
"""Causes whose audience is in memory together: each may have hundreds."""
_KNOWN: Final = "SELECT stream FROM event WHERE stream = ANY($1::text[]) AND version = 1"


class Asking:
    """Asks for what is to be told.

    `keep_for`: how long delivering may take, once something is due. `reviewers`: the account whose contacts are told of what
    waits to be reviewed; None: nobody is.
    """

    def __init__(self, log: EventLog[AlertsEvent], clock: Clock, keep_for: timedelta, reviewers: str | None = None) -> None:
        self._log = log
        self._clock = clock
        self._keep_for = keep_for
        self._reviewers = reviewers

    async def of_metering(self, connection: Connection, messages: Sequence[Message]) -> None:
        """Crossings and exhaustions. Raises Poison for what this release cannot read: somebody would not be told."""
        now = self._clock.now()
        causes: list[Cause | None] = []
        for message in messages:
            try:
                event, _ = decode(metering.CODEC, message)
            except Unreadable as error:
                raise Poison(message, str(error)) from error
            causes.append(of_metering(event, now, f"metering-{message.sequence}"))
        await self._ask(connection, causes)

    async def of_review(self, connection: Connection, messages: Sequence[Message]) -> None:
        """What happens in reviews. Raises Poison as `of_metering`."""
        now = self._clock.now()
        causes: list[Cause | None] = []
        for message in messages:
            try:
                event, recorded_at = decode(review.CODEC, message)
            except Unreadable as error:
                raise Poison(message, str(error)) from error
            causes += of_review(event, recorded_at, now, f"review-{message.sequence}", self._reviewers)
        await self._ask(connection, causes)

    async def of_registry(self, connection: Connection, told: Sequence[Told]) -> None:
        """New secrets and deletions, in the transaction in which the rows of applications are written."""
        now = self._clock.now()
        await self._ask(connection, [of_registry(one.event, one.recorded_at, now, f"registry-{one.position}") for one in told])

    async def _ask(self, connection: Connection, found: Sequence[Cause | None]) -> None:
        causes = [cause for cause in found if cause is not None]
        head: Head | None = None
        for start in range(0, len(causes), CAUSES_AT_ONCE):
            some = causes[start : start + CAUSES_AT_ONCE]
            asked = react(some, await audience_of(connection, some), self._clock.now(), self._keep_for)
            if not asked:
                continue
            if head is None:
                head = await self._log.lock_head(connection)
            for place in range(0, len(asked), AT_ONCE):
                head = await self._append_new(connection, head, asked[place : place + AT_ONCE])

    async def _append_new(self, connection: Connection, head: Head, asked: Sequence[Asked]) -> Head:
        """Append those that nobody asked for before. The head is locked: nobody else asks meanwhile."""
        streams = [request_stream(one.request.request_id) for one in asked]
        known = {row["stream"] for row in await connection.fetch(_KNOWN, streams)}
        entries: list[Entry[AlertsEvent]] = [
            Entry(stream, 0, [one.request], Meta(actor=ACTOR, causation_id=one.heard_as))
            for stream, one in zip(streams, asked, strict=True)
            if stream not in known
        ]
        return await append(connection, self._log, head, entries)


def metering_consumer(pool: Pool, nc: Connected, asking: Asking, clock: Clock, committed: Callable[[], None]) -> Consumer:
    """Follows metering's log, once its source is added."""
    return Consumer(
        METERING_CONSUMER,
        pool,
        nc,
        asking.of_metering,
        batch_max=BATCH_MAX,
        buffer_messages=BUFFER_MESSAGES,
        clock=clock,
        committed=committed,
    )


def review_consumer(pool: Pool, nc: Connected, asking: Asking, clock: Clock, committed: Callable[[], None]) -> Consumer:
    """Follows the log of reviews, once its source is added."""
    return Consumer(REVIEW_CONSUMER, pool, nc, asking.of_review, clock=clock, committed=committed)
