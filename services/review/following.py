"""The registry's stream into review's rows; an application that has given up a service, or is gone, retires its service app.

Rows, events and checkpoint commit together, so each is done once, whatever is redelivered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from services.review.applying import retire
from services.review.domain import evolve, service_app_stream
from services.review.reactions import leaves, react
from services.review.states import LIVE, OPEN
from shared.clock import Clock
from shared.commands.service_apps import Retired, RetireServiceApp
from shared.eventlog.changes import Change, apply
from shared.eventlog.log import EventLog
from shared.eventlog.transact import Transactor
from shared.events.registry import CODEC, AppDeleted, AppEdited, RegistryEvent
from shared.events.review import ReviewEvent
from shared.postgres import Connection, Pool
from shared.streams.consumer import Consumer, Handle, Poison
from shared.streams.facts import Unreadable, decode
from shared.streams.jetstream import Connected
from shared.streams.message import Message

CONSUMER: Final = "review-registry"
ACTOR: Final = "service:review"
BATCH_MAX: Final = 500
"""Events in a transaction, at most."""
_GOING_ON: Final = (
    "SELECT DISTINCT client_id, service FROM application WHERE client_id = ANY($1::text[]) AND state = ANY($2::text[])"
)


class Told(NamedTuple):
    """An event of the registry, and its place in that log."""

    event: RegistryEvent
    position: int
    recorded_at: datetime
    hash: bytes


Reaction: TypeAlias = Callable[[Connection, Sequence[Told]], Awaitable[None]]
"""Writes what events cause, in the transaction of the consumer's checkpoint."""


def registry_consumer(pool: Pool, nc: Connected, clock: Clock, *also: Reaction, committed: Callable[[], None]) -> Consumer:
    """Follows the registry, once its source is added. `also` are asked in this order, after the rows are written."""
    handle = follow_registry(write_rows, *also)
    return Consumer(CONSUMER, pool, nc, handle, batch_max=BATCH_MAX, clock=clock, committed=committed)


def follow_registry(*reactions: Reaction) -> Handle:
    """What the consumer does: read the events, then all reactions to them, in this order and in one transaction."""

    async def follow(connection: Connection, messages: Sequence[Message]) -> None:
        told = [_told(message) for message in messages]
        for reaction in reactions:
            await reaction(connection, told)

    return follow


async def write_rows(connection: Connection, told: Sequence[Told]) -> None:
    """What review knows of applications and their services."""
    changes: list[Change] = []
    for one in told:
        changes += react(one.event, one.position, one.recorded_at)
    await apply(connection, changes)


def retiring(log: EventLog[ReviewEvent], transactor: Transactor[ReviewEvent]) -> Reaction:
    """Ends the service apps of applications that are gone, or have given up the service."""

    async def retire_left(connection: Connection, told: Sequence[Told]) -> None:
        ending = [(one, one.event) for one in told if isinstance(one.event, AppDeleted | AppEdited)]
        if not ending:
            return
        # Locked before looking: whoever applies meanwhile is seen here, or sees what was written here.
        await log.lock_head(connection)
        rows = await connection.fetch(_GOING_ON, [event.client_id for _, event in ending], list(OPEN | LIVE))
        going_on = {(row["client_id"], row["service"]) for row in rows}
        for one, event in ending:
            left = [(id_, service) for id_, service in going_on if id_ == event.client_id and leaves(event, service)]
            for _, service in sorted(left):
                await _retire(connection, transactor, one, event, service)
            going_on.difference_update(left)

    return retire_left


async def _retire(
    connection: Connection, transactor: Transactor[ReviewEvent], told: Told, event: AppDeleted | AppEdited, service: str
) -> None:
    command = RetireServiceApp(
        # The same position of another history is another event.
        command_id=f"registry-{told.position}-{told.hash.hex()[:16]}-{service}",
        account=event.account,
        actor=ACTOR,
        client_id=event.client_id,
        service=service,
    )
    stream = service_app_stream(event.client_id, service)
    await transactor.run_in(connection, command, stream, None, evolve, lambda state, _: retire(state, command), Retired)


def _told(message: Message) -> Told:
    """Raises Poison for what this release does not know: what follows may depend on it."""
    try:
        event, recorded_at = decode(CODEC, message)
    except Unreadable as error:
        raise Poison(message, str(error)) from error
    return Told(event, message.sequence, recorded_at, message.hash)
