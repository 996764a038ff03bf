"""What messages of USAGE say, and what becomes of those that say nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metering.decoding import Batch, Single, Void, portions, read
from services.metering.lapses import NO_LAPSES, Lapses
from services.metering.rejection import Rejected, Why
from shared.events.usage import RECORDS_MAX, UsageBatch, UsageRecord
from shared.streams.message import Message
from shared.windows import to_us
from tests.support.books import Books

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
CLIENT = "a" * 20
GOOD = [CLIENT, "csr", to_us(NOW), 2, "s1", ""]


def message(data: bytes, subject: str = "usage.records.3", headers: dict[str, str] | None = None) -> Message:
    return Message("USAGE", subject, 7, headers or {"content-type": "application/msgpack"}, data, NOW)


def batch(records: list[Any], **fields: Any) -> dict[str, Any]:
    return {"publisher": "gate-1", "seq": 1, "records": records, **fields}


def event(data: Any, **attributes: str) -> Message:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/meter",
        "ce-type": "tollbook.usage.UsageRecorded.v1",
        "content-type": "application/json",
        **{f"ce-{name}": value for name, value in attributes.items()},
    }
    body = data if isinstance(data, bytes) else msgspec.json.encode(data)
    return message(body, "usage.cloudevents", {name: value for name, value in headers.items() if value})


@pytest.mark.parametrize("kind", [msgspec.msgpack, msgspec.json])
def test_a_batch_is_read_in_both_encodings(kind: Any) -> None:
    media = "application/msgpack" if kind is msgspec.msgpack else "application/json; charset=utf-8"
    found = read(message(kind.encode(batch([GOOD])), headers={"content-type": media}))
    assert isinstance(found, Batch)
    assert found.partition == 3
    assert found.batch == UsageBatch(publisher="gate-1", seq=1, records=[UsageRecord(*GOOD)])


@pytest.mark.parametrize(
    ("data", "headers", "subject", "why"),
    [
        (b"\x00", {}, "usage.records.3", Why.CONTENT_TYPE),
        (b"{}", {"content-type": "text/plain"}, "usage.records.3", Why.CONTENT_TYPE),
        (b"\xc1", None, "usage.records.3", Why.UNREADABLE),
        (b"", None, "usage.records.3", Why.UNREADABLE),
        (msgspec.msgpack.encode([1, 2]), None, "usage.records.3", Why.UNREADABLE),
        (msgspec.msgpack.encode(batch([GOOD], seq=0)), None, "usage.records.3", Why.UNREADABLE),
        (msgspec.msgpack.encode(batch([GOOD], seq=2**63)), None, "usage.records.3", Why.UNREADABLE),
        (msgspec.msgpack.encode(batch([GOOD], publisher="")), None, "usage.records.3", Why.UNREADABLE),
        (msgspec.msgpack.encode(batch([GOOD], publisher="a\0b")), None, "usage.records.3", Why.UNREADABLE),
        (msgspec.msgpack.encode(batch([GOOD, 5], seq=-1)), None, "usage.records.3", Why.UNREADABLE),
        (msgspec.msgpack.encode(batch([GOOD] * (RECORDS_MAX + 1))), None, "usage.records.3", Why.UNREADABLE),
        (msgspec.msgpack.encode(batch([GOOD])), None, "usage.records.x", Why.UNREADABLE),
        (b"[" * 100_000, {"content-type": "application/json"}, "usage.records.3", Why.UNREADABLE),
        (b'{"publisher": ' + b"9" * 10_000 + b"}", {"content-type": "application/json"}, "usage.records.3", Why.UNREADABLE),
    ],
)
def test_a_batch_that_cannot_be_read_is_rejected_whole(
    data: bytes, headers: dict[str, str] | None, subject: str, why: Why
) -> None:
    found = read(Message("USAGE", subject, 7, {"content-type": "application/msgpack"} if headers is None else headers, data, NOW))
    assert isinstance(found, Rejected)
    assert (found.why, found.data) == (why, None)


@pytest.mark.parametrize("kind", [msgspec.msgpack, msgspec.json])
@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ([CLIENT, "csr", 5, 1.5], "quantity"),
        ([CLIENT, "csr", 5, 1.0], "quantity"),
        ([CLIENT, "csr", 5, True], "quantity"),
        ([CLIENT, "csr", 5, "1"], "quantity"),
        ([CLIENT, "csr", "now"], "occurred_at_us"),
        ([7, "csr", 5], "client_id"),
        ([CLIENT, "csr"], "array"),
        ({"client_id": CLIENT}, "array"),
        (None, "array"),
    ],
)
def test_only_the_records_that_cannot_be_read_are_rejected(kind: Any, bad: Any, field: str) -> None:
    media = "application/msgpack" if kind is msgspec.msgpack else "application/json"
    found = read(message(kind.encode(batch([bad, GOOD, bad])), headers={"content-type": media}))
    assert isinstance(found, Batch)
    assert found.batch.records == [UsageRecord(*GOOD)]
    assert found.written_at == [1]
    assert [(one.why, one.number, one.data) for one in found.unreadable] == [
        (Why.INVALID_RECORD, 0, kind.encode(bad)),
        (Why.INVALID_RECORD, 2, kind.encode(bad)),
    ]
    assert field in found.unreadable[0].reason
    assert "records[0]" in found.unreadable[0].reason


@pytest.mark.parametrize(
    ("record", "field"), [([CLIENT, "csr", 10**30], "occurred_at_us"), ([CLIENT, "csr", 5, -(10**30)], "quantity")]
)
def test_integers_of_json_that_fit_nowhere_are_unreadable(record: Any, field: str) -> None:
    found = read(message(json.dumps(batch([record, GOOD])).encode(), headers={"content-type": "application/json"}))
    assert isinstance(found, Batch)
    assert found.batch.records == [UsageRecord(*GOOD)]
    assert field in found.unreadable[0].reason
    assert found.unreadable[0].data == json.dumps(record).encode()


def test_very_many_unreadable_records_share_a_letter() -> None:
    found = read(message(msgspec.msgpack.encode(batch([None] * 250))))
    assert isinstance(found, Batch)
    assert len(found.unreadable) == 101
    assert found.unreadable[-1].records == 150
    assert found.unreadable[-1].number == 100
    assert msgspec.msgpack.decode(found.unreadable[-1].data or b"") == [None] * 150


def test_an_event_is_read_in_binary_mode() -> None:
    found = read(event({"client_id": CLIENT, "service": "csr", "quantity": 3}, time="2026-11-22T02:59:00Z"))
    assert isinstance(found, Single)
    assert found.record == UsageRecord(CLIENT, "csr", to_us(NOW) - 60_000_000, 3)


def test_an_event_is_read_in_structured_mode_and_is_the_same_event() -> None:
    data = {"client_id": CLIENT, "service": "csr", "occurred_at": "2026-11-22T11:59:00+09:00"}
    body = {"specversion": "1.0", "id": "1", "source": "/meter", "type": "tollbook.usage.UsageRecorded.v1", "data": data}
    found = read(
        message(msgspec.json.encode(body), "usage.cloudevents", {"content-type": "application/cloudevents+json; charset=utf-8"})
    )
    assert isinstance(found, Single)
    assert found.record == UsageRecord(CLIENT, "csr", to_us(NOW) - 60_000_000)
    other = read(event(data))
    assert isinstance(other, Single)
    assert (other.key, other.digest) == (found.key, found.digest)


def test_an_event_without_any_time_occurred_when_it_was_recorded_and_is_the_same_when_it_comes_later() -> None:
    data = {"client_id": CLIENT, "service": "csr"}
    first = read(event(data))
    assert isinstance(first, Single)
    assert first.record.occurred_at_us == to_us(NOW)
    later = event(data)
    second = read(msgspec.structs.replace(later, recorded_at=datetime(2026, 11, 23, tzinfo=UTC)))
    assert isinstance(second, Single)
    assert (second.key, second.digest) == (first.key, first.digest)


def test_source_and_id_together_tell_an_event() -> None:
    data = {"client_id": CLIENT, "service": "csr"}
    keys = {read(event(data, source=source, id=id_)).key for source, id_ in [("ab", "c"), ("a", "bc"), ("ab", "d")]}  # type: ignore[union-attr]
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("found", "why", "named"),
    [
        (event({"client_id": CLIENT, "service": "csr", "quantity": 1.5}), Why.INVALID_RECORD, "quantity"),
        (event({"client_id": CLIENT, "service": "csr", "quantity": 1.0}), Why.INVALID_RECORD, "quantity"),
        (event({"client_id": CLIENT, "service": "csr", "quantity": 0}), Why.INVALID_RECORD, "quantity"),
        (event({"client_id": CLIENT, "service": "csr", "quantity": -1}), Why.INVALID_RECORD, "quantity"),
        (event({"client_id": CLIENT, "service": "csr", "quantity": 10**30}), Why.INVALID_RECORD, "quantity"),
        (event({"client_id": CLIENT, "service": "csr", "quantity": True}), Why.INVALID_RECORD, "quantity"),
        (event({"client_id": CLIENT, "service": "csr", "quantity": "1"}), Why.INVALID_RECORD, "quantity"),
        (event({"client_id": CLIENT, "service": "csr", "quantity": None}), Why.INVALID_RECORD, "quantity"),
        (event({"client_id": "short", "service": "csr"}), Why.INVALID_RECORD, "client_id"),
        (event({"client_id": CLIENT, "service": "C S R"}), Why.INVALID_RECORD, "service"),
        (event({"client_id": CLIENT}), Why.INVALID_RECORD, "service"),
        (event({"client_id": CLIENT, "service": "csr", "user": "x"}), Why.INVALID_RECORD, "user"),
        (event({"client_id": CLIENT, "service": "csr", "occurred_at": "x"}), Why.INVALID_RECORD, "occurred_at"),
        (event({"client_id": CLIENT, "service": "csr", "occurred_at": "2026-11-22T00:00:00"}), Why.INVALID_RECORD, "occurred_at"),
        (event([]), Why.INVALID_RECORD, "data"),
        (event(b""), Why.INVALID_RECORD, "data"),
        (event(b"\xff"), Why.INVALID_RECORD, "data"),
        (event({}, type="tollbook.usage.UsageRecorded.v2"), Why.UNKNOWN_TYPE, "ce-type"),
        (event({}, type="tollbook.usage.UsageBatch.v1"), Why.UNKNOWN_TYPE, "ce-type"),
        (event({}, type="tollbook.registry.AppDeleted.v1"), Why.UNKNOWN_TYPE, "ce-type"),
        (event({}, type="com.example.thing"), Why.UNKNOWN_TYPE, "ce-type"),
        (event({}, id=""), Why.UNREADABLE, "id"),
        (event({}, source=""), Why.UNREADABLE, "source"),
        (event({}, specversion="0.3"), Why.UNREADABLE, "specversion"),
        (event({}, time="yesterday"), Why.UNREADABLE, "time"),
        (message(b"not json", "usage.cloudevents", {}), Why.UNREADABLE, "CloudEvent"),
        (message(b"[" * 100_000, "usage.cloudevents", {}), Why.UNREADABLE, "CloudEvent"),
    ],
)
def test_a_bad_event_is_rejected_and_its_field_named(found: Message, why: Why, named: str) -> None:
    rejected = read(found)
    assert isinstance(rejected, Rejected)
    assert rejected.why == why, rejected.reason
    assert named in rejected.reason


def test_portions_keep_every_message_in_order() -> None:
    messages = [message(b"x" * size) for size in (5000, 1000, 20_000, 3000, 3000, 3000)]
    pieces = list(portions(messages, 6000))
    assert [one.message for piece in pieces for one in piece] == messages
    assert [len(piece) for piece in pieces] == [2, 1, 2, 1]
    assert all(len(piece) == 1 or sum(len(one.message.data) for one in piece) <= 6000 for piece in pieces)


def voided(data: Any, **attributes: str) -> Message:
    return event(data, **({"type": "tollbook.usage.UsageVoided.v1", "id": "v1"} | attributes))


def test_a_correction_names_the_record_of_its_own_source() -> None:
    record = read(event({"client_id": CLIENT, "service": "csr"}))
    found = read(voided({"record_id": "1", "reason": "counted twice"}))
    assert isinstance(record, Single)
    assert isinstance(found, Void)
    assert (found.record_key, found.quantity, found.source, found.record_id) == (record.key, None, "/meter", "1")
    adjusted = read(voided({"record_id": "1", "reason": "counted twice", "quantity": 0, "record_source": "/meter"}))
    assert isinstance(adjusted, Void)
    assert (adjusted.record_key, adjusted.quantity) == (record.key, 0)
    assert adjusted.digest != found.digest


def test_a_correction_is_the_same_whenever_and_in_whichever_mode_it_comes() -> None:
    data = {"record_id": "1", "reason": "counted twice", "quantity": None}
    first = read(voided(data, time="2026-11-22T02:59:00Z"))
    second = read(voided({"reason": "counted twice", "record_id": "1", "record_source": "/meter"}))
    body = {"specversion": "1.0", "id": "v1", "source": "/meter", "type": "tollbook.usage.UsageVoided.v1", "data": data}
    third = read(message(msgspec.json.encode(body), "usage.cloudevents", {"content-type": "application/cloudevents+json"}))
    assert isinstance(first, Void)
    assert isinstance(second, Void)
    assert isinstance(third, Void)
    assert (first.key, first.digest) == (second.key, second.digest) == (third.key, third.digest)


@pytest.mark.parametrize(
    ("data", "why", "named"),
    [
        ({"record_id": "1"}, Why.INVALID_RECORD, "reason"),
        ({"reason": "x"}, Why.INVALID_RECORD, "record_id"),
        ({"record_id": "", "reason": "x"}, Why.INVALID_RECORD, "record_id"),
        ({"record_id": 1, "reason": "x"}, Why.INVALID_RECORD, "record_id"),
        ({"record_id": "1", "reason": ""}, Why.INVALID_RECORD, "reason"),
        ({"record_id": "1", "reason": "x" * 201}, Why.INVALID_RECORD, "reason"),
        ({"record_id": "1", "reason": "a\0b"}, Why.INVALID_RECORD, "reason"),
        ({"record_id": "1", "reason": "x", "quantity": -1}, Why.INVALID_RECORD, "quantity"),
        ({"record_id": "1", "reason": "x", "quantity": 1.0}, Why.INVALID_RECORD, "quantity"),
        ({"record_id": "1", "reason": "x", "quantity": 10**9 + 1}, Why.INVALID_RECORD, "quantity"),
        ({"record_id": "1", "reason": "x", "quantity": 10**30}, Why.INVALID_RECORD, "quantity"),
        ({"record_id": "1", "reason": "x", "record_source": "/other"}, Why.INVALID_RECORD, "record_source"),
        ({"record_id": "1", "reason": "x", "client_id": CLIENT}, Why.INVALID_RECORD, "client_id"),
        (b'{"record_id": "\\ud800", "reason": "x"}', Why.INVALID_RECORD, "data"),
        (b'{"record_id": "1", "reason": "\\ud800"}', Why.INVALID_RECORD, "data"),
        (b"\xff", Why.INVALID_RECORD, "data"),
        ([], Why.INVALID_RECORD, "data"),
    ],
)
def test_a_bad_correction_is_rejected_and_its_field_named(data: Any, why: Why, named: str) -> None:
    rejected = read(voided(data))
    assert isinstance(rejected, Rejected)
    assert rejected.why == why, rejected.reason
    assert named in rejected.reason


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "record_id": _JSON | st.just("1"),
        "reason": _JSON | st.just("x"),
        "quantity": _JSON | st.integers(-2, 10**9 + 2),
        "record_source": _JSON | st.sampled_from(["/meter", "/other"]),
        "more": _JSON,
    },
)


@given(_JSON.map(msgspec.json.encode) | _NEARLY.map(msgspec.json.encode) | st.binary(max_size=60))
def test_whatever_a_correction_says_it_is_read_or_rejected(data: bytes) -> None:
    found = read(voided(data))
    if isinstance(found, Void):
        said = msgspec.json.decode(data)
        assert (found.record_id, found.quantity, found.reason) == (said["record_id"], said.get("quantity"), said["reason"])
        assert said.get("record_source") in (None, found.source)
    else:
        assert isinstance(found, Rejected)
        assert found.why == Why.INVALID_RECORD


@pytest.mark.parametrize("media", ["application/msgpack", "application/json"])
def test_a_batch_without_records_is_one_and_counts_nothing(media: str) -> None:
    """Metering publishes such to mark where a partition ends."""
    kind = msgspec.msgpack if media.endswith("msgpack") else msgspec.json
    data = kind.encode(UsageBatch(publisher="metering-1-3", seq=2, records=[]))
    [[item]] = portions([message(data, headers={"content-type": media})], 1_000)
    assert isinstance(item, Batch)
    for lapses in (NO_LAPSES, Lapses({("lease1", "metering-1-3", "usage.records.3"): 6}, {}, frozenset())):
        outcome = Books().take([item], lapses)
        assert (outcome.counters, outcome.rejected, outcome.leases, outcome.lapsed, outcome.records) == ({}, [], {}, [], 0)
        assert outcome.positions["metering-1-3", 3].seq == 2
