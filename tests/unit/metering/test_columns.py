"""Counting records by their bytes is counting them one by one, whatever the bytes are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metering.columns import LAYOUTS_MAX, RECORDS_MIN, rows_of
from services.metering.decoding import Item, Packed, decode_row, pack, read
from services.metering.domain import AHEAD_MAX_US, LATE_MAX_US, Outcome, Tally
from services.metering.growth import App
from services.metering.positions import Position, needs
from shared.events.usage import QUANTITY_MAX, RECORDS_MAX, UsageBatch, UsageRecord
from shared.streams.message import Message
from shared.windows import SLOT_US, civil, to_us

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
NOW_US = to_us(NOW)
GONE_AT_US = NOW_US - AHEAD_MAX_US - SLOT_US
SEOUL, NEW_YORK, GONE, UNKNOWN = "s" * 20, "n" * 20, "g" * 20, "u" * 20
APPS = {
    SEOUL: App("acme", civil("Asia/Seoul")),
    NEW_YORK: App("globex", civil("America/New_York")),
    GONE: App("acme", civil("Asia/Seoul"), GONE_AT_US),
}
encode = msgspec.msgpack.encode

usual = st.builds(
    UsageRecord,
    st.sampled_from([SEOUL, NEW_YORK]),
    st.sampled_from(["csr", "clova-voice"]),
    st.integers(NOW_US + 1_000, NOW_US + 40_000_000),
    st.sampled_from([1, 2, 127, 128, 255, 256, 65_535, 65_536, QUANTITY_MAX]),
    st.sampled_from(["", "s1", "s2", "s" * 40]),
    st.sampled_from(["", "lease1", "lease2", "no-lease"]),
)
odd = st.one_of(
    usual.map(lambda record: msgspec.structs.replace(record, client_id=UNKNOWN)),
    usual.map(lambda record: msgspec.structs.replace(record, client_id=GONE)),
    usual.map(lambda record: msgspec.structs.replace(record, client_id=GONE, occurred_at_us=GONE_AT_US)),
    usual.map(lambda record: msgspec.structs.replace(record, client_id="short", service="unheard-of")),
    st.sampled_from([NOW_US - LATE_MAX_US - 1, NOW_US + AHEAD_MAX_US + 1, 0, -1, 2**64 - 1, NOW_US - SLOT_US]).flatmap(
        lambda at: usual.map(lambda record: msgspec.structs.replace(record, occurred_at_us=at))
    ),
    st.sampled_from([0, -1, -40, -200, -70_000, QUANTITY_MAX + 1, 2**63 - 1]).flatmap(
        lambda quantity: usual.map(lambda record: msgspec.structs.replace(record, quantity=quantity))
    ),
    st.sampled_from([None, 5, [], [SEOUL], [SEOUL, "csr", NOW_US], [SEOUL, "csr", NOW_US, 1, "s1", "", 7], [SEOUL, "csr", 1.5]]),
)


def message(batch: Any, sequence: int = 1, at: datetime = NOW) -> Message:
    data = batch if isinstance(batch, bytes) else encode(batch)
    return Message("USAGE", "usage.records.0", sequence, {"content-type": "application/msgpack"}, data, at)


def batch(records: Sequence[Any], seq: int = 1, **fields: Any) -> dict[str, Any]:
    return {"publisher": "gate-1", "seq": seq, "records": records, "retracted": False} | fields


def tallied(items: Sequence[Item]) -> Outcome:
    """As a consumer does it, with a directory that knows of no application until it is asked for it."""
    directory: dict[str, App] = {}
    tally = Tally(("csr", "clova-voice"), directory, {}, {})

    def look_up(client_ids: set[str]) -> None:
        directory.update({one: APPS[one] for one in client_ids if one in APPS})

    look_up(needs(items).client_ids)
    for place, item in enumerate(items):
        asked = 0
        while missing := tally.add(item):
            asked += 1
            assert asked <= 10, "nobody is asked for twice"
            look_up({*missing, *tally.unknown(items[place + 1 :])})
    return tally.outcome()


def plainly(outcome: Outcome) -> dict[str, Any]:
    """What two outcomes have to agree in."""

    def position(p: Position) -> tuple[Any, ...]:
        return p.seq, p.retracted, p.recorded_at_us, p.rejected, p.fingerprint()

    return {
        "counters": {
            key: (c.calls, c.units, c.late_units, c.after_close_units)
            for key, c in outcome.counters.items()
            if c.calls or c.units
        },
        "rejected": outcome.rejected,
        "positions": {key: position(p) for key, p in outcome.positions.items()},
        "used": {key: us // SLOT_US for key, us in outcome.secrets_used.items()},
        "records": outcome.records,
        "repeated": outcome.repeated,
        "leases": {lease: units for lease, units in outcome.leases.items() if units},
    }


def agree(messages: Sequence[Message]) -> None:
    packed = [pack(one) or read(one) for one in messages]
    assert plainly(tallied(packed)) == plainly(tallied([read(one) for one in messages]))


lists = st.one_of(
    st.lists(usual, min_size=1, max_size=30),
    st.lists(usual, min_size=RECORDS_MIN, max_size=20).flatmap(
        lambda some: st.lists(odd, min_size=1, max_size=2).flatmap(lambda bad: st.permutations([*some, *bad]))
    ),
    st.tuples(usual, st.integers(RECORDS_MIN, 200)).map(lambda case: [case[0]] * case[1]),
)


case = st.tuples(lists, st.sampled_from(["new", "new", "repeat", "retract"]), st.sampled_from(["gate-1", "gate-2"]))


@given(st.lists(case, min_size=1, max_size=6))
def test_batches_in_any_order_count_the_same(cases: list[tuple[list[Any], str, str]]) -> None:
    messages, last = [], {}
    for number, (records, what, gate) in enumerate(cases):
        if what == "new" or gate not in last:
            last[gate] = records, number + 1
        content = batch(*last[gate], publisher=gate, retracted=what == "retract")
        messages.append(message(content, number + 1, NOW + timedelta(seconds=number * 40)))
    agree(messages)


@given(lists, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3), st.integers(0, 40))
def test_bytes_that_were_spoilt_count_the_same(records: list[Any], spoilt: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(encode(batch(records)))
    for place, value in spoilt:
        data[place % len(data)] = value
    agree([message(bytes(data)), message(bytes(data[: len(data) - cut]), 2)])


@given(st.lists(usual, min_size=RECORDS_MIN, max_size=60))
def test_rows_say_all_of_the_records_but_their_times(records: list[UsageRecord]) -> None:
    found = rows_of(encode(records))
    if len({len(encode(record)) for record in records}) > LAYOUTS_MAX:
        assert found is None
        return
    if found is None:  # two layouts of one length
        return
    timeless = Counter(msgspec.structs.replace(record, occurred_at_us=0) for record in records)
    assert Counter(decode_row(row) for rows in found for row in rows) == timeless
    counts: dict[bytes, int] = {}
    for rows in found:
        rows.count_into(counts)
    assert sum(counts.values()) == len(records)
    times = [record.occurred_at_us for record in records]
    earliest, latest = min(rows.earliest_us for rows in found), max(rows.latest_us for rows in found)
    assert earliest <= min(times) < earliest + 66_000
    assert latest - 66_000 < max(times) <= latest


def test_a_batch_as_gates_write_it_is_packed() -> None:
    records = [UsageRecord((SEOUL, NEW_YORK)[n % 2], "csr", NOW_US + n, 1 + n % 3, "s1", "lease") for n in range(500)]
    found = pack(message(UsageBatch(publisher="gate-1", seq=1, records=records)))
    assert isinstance(found, Packed)
    assert len(found.rows) == 1
    mixed = [msgspec.structs.replace(one, service=("csr", "clova-voice")[n % 2]) for n, one in enumerate(records)]
    found = pack(message(UsageBatch(publisher="gate-1", seq=1, records=mixed)))
    assert isinstance(found, Packed)
    assert len(found.rows) == 2


@pytest.mark.parametrize(
    "content",
    [
        batch([UsageRecord(SEOUL, "csr", NOW_US)] * RECORDS_MIN, retracted=True),
        batch([UsageRecord(SEOUL, "csr", NOW_US)] * (RECORDS_MAX + 1)),
        batch([UsageRecord(SEOUL, "csr", NOW_US)] * RECORDS_MIN, seq=0),
        batch([UsageRecord(SEOUL, "csr", NOW_US)] * RECORDS_MIN, publisher="a\0b"),
        batch([["x" * 300, "csr", NOW_US]] * RECORDS_MIN),
        batch([]),
        b"\xdc\xff\xff",
        b"\x84\xa9publisher\xa1g\xa3seq\x01\xa7records" + encode([[SEOUL, "csr", NOW_US]] * 9) + b"\xc0\xa9retracted\xc2",
        b"\x84\xa9publisher\xa1g\xa3seq\x01\xa9retracted\xc2\xa7records\xdd\xff\xff\xff\xff",
    ],
)
def test_what_is_not_as_gates_write_it_is_read_the_ordinary_way(content: Any) -> None:
    assert pack(message(content)) is None


def test_units_are_told_by_lease_and_taken_back() -> None:
    records = [UsageRecord(SEOUL, "csr", NOW_US, 2, "s1", lease) for lease in ("a", "b", "", "a")]
    books = [message(batch(records)), message(batch(records, retracted=True), 2)]
    for items, expected in ((books[:1], {"a": 4, "b": 2}), (books, {"a": 0, "b": 0})):
        leases = tallied([read(one) for one in items]).leases
        assert {use.lease: units for use, units in leases.items()} == expected


def test_after_close_is_told_by_each_counters_own_window() -> None:
    midnight = datetime(2026, 11, 30, 15, tzinfo=UTC)  # the end of November in Seoul
    record = UsageRecord(SEOUL, "csr", to_us(midnight) - 2 * 3_600_000_000, 4)
    for recorded_at, closed in [
        (midnight - timedelta(hours=1, microseconds=1), set()),
        (midnight - timedelta(hours=1), {"h"}),
        (midnight, {"h", "d", "m"}),
    ]:
        for records in ([record], [record] * RECORDS_MIN):
            one = message(batch(records), at=recorded_at)
            outcome = tallied([pack(one) or read(one)])
            assert {key.period for key, count in outcome.counters.items() if count.after_close_units} == closed
            assert all(count.after_close_units in (0, count.units) for count in outcome.counters.values())
