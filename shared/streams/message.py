"""One message of a stream, as consumers see it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from nats.aio.msg import Msg

HASH_HEADER: Final = "ce-hash"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NAMES_MAX: Final = 1_000
_LOWER: Final[dict[str, str]] = {}
"""Names of headers in lower case. Few differ; too many are forgotten at once."""
_NO_HEADERS: Final[Mapping[str, str]] = {}


class Message(msgspec.Struct, frozen=True, gc=False):
    """A stored message. Header names are lower-cased; `recorded_at` is JetStream's time; `pending` is how many came after it."""

    stream: str
    subject: str
    sequence: int
    headers: Mapping[str, str]
    data: bytes
    recorded_at: datetime
    pending: int = 0

    @property
    def hash(self) -> bytes:
        """32 bytes that tell whether the message at a sequence is still the same."""
        return message_hash(self.subject, self.headers, self.data)


def message_hash(subject: str, headers: Mapping[str, str], data: bytes) -> bytes:
    """The log's own hash of the event (header ce-hash) if there is one, else sha256(subject, NUL, data)."""
    stated = headers.get(HASH_HEADER, "")
    if len(stated) == 64:
        try:
            return bytes.fromhex(stated)
        except ValueError:
            pass  # anyone may publish such a header to USAGE: it is then like any other
    return hashlib.sha256(subject.encode() + b"\0" + data).digest()


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """What the reply subject of a delivered message says."""

    consumer: str
    sequence: int
    consumer_sequence: int
    timestamp_ns: int
    pending: int


def parse_delivery(reply: str) -> Delivery:
    """`$JS.ACK.` subjects of both forms: nine tokens, or with domain and account hash before the stream."""
    tokens = reply.split(".")
    at = 2 if len(tokens) == 9 else 4
    return Delivery(tokens[at + 1], int(tokens[at + 3]), int(tokens[at + 4]), int(tokens[at + 5]), int(tokens[at + 6]))


def lower_names(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The same headers, names in lower case."""
    try:
        return {_LOWER[name]: value for name, value in headers.items()}
    except KeyError:
        if len(_LOWER) > NAMES_MAX:
            _LOWER.clear()
        _LOWER.update({name: name.lower() for name in headers})
        return {name.lower(): value for name, value in headers.items()}


def from_delivery(stream: str, msg: Msg, delivery: Delivery) -> Message:
    """The Message that nats-py delivered as `msg`."""
    headers = lower_names(msg.headers) if msg.headers else _NO_HEADERS
    recorded_at = _EPOCH + timedelta(microseconds=delivery.timestamp_ns // 1000)
    return Message(stream, msg.subject, delivery.sequence, headers, msg.data, recorded_at, delivery.pending)
