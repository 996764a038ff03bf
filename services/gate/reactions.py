"""What an event of the registry's stream means to the gate. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from services.gate.domain import Apps, Contradiction
from shared.events.codec import UnknownEvent, parse_ce_type
from shared.events.registry import CODEC, RegistryEvent

if TYPE_CHECKING:
    from shared.streams.message import Message


class Unreadable(Exception):
    """A message of the registry's stream that cannot be applied, and so neither can what follows it; the text says why."""


def react(apps: Apps, message: Message, position: int) -> int:
    """Apply `message` to what was known at `position`; returns the new position.

    A message that was applied before (the stream is being written again) changes nothing. Raises Unreadable.
    """
    if message.sequence <= position:
        return position
    if message.sequence != position + 1:
        raise Unreadable(f"message {message.sequence} of {message.stream} came after {position}: the ones between are missing")
    try:
        apps.apply(_event_of(message))
    except (UnknownEvent, Contradiction, msgspec.MsgspecError) as error:
        raise Unreadable(f"message {message.sequence} of {message.stream} cannot be applied: {error}") from error
    return message.sequence


def _event_of(message: Message) -> RegistryEvent:
    service, type_, schema = parse_ce_type(message.headers.get("ce-type", ""))
    if service != CODEC.service:
        raise UnknownEvent(f"an event of {service} does not belong into {message.stream}")
    return CODEC.decode(type_, schema, message.data)
