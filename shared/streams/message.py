"""One message of a stream, as consumers see it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from shared.streams.headers import parse_headers

HASH_HEADER: Final = "ce-hash"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
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


def parse_delivery(reply: bytes) -> Delivery:
    """`$JS.ACK.` subjects of both forms: nine tokens, or with domain and account hash before the stream."""
    tokens = reply.split(b".")
    at = 2 if len(tokens) == 9 else 4
    return Delivery(tokens[at + 1].decode(), int(tokens[at + 3]), int(tokens[at + 4]), int(tokens[at + 5]), int(tokens[at + 6]))


def from_delivery(stream: str, subject: bytes, headers: bytes, data: bytes, delivery: Delivery) -> Message:
    """The Message that was delivered with these bytes."""
    recorded_at = _EPOCH + timedelta(microseconds=delivery.timestamp_ns // 1000)
    parsed = parse_headers(headers) if headers else _NO_HEADERS
    return Message(stream, subject.decode(), delivery.sequence, parsed, data, recorded_at, delivery.pending)
