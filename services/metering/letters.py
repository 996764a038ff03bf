"""Dead letters as operators see them, and what a retry of one sends. Pure.

A retry is the original under a name that is its own: records of a batch as a batch of the publisher `retry-<sequence>`, a single
event with its own source and id. So to send it twice is to send it once, and counting needs to know nothing of retries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from services.metering.decoding import UNREADABLE, content_type
from services.metering.fields import CLIENT_ID
from services.metering.lapses import LapsedPlace
from services.metering.rejection import Why
from shared.events.usage import CLOUDEVENTS_SUBJECT, JSON, MSGPACK, RECORDS_SUBJECT
from shared.streams.cloudevents import Malformed, cloudevent_headers, parse_cloudevent
from shared.streams.message import Message
from shared.streams.publish import Outgoing

PREVIEW_BYTES_MAX: Final = 64 * 1024
RETRY_HEADER: Final = "tollbook-retry"
"""On what a retry sends: the sequence of the dead letter. What becomes a dead letter again is known by it."""
_ORIGINAL: Final = "tollbook-original-"
_DIGITS_MAX: Final = 18


class Letter(NamedTuple):
    """One dead letter, but for its bytes. `sequence` is its own in DEADLETTER, `original_*` are of what did not count.

    `record` is the place in its batch, None for a whole message; `records` how many it is about. `sender` and `client_id` are ""
    where nobody can tell; `retry_of` is the letter whose retry did not count either.
    """

    sequence: int
    recorded_at: datetime
    why: str
    reason: str
    subject: str
    original_sequence: int
    original_at: datetime
    record: int | None
    records: int
    size: int
    sender: str
    client_id: str
    retry_of: int | None
    left_out: str


def read_letter(message: Message) -> Letter:
    """What a message of DEADLETTER says."""
    headers = message.headers
    return Letter(
        sequence=message.sequence,
        recorded_at=message.recorded_at,
        why=_text(headers, "tollbook-why") or "unknown",
        reason=_text(headers, "tollbook-reason"),
        subject=_text(headers, "tollbook-subject"),
        original_sequence=_number(headers, "tollbook-sequence") or 0,
        original_at=_original_at(message),
        record=_number(headers, "tollbook-record"),
        records=_number(headers, "tollbook-records") or 1,
        size=len(message.data),
        sender=_text(headers, "tollbook-sender"),
        client_id=_client_id(message),
        retry_of=_number(headers, f"{_ORIGINAL}{RETRY_HEADER}"),
        left_out=_text(headers, "tollbook-left-out"),
    )


def original_headers(message: Message) -> dict[str, str]:
    """The headers that the original had, their names in lower case."""
    return {name.removeprefix(_ORIGINAL): value for name, value in message.headers.items() if name.startswith(_ORIGINAL)}


def preview(message: Message) -> str | None:
    """The letter's bytes as JSON to read; None if they are neither JSON nor msgpack, or more than PREVIEW_BYTES_MAX."""
    if len(message.data) > PREVIEW_BYTES_MAX:
        return None
    try:
        if _original(message) == MSGPACK:
            found = msgspec.json.format(msgspec.json.encode(msgspec.msgpack.decode(message.data)))
        else:
            found = msgspec.json.format(message.data)
        return found.decode()[:PREVIEW_BYTES_MAX]
    except (*UNREADABLE, TypeError):
        return None


def plan_retry(message: Message, bytes_max: int) -> Outgoing | str:
    """What to publish to try a letter again; or why that cannot be, in words for an operator."""
    letter = read_letter(message)
    if letter.left_out:
        return f"it was not kept whole (left out: {letter.left_out}): have its publisher send it again"
    if letter.why == Why.LEASE_ENDED:
        return "its quota lease had ended, so its call was refused, and under another name it would count"
    if letter.records > 1:
        return f"it holds {letter.records} records, of which nobody keeps the places: have their publisher send them again"
    outgoing: Outgoing | str
    if letter.subject == CLOUDEVENTS_SUBJECT:
        outgoing = _event_again(message, letter)
    elif letter.subject.startswith(f"{RECORDS_SUBJECT}."):
        outgoing = _records_again(message, letter)
    else:
        return f"nothing is counted from the subject {letter.subject!r}"
    if isinstance(outgoing, Outgoing) and outgoing.size > bytes_max:
        return f"with what a retry adds it has more than {bytes_max} bytes: have its publisher send it again"
    return outgoing


def places_of(message: Message) -> list[LapsedPlace]:
    """Where in USAGE what a letter holds was written, if a retry counts it under another name. When USAGE is counted again, those
    places are left out: what did not count there then, for want of its application, say, would count now, and twice."""
    letter = read_letter(message)
    format_ = _FORMATS.get(_original(message))
    if letter.subject == CLOUDEVENTS_SUBJECT or format_ is None:
        return []
    places = range(len(format_.whole(message.data).records)) if letter.record is None else [letter.record]
    return [LapsedPlace(letter.subject, letter.original_sequence, place) for place in places]


def _event_again(message: Message, letter: Letter) -> Outgoing | str:
    """The event itself. One that said nothing of when it occurred says now that it was when it came first."""
    headers = original_headers(message)
    if any("\\" in value for name, value in headers.items() if name.startswith("ce-")):
        return "its attributes are not ASCII and were not kept as they came: have its publisher send it again"
    event = parse_cloudevent(headers, message.data)
    if isinstance(event, Malformed):
        return f"it is not a CloudEvent: {event.reason}"
    again = cloudevent_headers(
        id_=event.id,
        source=event.source,
        type_=event.type,
        time=event.time or letter.original_at,
        subject=event.subject,
        datacontenttype=event.datacontenttype,
    )
    return Outgoing(CLOUDEVENTS_SUBJECT, event.data, again | {RETRY_HEADER: str(letter.sequence)})


class _Whole(msgspec.Struct):
    """A batch whose records are left as they are."""

    records: list[msgspec.Raw]
    retracted: bool = False


class _Format(NamedTuple):
    whole: Callable[[bytes], _Whole]
    value: Callable[[bytes], Any]
    encode: Callable[[object], bytes]


_FORMATS: Final[Mapping[str, _Format]] = {
    MSGPACK: _Format(
        msgspec.msgpack.Decoder(_Whole).decode,
        msgspec.msgpack.decode,
        msgspec.msgpack.encode,
    ),
    JSON: _Format(
        msgspec.json.Decoder(_Whole).decode,
        msgspec.json.decode,
        msgspec.json.encode,
    ),
}


def _records_again(message: Message, letter: Letter) -> Outgoing | str:
    """The records, as the one batch of a publisher of their own: under the old name and number they would be a repetition."""
    media = _original(message)
    format_ = _FORMATS.get(media)
    if format_ is None:
        return f"its Content-Type is {media or 'missing'!r}: have its publisher send it again as {MSGPACK} or {JSON}"
    try:
        records: Sequence[msgspec.Raw]
        if letter.record is None:
            whole = format_.whole(message.data)
            if whole.retracted:
                return "it takes back a batch, and only its publisher can do that"
            records = whole.records
        else:
            records = [msgspec.Raw(message.data)]
    except UNREADABLE as error:
        return f"it cannot be read: {error}"
    again = {"publisher": f"retry-{letter.sequence}", "seq": 1, "records": records}
    return Outgoing(letter.subject, format_.encode(again), {"Content-Type": media, RETRY_HEADER: str(letter.sequence)})


def _client_id(message: Message) -> str:
    """Whose application the letter is about, if it is about one."""
    try:
        if message.headers.get("tollbook-subject") == CLOUDEVENTS_SUBJECT:
            event = parse_cloudevent(original_headers(message), message.data)
            said = None if isinstance(event, Malformed) else msgspec.json.decode(event.data)
            found = said.get("client_id") if isinstance(said, dict) else None
        else:
            format_ = _FORMATS.get(_original(message))
            single = message.headers.get("tollbook-records") == "1"  # absent for a whole batch
            said = format_.value(message.data) if format_ is not None and single else None
            found = said[0] if isinstance(said, list) and said else None
    except UNREADABLE:
        return ""
    return found if isinstance(found, str) and CLIENT_ID.fullmatch(found) else ""


def _original(message: Message) -> str:
    """The media type of the original."""
    return content_type(msgspec.structs.replace(message, headers=original_headers(message)))


def _original_at(message: Message) -> datetime:
    try:
        at = datetime.fromisoformat(message.headers.get("tollbook-recorded-at", ""))
    except ValueError:
        return message.recorded_at
    return message.recorded_at if at.tzinfo is None else at


def _text(headers: Mapping[str, str], name: str) -> str:
    """As a database takes it: without NUL."""
    return headers.get(name, "").replace("\0", "?")


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX else None
