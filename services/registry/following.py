"""The stream REVIEW into the registry's own log: what the consumer does with each batch, in the transaction of its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from services.registry.domain import app_stream, evolve_app
from services.registry.reactions import ReviewFollowed, follow_review, heard_as, react
from shared.clock import Clock
from shared.eventlog.transact import Transactor
from shared.events.registry import RegistryEvent
from shared.events.review import CODEC, STREAM
from shared.postgres import Connection, Pool
from shared.streams.checkpoints import Source
from shared.streams.consumer import Consumer, Handle, Poison
from shared.streams.facts import Unreadable, decode
from shared.streams.jetstream import Connected
from shared.streams.message import Message

REVIEW_CONSUMER: Final = "registry-review"
REVIEW: Final = Source(STREAM, optional=True)
"""What is decided about service apps. The registry does its work where nothing is reviewed, or not yet."""
BATCH_MAX: Final = 100
"""Events in a transaction, at most: commands wait while it decides."""


def review_consumer(
    pool: Pool, nc: Connected, transactor: Transactor[RegistryEvent], clock: Clock, committed: Callable[[], None]
) -> Consumer:
    """Follows REVIEW, once it is added."""
    return Consumer(REVIEW_CONSUMER, pool, nc, follow_reviews(transactor), batch_max=BATCH_MAX, clock=clock, committed=committed)


def follow_reviews(transactor: Transactor[RegistryEvent]) -> Handle:
    """What the consumer does: decide about each application what its review's decision does to it, one after the other."""

    async def follow(connection: Connection, messages: Sequence[Message]) -> None:
        for message in messages:
            await _follow(connection, transactor, message)

    return follow


async def _follow(connection: Connection, transactor: Transactor[RegistryEvent], message: Message) -> None:
    """Raises Poison for what this release does not know: what follows may depend on it."""
    try:
        event, _ = decode(CODEC, message)
    except Unreadable as error:
        raise Poison(message, str(error)) from error
    command = react(event, heard_as(message.sequence, message.hash))
    if command is not None:
        await transactor.run_in(
            connection,
            command,
            app_stream(command.client_id),
            None,
            evolve_app,
            lambda state, _: follow_review(state, command),
            ReviewFollowed,
        )
