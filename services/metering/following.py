"""The registry's stream into metering's rows: what the consumer does with each batch of events."""

from __future__ import annotations

from collections.abc import Sequence

from services.metering.reactions import Unreadable, decode, react
from shared.eventlog.changes import Change, apply
from shared.postgres import Connection
from shared.streams.consumer import Poison
from shared.streams.message import Message


async def follow_registry(connection: Connection, messages: Sequence[Message]) -> None:
    """Apply the events. Raises Poison for one that this release does not know: what follows may depend on it."""
    changes: list[Change] = []
    for message in messages:
        try:
            event, recorded_at = decode(message)
        except Unreadable as error:
            raise Poison(message, str(error)) from error
        changes += react(event, message.sequence, recorded_at)
    await apply(connection, changes)
