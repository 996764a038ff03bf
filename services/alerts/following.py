"""The registry's stream into alerts' rows, and into whatever else its events cause: what the consumer does with each batch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from services.alerts.reactions import react
from services.alerts.serving import REGISTRY_CONSUMER
from shared.clock import Clock
from shared.eventlog.changes import Change, apply
from shared.events.registry import CODEC, RegistryEvent
from shared.postgres import Connection, Pool
from shared.streams.consumer import Consumer, Handle, Poison
from shared.streams.facts import Unreadable, decode
from shared.streams.jetstream import Connected
from shared.streams.message import Message

BATCH_MAX: Final = 500
"""Events in a transaction, at most."""


class Told(NamedTuple):
    """An event of the registry, its position in that log, and when it was recorded."""

    event: RegistryEvent
    position: int
    recorded_at: datetime


Reaction: TypeAlias = Callable[[Connection, Sequence[Told]], Awaitable[None]]
"""Writes what events cause, in the transaction of the consumer's checkpoint."""


def registry_consumer(
    pool: Pool, nc: Connected, clock: Clock, *also: Reaction, committed: Callable[[], None] = lambda: None
) -> Consumer:
    """Follows the registry, once its source is added. `also` are asked in this order, after the rows are written."""
    handle = follow_registry(write_rows, *also)
    return Consumer(REGISTRY_CONSUMER, pool, nc, handle, batch_max=BATCH_MAX, clock=clock, committed=committed)


def follow_registry(*reactions: Reaction) -> Handle:
    """What the consumer does: read the events, then all reactions to them, in this order and in one transaction."""

    async def follow(connection: Connection, messages: Sequence[Message]) -> None:
        told = [_told(message) for message in messages]
        for reaction in reactions:
            await reaction(connection, told)

    return follow


async def write_rows(connection: Connection, told: Sequence[Told]) -> None:
    """What alerts knows of accounts and applications."""
    changes: list[Change] = []
    for event, position, _ in told:
        changes += react(event, position)
    await apply(connection, changes)


def _told(message: Message) -> Told:
    """Raises Poison for what this release does not know: what follows may depend on it."""
    try:
        event, recorded_at = decode(CODEC, message)
    except Unreadable as error:
        raise Poison(message, str(error)) from error
    return Told(event, message.sequence, recorded_at)
