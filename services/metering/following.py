"""Other services' streams into metering's rows: what the consumers do with each batch of events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Final

from services.metering import asked
from services.metering.directory import REGISTRY_CONSUMER
from services.metering.reactions import react
from shared.clock import Clock
from shared.eventlog.changes import Change, apply
from shared.events.alerts import STREAM as ALERTS
from shared.events.registry import CODEC
from shared.postgres import Connection, Pool
from shared.streams.checkpoints import Source
from shared.streams.consumer import Consumer, Poison
from shared.streams.facts import Unreadable, decode
from shared.streams.jetstream import Connected
from shared.streams.message import Message

ALERTS_CONSUMER: Final = "metering-alerts"
RULES: Final = Source(ALERTS, asked.SUBJECT, optional=True)
"""What customers ask to be told of. Metering does its work where there is no alerts, or not yet."""
BATCH_MAX: Final = 1_000
"""Events in a transaction, at most: when there are many, the disk is waited for seldom."""
BUFFER_MESSAGES: Final = 4_000
AT_ONCE: Final = 200
"""Events decoded between two looks at everything else that waits."""


def registry_consumer(pool: Pool, nc: Connected, clock: Clock) -> Consumer:
    """Follows the registry; its source is added by whoever holds the lease."""
    return Consumer(
        REGISTRY_CONSUMER, pool, nc, follow_registry, batch_max=BATCH_MAX, buffer_messages=BUFFER_MESSAGES, clock=clock
    )


async def follow_registry(connection: Connection, messages: Sequence[Message]) -> None:
    """Apply the events. Raises Poison for one that this release does not know: what follows may depend on it."""
    changes: list[Change] = []
    waiting = iter(messages)
    while some := list(islice(waiting, AT_ONCE)):
        for message in some:
            try:
                event, recorded_at = decode(CODEC, message)
            except Unreadable as error:
                raise Poison(message, str(error)) from error
            changes += react(event, message.sequence, recorded_at)
        await asyncio.sleep(0)
    await apply(connection, changes)


def alerts_consumer(pool: Pool, nc: Connected, clock: Clock) -> Consumer:
    """Follows RULES, as soon as whoever holds the lease adds it."""
    return Consumer(ALERTS_CONSUMER, pool, nc, follow_rules, batch_max=BATCH_MAX, buffer_messages=BUFFER_MESSAGES, clock=clock)


async def follow_rules(connection: Connection, messages: Sequence[Message]) -> None:
    """Apply the rules. Raises Poison for one that this release cannot read: somebody would not be told."""
    changes: list[Change] = []
    for message in messages:
        try:
            changes += asked.ask(asked.decode(message), message.sequence)
        except Unreadable as error:
            raise Poison(message, str(error)) from error
    await apply(connection, changes)
