"""Events of another service, as its relay put them into its stream: read back from a message. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeVar

import msgspec

from shared.events.codec import Codec, Event, UnknownEvent, parse_ce_type
from shared.streams.message import Message

E = TypeVar("E", bound=Event)
_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class Unreadable(Exception):
    """A message of another service's stream that this release cannot apply; the text says why."""


def decode(codec: Codec[E], message: Message) -> tuple[E, datetime]:
    """The event, and when its service recorded it. Raises Unreadable."""
    try:
        service, type_, schema = parse_ce_type(message.headers.get("ce-type", ""))
        event = codec.decode(type_, schema, message.data)
        recorded_at = msgspec.convert(message.headers.get("ce-time"), _Instant)
    except (UnknownEvent, msgspec.MsgspecError) as error:
        raise Unreadable(str(error)) from error
    if service != codec.service:
        raise Unreadable(f"an event of {service} does not belong into {message.stream}")
    return event, recorded_at
