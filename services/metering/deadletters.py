"""Dead letters: what did not count, kept in the stream DEADLETTER with its reason, so that nothing is dropped."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec
from nats.aio.client import Client

from services.metering.decoding import UNREADABLE, content_type
from services.metering.rejection import Rejected
from shared.events.usage import CLOUDEVENTS_SUBJECT, JSON
from shared.streams.cloudevents import Malformed, parse_cloudevent
from shared.streams.message import Message
from shared.streams.publish import Outgoing, publish_batch

SUBJECT: Final = "deadletter.usage"
DUPLICATE_WINDOW_S: Final = 120.0
"""A transaction that is tried again publishes its dead letters again: JetStream keeps one of them."""
AT_ONCE_MAX: Final = 100
REASON_MAX: Final = 500
SENDER_MAX: Final = 200
HEADERS_BYTES_MAX: Final = 60_000
"""JetStream refuses a message with more than 64 KiB of headers."""


class _Sent(msgspec.Struct):
    """What of a batch says who sent it."""

    publisher: str


_SENDER_FROM_JSON: Final = msgspec.json.Decoder(_Sent).decode
_SENDER_FROM_MSGPACK: Final = msgspec.msgpack.Decoder(_Sent).decode
_NOT_SHOWN: Final = re.compile(r"[^\x20-\x7e]")
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]")


def letter(rejected: Rejected, bytes_max: int, sender: str = "") -> Outgoing:
    """The dead letter: the original bytes (of the records, when only they are bad), and where they came from in headers.

    Headers `tollbook-*` say why, and name stream, subject, sequence, time and sender of the original; `tollbook-original-<name>`
    are the original's own. What would not fit into `bytes_max` is left out: first those, then the end of the data, which the
    original in USAGE still has.
    """
    message = rejected.message
    number = "" if rejected.number is None else f"-{rejected.number}"
    headers = {
        "Nats-Msg-Id": f"{message.stream}-{message.sequence}{number}",
        "tollbook-why": rejected.why.value,
        "tollbook-reason": _NOT_SHOWN.sub("?", rejected.reason)[:REASON_MAX],
        "tollbook-stream": message.stream,
        "tollbook-subject": _NOT_SHOWN.sub("?", message.subject),
        "tollbook-sequence": str(message.sequence),
        "tollbook-recorded-at": message.recorded_at.isoformat(),
    }
    if sender:
        headers["tollbook-sender"] = sender
    if rejected.number is not None:
        headers["tollbook-record"] = str(rejected.number)
        headers["tollbook-records"] = str(rejected.records)
    originals = {f"tollbook-original-{_name(name)}": _value(value) for name, value in message.headers.items()}
    data = message.data if rejected.data is None else rejected.data
    whole = Outgoing(SUBJECT, data, {**headers, **originals})
    if whole.size <= bytes_max and whole.size - len(data) <= HEADERS_BYTES_MAX:
        return whole
    bare = Outgoing(SUBJECT, data, {**headers, "tollbook-left-out": "headers"})
    if bare.size <= bytes_max:
        return bare
    headers["tollbook-left-out"] = f"headers, and the data after byte {bytes_max // 2} of {len(data)}"
    return Outgoing(SUBJECT, data[: bytes_max // 2], headers)


def sender_of(message: Message) -> str:
    """Who sent it, as far as it can be read: a batch's publisher, an event's source; "" if not. At most SENDER_MAX characters."""
    try:
        if message.subject == CLOUDEVENTS_SUBJECT:
            event = parse_cloudevent(message.headers, message.data)
            sender = "" if isinstance(event, Malformed) else event.source
        else:
            decode = _SENDER_FROM_JSON if content_type(message) == JSON else _SENDER_FROM_MSGPACK
            sender = decode(message.data).publisher
    except UNREADABLE:
        return ""
    return _NOT_SHOWN.sub("?", sender)[:SENDER_MAX]


def _letters(rejected: Iterable[Rejected], bytes_max: int) -> Iterator[Outgoing]:
    """One for each; a message is read once, however many of its records are bad."""
    message, sender = None, ""
    for one in rejected:
        if one.message is not message:
            message, sender = one.message, sender_of(one.message)
        yield letter(one, bytes_max, sender)


async def publish(nc: Client, rejected: Sequence[Rejected]) -> None:
    """Store dead letters; returns when JetStream has acknowledged all. Raises Unavailable."""
    letters = _letters(rejected, nc.max_payload)
    while some := list(islice(letters, AT_ONCE_MAX)):
        await asyncio.gather(*(publish_batch(nc, [one], expected_last_sequence=None) for one in some))


def _name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)


def _value(value: str) -> str:
    """As it came; what is not ASCII as Python writes it, so that a character is a byte and the size is right."""
    return value.encode("ascii", "backslashreplace").decode("ascii")
