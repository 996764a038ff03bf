"""Publishing to a stream: single messages and atomic batches (nats-server's ADR-50), with optimistic concurrency."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from nats.aio.client import Client

from shared.errors import Unavailable
from shared.ids import new_id
from shared.streams.jetstream import NATS_FAILURES, TIMEOUT_S, WRONG_LAST_SEQUENCE, request

BATCH_MESSAGES_MAX: Final = 1000
"""nats-server's own limit for one atomic batch."""
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Where `split_batches` cuts: the server holds an uncommitted batch in memory."""

_SEQUENCE: Final = re.compile(r"wrong last sequence: (\d+)")


class Outgoing(NamedTuple):
    """A message to publish."""

    subject: str
    data: bytes
    headers: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes on the wire, about: what max_payload limits (data and headers), and the subject."""
        return len(self.subject) + len(self.data) + sum(len(name) + len(value) + 4 for name, value in self.headers.items()) + 160


class WrongLastSequence(Exception):
    """The stream did not end where the publisher thought. Nothing was stored. `actual` is its end, None when it was not said."""

    def __init__(self, actual: int | None) -> None:
        super().__init__(f"the stream's last sequence is {actual}")
        self.actual = actual


class TooBig(ValueError):
    """The message at `index` of the batch is over the server's max_payload, which would cost the connection. Nothing was sent."""

    def __init__(self, index: int, message: Outgoing, size_max: int) -> None:
        super().__init__(f"a message of {message.size} bytes for {message.subject} is over max_payload, {size_max} bytes")
        self.index = index


def split_batches(
    messages: Iterable[Outgoing], count_max: int = BATCH_MESSAGES_MAX, bytes_max: int = BATCH_BYTES_MAX
) -> Iterator[list[Outgoing]]:
    """Cut a run of messages, in order, into batches that the server takes. A message over `bytes_max` goes alone."""
    batch: list[Outgoing] = []
    size = 0
    for message in messages:
        if batch and (len(batch) >= count_max or size + message.size > bytes_max):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += message.size
    if batch:
        yield batch


async def publish_batch(
    nc: Client, messages: Sequence[Outgoing], *, expected_last_sequence: int | None, timeout_s: float = TIMEOUT_S
) -> int:
    """Store 1 to 1000 messages, all or none, and return the last one's sequence; the ones before it precede it gaplessly.

    With `expected_last_sequence`, only if the stream ends just there. Raises WrongLastSequence or TooBig (nothing stored), or
    Unavailable: then the fate is unknown, the batch may have been stored or may still be, unless JetStream's refusal is quoted.
    """
    if not 1 <= len(messages) <= BATCH_MESSAGES_MAX:
        raise ValueError(f"an atomic batch holds 1 to {BATCH_MESSAGES_MAX} messages, not {len(messages)}")
    if not nc.is_connected:
        raise Unavailable("NATS is not connected.")
    for index, message in enumerate(messages):
        if message.size > nc.max_payload:
            raise TooBig(index, message, nc.max_payload)
    expectation = {} if expected_last_sequence is None else {"Nats-Expected-Last-Sequence": str(expected_last_sequence)}
    last = messages[-1]
    try:
        if len(messages) == 1:
            answer = await request(nc, last.subject, last.data, timeout_s, {**last.headers, **expectation})
        else:
            batch_id = new_id()
            for index, message in enumerate(messages[:-1], 1):
                marks = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(index), **(expectation if index == 1 else {})}
                await nc.publish(message.subject, message.data, headers={**message.headers, **marks})
            marks = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(len(messages)), "Nats-Batch-Commit": "1"}
            answer = await request(nc, last.subject, last.data, timeout_s, {**last.headers, **marks})
    except NATS_FAILURES as error:
        raise Unavailable(f"JetStream did not acknowledge a batch for {last.subject} ({type(error).__name__}).") from error
    return _acknowledged(answer, last.subject)


def _acknowledged(answer: bytes, subject: str) -> int:
    try:
        ack: dict[str, Any] = msgspec.json.decode(answer)
    except msgspec.DecodeError as error:
        raise Unavailable(f"Something that is not JetStream answered on {subject}.") from error
    refusal = ack.get("error")
    if refusal is None:
        return int(ack["seq"])
    description = refusal.get("description", "")
    if refusal.get("err_code") in WRONG_LAST_SEQUENCE:
        found = _SEQUENCE.search(description)
        raise WrongLastSequence(int(found[1]) if found else None)
    raise Unavailable(f"JetStream refused a batch for {subject}: {description} ({refusal.get('err_code')}).")
