"""What a message of USAGE says: a batch of records, a single event, or nothing that can be read. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from services.metering.columns import Rows, cut_out, rows_of
from services.metering.rejection import BadRecord, Rejected, Why, reject_records
from shared.events.codec import UnknownEvent, parse_ce_type
from shared.events.usage import (
    CLOUDEVENTS_SUBJECT,
    CODEC,
    JSON,
    MSGPACK,
    RECORDS_MAX,
    RECORDS_SUBJECT,
    PublisherId,
    Seq,
    UsageBatch,
    UsageRecord,
    UsageRecorded,
    UsageVoided,
)
from shared.streams.cloudevents import CloudEvent, Malformed, parse_cloudevent
from shared.streams.message import Message
from shared.windows import to_us

MESSAGE_BYTES: Final = 512
"""What a message is reckoned at, at least: its headers have to be read too."""
PACKED_PART: Final = 8
"""How many times faster a packed batch is counted than one that is decoded."""
DIGEST_BYTES: Final = 16
INT64: Final = 2**63
_PUBLISHER: Final = re.compile(r"[\x21-\x7e]{1,64}", re.ASCII)
_NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)
"""What decoding bytes from anyone may raise."""


class Batch(NamedTuple):
    """A UsageBatch and the message that it came in.

    `unreadable` are the records that could not be decoded; `batch` has the others, and `written_at` says where each of them stood
    (empty: where it stands).
    """

    message: Message
    partition: int
    batch: UsageBatch
    unreadable: Sequence[Rejected] = ()
    written_at: Sequence[int] = ()

    def written(self, index: int) -> int:
        """The place where record `index` of `batch` was written."""
        return self.written_at[index] if self.written_at else index

    def written_records(self) -> int:
        """How many records were written, readable or not."""
        return len(self.batch.records) + sum(one.records for one in self.unreadable)


class Single(NamedTuple):
    """One record from a CloudEvent. `key` tells the event (source and id), `digest` its payload."""

    message: Message
    record: UsageRecord
    key: bytes
    digest: bytes


class Void(NamedTuple):
    """A correction from a CloudEvent: `key` and `digest` tell the event itself, `record_key` the one that reported the record.
    `quantity` None: the record is not to count at all."""

    message: Message
    key: bytes
    digest: bytes
    record_key: bytes
    source: str
    record_id: str
    quantity: int | None
    reason: str


class Packed(NamedTuple):
    """A batch that is not retracted, whose records are still the bytes that they came as. Strings in them need not be UTF-8."""

    message: Message
    partition: int
    publisher: str
    seq: int
    rows: Sequence[Rows]


Item = Batch | Packed | Single | Void | Rejected


class _Envelope(msgspec.Struct, frozen=True):
    """A UsageBatch whose records are left as they are."""

    publisher: PublisherId
    seq: Seq
    records: msgspec.Raw
    retracted: bool = False


class _LooseBatch(msgspec.Struct, frozen=True):
    """A UsageBatch whose records are looked at one by one."""

    publisher: PublisherId
    seq: int
    records: list[msgspec.Raw]
    retracted: bool = False
    voided: tuple[int, ...] | msgspec.UnsetType = msgspec.UNSET


class _Format(NamedTuple):
    """How one media type is read and written."""

    batch: Callable[[bytes], UsageBatch]
    loose: Callable[[bytes], _LooseBatch]
    record: Callable[[msgspec.Raw], UsageRecord]
    encode: Callable[[object], bytes]


_BATCH_FROM_JSON: Final = msgspec.json.Decoder(UsageBatch)
_RECORD_FROM_JSON: Final = msgspec.json.Decoder(UsageRecord)


def _json_batch(data: bytes) -> UsageBatch:
    """JSON has integers of any size; nothing behind this has."""
    batch = _BATCH_FROM_JSON.decode(data)
    for record in batch.records:
        _check_size(record)
    return batch


def _json_record(data: msgspec.Raw) -> UsageRecord:
    record = _RECORD_FROM_JSON.decode(data)
    _check_size(record)
    return record


def _check_size(record: UsageRecord) -> None:
    for place, value in ((2, record.occurred_at_us), (3, record.quantity)):
        if not -INT64 <= value < INT64:
            raise ValueError(f"Expected an integer of 64 bits - at `$[{place}]`")


_ENVELOPE: Final = msgspec.msgpack.Decoder(_Envelope)
_RECORD_FROM_ROW: Final = msgspec.msgpack.Decoder(UsageRecord)
_FORMATS: Final = {
    MSGPACK: _Format(
        msgspec.msgpack.Decoder(UsageBatch).decode,
        msgspec.msgpack.Decoder(_LooseBatch).decode,
        msgspec.msgpack.Decoder(UsageRecord).decode,
        msgspec.msgpack.Encoder().encode,
    ),
    JSON: _Format(
        _json_batch,
        msgspec.json.Decoder(_LooseBatch).decode,
        _json_record,
        msgspec.json.Encoder().encode,
    ),
}


def read(message: Message) -> Item:
    """What the message says; `Rejected` when that cannot be made out."""
    if message.subject == CLOUDEVENTS_SUBJECT:
        return _read_event(message)
    return _read_batch(message)


def pack(message: Message) -> Packed | None:
    """The message, if it is a batch that can be counted without decoding each record; None if it has to be `read`."""
    partition = message.subject.removeprefix(f"{RECORDS_SUBJECT}.")
    if not partition.isdecimal() or content_type(message) != MSGPACK:
        return None
    try:
        around, records = cut_out(message.data) or (message.data, None)
        envelope = _ENVELOPE.decode(around)
        rows = None if envelope.retracted else rows_of(memoryview(envelope.records) if records is None else records)
    except UNREADABLE:
        return None
    if rows is None or _PUBLISHER.fullmatch(envelope.publisher) is None:
        return None
    return Packed(message, int(partition), envelope.publisher, envelope.seq, rows)


def unpack(packed: Packed) -> Item:
    """The same, with its records decoded."""
    return read(packed.message)


def decode_row(row: bytes) -> UsageRecord | None:
    """What a row of a Packed says of all its records, but for when they occurred (0); None if it cannot be decoded."""
    try:
        return _RECORD_FROM_ROW.decode(row)
    except UNREADABLE:
        return None


def content_type(message: Message) -> str:
    """The media type of a message, without its parameters."""
    if message.headers.get("content-type") == MSGPACK:
        return MSGPACK
    return message.headers.get("content-type", "").partition(";")[0].strip().lower()


def encode_records(message: Message, records: Sequence[UsageRecord]) -> bytes:
    """Records of a batch as they were written in it: one of them alone, several as an array."""
    encode = _FORMATS[content_type(message)].encode
    return encode(records[0]) if len(records) == 1 else encode(records)


def digest_of(records: Sequence[UsageRecord]) -> bytes:
    """DIGEST_BYTES bytes that tell these records from others."""
    return hashlib.blake2b(_FORMATS[MSGPACK].encode(records), digest_size=DIGEST_BYTES).digest()


def _read_batch(message: Message) -> Item:
    media = content_type(message)
    partition = message.subject.removeprefix(f"{RECORDS_SUBJECT}.")
    format_ = _FORMATS.get(media)
    if format_ is None:
        return Rejected(message, Why.CONTENT_TYPE, f"Content-Type is {media or 'missing'!r}: use {MSGPACK} or {JSON}")
    if not partition.isdecimal():
        return Rejected(message, Why.UNREADABLE, f"{partition!r} is not the number of a partition")
    try:
        read_batch = Batch(message, int(partition), format_.batch(message.data))
    except UNREADABLE as error:
        try:
            read_batch = _read_loosely(message, int(partition), format_)
        except UNREADABLE:
            return Rejected(message, Why.UNREADABLE, f"not a UsageBatch: {error}")
    if _PUBLISHER.fullmatch(read_batch.batch.publisher) is None:
        return Rejected(message, Why.UNREADABLE, "publisher: 1 to 64 printable ASCII characters without space are allowed")
    return read_batch


def _read_loosely(message: Message, partition: int, format_: _Format) -> Batch:
    """The batch with the records that can be decoded, and the others. Raises what decoding raises if that is not the trouble."""
    loose = format_.loose(message.data)
    if len(loose.records) > RECORDS_MAX:
        raise msgspec.ValidationError(f"more than {RECORDS_MAX} records")
    records: list[UsageRecord] = []
    written_at: list[int] = []
    bad: list[BadRecord] = []
    for index, raw in enumerate(loose.records):
        try:
            records.append(format_.record(raw))
            written_at.append(index)
        except UNREADABLE as error:
            bad.append(BadRecord(index, Why.INVALID_RECORD, _named(str(error)), index))

    def written(places: Sequence[int]) -> bytes:
        raws = [loose.records[place] for place in places]
        return bytes(raws[0]) if len(raws) == 1 else format_.encode(raws)

    envelope = {"publisher": loose.publisher, "seq": loose.seq, "records": [], "retracted": loose.retracted}
    batch = msgspec.structs.replace(msgspec.convert(envelope, UsageBatch), records=records, voided=loose.voided)
    return Batch(message, partition, batch, tuple(reject_records(message, bad, written)), written_at)


_parse_type: Final = lru_cache(maxsize=256)(parse_ce_type)
"""Few differ, and what raises is not remembered."""


def _read_event(message: Message) -> Item:
    event = parse_cloudevent(message.headers, message.data)
    if isinstance(event, Malformed):
        return Rejected(message, Why.UNREADABLE, f"not a CloudEvent: {event.reason}")
    try:
        service, type_, schema = _parse_type(event.type)
        if service != CODEC.service:
            return Rejected(message, Why.UNKNOWN_TYPE, f"ce-type: {event.type!r} is not an event of usage")
        said = CODEC.decode(type_, schema, event.data)
        if isinstance(said, UsageVoided):
            return _void(said, event, message)
        return _single(said, event, message)
    except UnknownEvent as error:
        return Rejected(message, Why.UNKNOWN_TYPE, f"ce-type: {error}")
    except UNREADABLE as error:
        return Rejected(message, Why.INVALID_RECORD, f"data: {_named(str(error))}")


def _single(recorded: UsageRecorded, event: CloudEvent, message: Message) -> Single:
    occurred_at_us = _occurred_at_us(recorded, event.time, message)
    record = UsageRecord(recorded.client_id, recorded.service, occurred_at_us, recorded.quantity)
    stated = record if recorded.occurred_at or event.time else msgspec.structs.replace(record, occurred_at_us=0)
    return Single(message, record, _key(event.source, event.id), digest_of([stated]))


def _void(voided: UsageVoided, event: CloudEvent, message: Message) -> Void:
    """Raises ValueError. When the event happened decides nothing, and does not tell it from others."""
    if voided.record_source not in (None, event.source):
        raise ValueError(
            "Expected the source of the event itself: only who reported a record may correct it - at `$.record_source`"
        )
    if _NOT_TEXT.search(voided.reason):
        raise ValueError("Expected text without control characters - at `$.reason`")
    key, record_key = _key(event.source, event.id), _key(event.source, voided.record_id)
    stated = msgspec.structs.replace(voided, record_source=None)
    digest = hashlib.blake2b(CODEC.encode(stated), digest_size=DIGEST_BYTES).digest()
    return Void(message, key, digest, record_key, event.source, voided.record_id, voided.quantity, voided.reason)


def _occurred_at_us(recorded: UsageRecorded, event_time: datetime | None, message: Message) -> int:
    if recorded.occurred_at is not None and recorded.occurred_at.tzinfo is None:
        raise ValueError("Expected an offset from UTC, such as Z - at `$.occurred_at`")
    return to_us(recorded.occurred_at or event_time or message.recorded_at)


def _key(source: str, id_: str) -> bytes:
    return hashlib.blake2b(f"{len(source)}:{source}{id_}".encode(), digest_size=DIGEST_BYTES).digest()


_FIELDS: Final = UsageRecord.__struct_fields__
_AT: Final = re.compile(r"(.*) - at `\$(?:\.(\w+)|\[(\d+)\])`", re.ASCII)


def _named(problem: str) -> str:
    """msgspec's message with the field's name in front."""
    found = _AT.fullmatch(problem)
    if found is None:
        return problem
    text, name, number = found.groups()
    if name is None:
        name = _FIELDS[int(number)] if int(number) < len(_FIELDS) else f"[{number}]"
    return f"{name}: {text}"


def portions(messages: Sequence[Message], bytes_max: int) -> Iterator[Sequence[Item]]:
    """What the messages say, in order: as many at once as `bytes_max` bytes are decoded for, so that one piece takes neither the
    memory nor the time of all. Packed batches are decoded later, if at all, and reckoned at a part of their bytes."""
    items: list[Item] = []
    spent = 0
    for message in messages:
        packed = pack(message)
        cost = max(MESSAGE_BYTES, len(message.data) if packed is None else len(message.data) // PACKED_PART)
        if items and spent + cost > bytes_max:
            yield items
            items, spent = [], 0
        items.append(read(message) if packed is None else packed)
        spent += cost
    if items:
        yield items
