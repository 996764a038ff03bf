"""Why a message, or a record of one, does not count. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from shared.streams.message import Message

REJECTED_SINGLY_MAX: Final = 100
"""Bad records of one message that become a dead letter each; the others share one."""


class Why(StrEnum):
    """The kinds of reasons: a metric's label, and the first word for an operator."""

    CONTENT_TYPE = "content_type"
    UNREADABLE = "unreadable"
    UNKNOWN_TYPE = "unknown_type"
    INVALID_RECORD = "invalid_record"
    TOO_OLD = "too_old"
    IN_THE_FUTURE = "in_the_future"
    UNKNOWN_APPLICATION = "unknown_application"
    DELETED_APPLICATION = "deleted_application"
    UNKNOWN_SERVICE = "unknown_service"
    LEASE_ENDED = "lease_ended"
    CONFLICT = "conflict"
    UNKNOWN_RECORD = "unknown_record"


class Rejected(NamedTuple):
    """A message that does not count, or `records` of its records from number `number` on, whose bytes are then `data`."""

    message: Message
    why: Why
    reason: str
    number: int | None = None
    data: bytes | None = None
    records: int = 1


class BadRecord(NamedTuple):
    """The record at `place` of a batch as it was read does not count; `number` is its place as it was written."""

    place: int
    why: Why
    reason: str
    number: int


def reject_records(message: Message, bad: Sequence[BadRecord], encode: Callable[[Sequence[int]], bytes]) -> Iterator[Rejected]:
    """The rejections of bad records of one batch; `encode` gives the bytes of the records at these places."""
    for place, why, reason, number in bad[:REJECTED_SINGLY_MAX]:
        yield Rejected(message, why, f"records[{number}]: {reason}", number, encode([place]))
    rest = bad[REJECTED_SINGLY_MAX:]
    if rest:
        _, why, reason, number = rest[0]
        text = f"{len(rest)} records; the first is records[{number}]: {reason}"
        yield Rejected(message, why, text, number, encode([place for place, *_ in rest]), len(rest))
