"""What a message of a followed stream means to the gate. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from services.gate.domain import Contradiction
from shared.events.codec import Codec, UnknownEvent, parse_ce_type

if TYPE_CHECKING:
    from shared.streams.message import Message


class Unreadable(Exception):
    """A message of a stream that cannot be applied, and so neither can what follows it; the text says why."""


class Followed(NamedTuple):
    """A stream, what its events are applied with, and which `subjects` of it are read: none are all."""

    stream: str
    codec: Codec[Any]
    apply: Callable[[Any], None]
    subjects: tuple[str, ...] = ()


def react(followed: Followed, message: Message, position: int) -> int:
    """Apply `message` to what was known at `position`; returns the new position.

    A message that was applied before (the stream is being written again) changes nothing. Raises Unreadable. Where only some
    subjects are read, a message that is missing cannot be told from one of another subject.
    """
    if message.sequence <= position:
        return position
    if not followed.subjects and message.sequence != position + 1:
        raise Unreadable(f"message {message.sequence} of {message.stream} came after {position}: the ones between are missing")
    try:
        followed.apply(_event_of(followed.codec, message))
    except (UnknownEvent, Contradiction, msgspec.MsgspecError) as error:
        raise Unreadable(f"message {message.sequence} of {message.stream} cannot be applied: {error}") from error
    return message.sequence


def _event_of(codec: Codec[Any], message: Message) -> Any:
    service, type_, schema = parse_ce_type(message.headers.get("ce-type", ""))
    if service != codec.service:
        raise UnknownEvent(f"an event of {service} does not belong into {message.stream}")
    return codec.decode(type_, schema, message.data)
