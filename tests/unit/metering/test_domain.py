"""Counting: exactly once, whatever comes how often, in whatever pieces; each record in its own civil windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metering.decoding import Batch, Item, Single
from services.metering.domain import (
    AHEAD_MAX_US,
    LATE_MAX_US,
)
from services.metering.growth import CounterKey
from services.metering.rejection import Why
from shared.events.usage import QUANTITY_MAX, UsageBatch, UsageRecord
from shared.windows import from_us, to_us
from tests.support.books import APPS, GONE, GONE_AT_US, NEW_YORK, NOW, NOW_US, SEOUL, SERVICES, Books, batch, message

records = st.builds(
    UsageRecord,
    st.sampled_from([SEOUL, NEW_YORK, GONE, "u" * 20, "bad"]),
    st.sampled_from([*SERVICES, "unheard-of"]),
    st.one_of(
        st.integers(NOW_US - LATE_MAX_US - 10**9, NOW_US + AHEAD_MAX_US + 10**9),
        st.integers(-(2**63), 2**64 - 1),
        st.sampled_from([NOW_US - LATE_MAX_US, NOW_US - LATE_MAX_US - 1, NOW_US + AHEAD_MAX_US, NOW_US + AHEAD_MAX_US + 1]),
        st.integers(GONE_AT_US, GONE_AT_US + 2 * AHEAD_MAX_US),
    ),
    st.one_of(st.integers(1, 5), st.sampled_from([0, -1, QUANTITY_MAX, QUANTITY_MAX + 1])),
    st.sampled_from(["", "s1", "s2", "a b"]),
    st.sampled_from(["", "lease1", "lease2", "no\0lease"]),
)


@st.composite
def streams(draw: st.DrawFn) -> list[Item]:
    """Messages of two publishers and of single events, with repetitions as publishers make them, in the order of a stream."""
    items: list[Item] = []
    seqs = {"gate-1": 0, "gate-2": 0}
    sent: dict[str, Sequence[UsageRecord]] = {}
    for sequence in range(draw(st.integers(1, 12))):
        here = message(sequence, NOW + timedelta(seconds=draw(st.integers(0, 7200)) if sequence else 0))
        publisher = draw(st.sampled_from(["gate-1", "gate-2", "event"]))
        if publisher == "event":
            number = draw(st.integers(0, 3))
            record = UsageRecord(SEOUL, "csr", NOW_US, draw(st.integers(1, 2)))
            items.append(Single(here, record, bytes([number]), bytes([record.quantity])))
            continue
        again = draw(st.sampled_from(["new", "new", "repeat", "retract", "void"])) if publisher in sent else "new"
        if again == "new":
            seqs[publisher] += 1
            sent[publisher] = draw(st.lists(records, max_size=6))
        places = st.lists(st.integers(0, max(0, len(sent[publisher]) - 1)), min_size=1, max_size=3)
        content = UsageBatch(
            publisher=publisher,
            seq=seqs[publisher],
            records=list(sent[publisher]),
            retracted=again == "retract" or (again == "void" and bool(sent[publisher])),
            voided=tuple(draw(places)) if again == "void" and sent[publisher] else (),
        )
        items.append(Batch(here, 0, content))
    return items


def plainly(items: Sequence[Item]) -> dict[tuple[CounterKey, str], int]:
    """The same counts, worked out one record at a time with datetime and zoneinfo."""
    counters: Counter[tuple[CounterKey, str]] = Counter()
    batches = [item.batch for item in items if isinstance(item, Batch)]
    retracted = {(one.publisher, one.seq) for one in batches if one.retracted and not one.voided}
    voided = {(one.publisher, one.seq, place) for one in batches if one.retracted for place in one.voided}
    seen: set[object] = set()
    for item in items:
        key = (
            (item.batch.publisher, item.batch.seq) if isinstance(item, Batch) else item.key if isinstance(item, Single) else None
        )
        if key in seen or key in retracted:
            continue
        seen.add(key)
        for place, record in enumerate(item.batch.records if isinstance(item, Batch) else [item.record]):
            if not isinstance(item, Batch) or (item.batch.publisher, item.batch.seq, place) not in voided:
                count_plainly(counters, record, item.message.recorded_at)
    return {key: value for key, value in counters.items() if value}


def count_plainly(counters: Counter[tuple[CounterKey, str]], record: UsageRecord, recorded_at: datetime) -> None:
    app = APPS.get(record.client_id)
    us, recorded_us = record.occurred_at_us, to_us(recorded_at)
    if app is None or record.service not in SERVICES or not 1 <= record.quantity <= QUANTITY_MAX or " " in record.secret_id:
        return
    if not recorded_us - LATE_MAX_US <= us <= recorded_us + AHEAD_MAX_US:
        return
    if app.deleted_at_us is not None and us > app.deleted_at_us + AHEAD_MAX_US:
        return
    tz = ZoneInfo(app.windows.zone)
    local = from_us(us).astimezone(tz)
    hour = local.replace(minute=0, second=0, microsecond=0)
    day = datetime(local.year, local.month, local.day, tzinfo=tz)
    late = (day + timedelta(days=1)).astimezone(UTC) <= recorded_at
    for period, start in (("h", hour), ("d", day), ("m", day.replace(day=1))):
        key = CounterKey(record.client_id, record.service, period, to_us(start.astimezone(UTC)))
        counters[key, "calls"] += 1
        counters[key, "units"] += record.quantity
        counters[key, "late"] += record.quantity if late else 0


@given(streams(), st.data())
def test_any_cut_of_any_stream_counts_the_same_as_counting_plainly(items: list[Item], data: st.DataObject) -> None:
    books = Books()
    rest = list(items)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        books.take(rest[:size])
        rest = rest[size:]
    assert books.counted() == plainly(items)
    by_lease = Books()
    by_lease.take(items)
    assert books.leases == by_lease.leases


@given(streams(), st.data())
def test_the_whole_stream_again_changes_nothing(items: list[Item], data: st.DataObject) -> None:
    books = Books()
    books.take(items)
    before = books.counted()
    start = data.draw(st.integers(0, len(items) - 1))
    single_events = [item for item in items[start:] if isinstance(item, Single)]
    books.take(single_events)
    last = {item.batch.publisher: item for item in items if isinstance(item, Batch)}
    books.take(list(last.values()))
    assert books.counted() == before


RECORDS = [UsageRecord(SEOUL, "csr", NOW_US, 2, "s1"), UsageRecord(NEW_YORK, "csr", NOW_US, 3, "s1")]


@pytest.mark.parametrize("order", sorted(set(permutations(["sent", "sent", "retracted", "retracted"]))))
@pytest.mark.parametrize("pieces", [1, 4])
def test_a_retracted_batch_counts_nothing_in_whatever_order_it_comes(order: tuple[str, ...], pieces: int) -> None:
    items = [batch(1, RECORDS, retracted=kind == "retracted") for kind in order]
    books = Books()
    for start in range(0, len(items), len(items) // pieces):
        books.take(items[start : start + len(items) // pieces])
    assert books.counted() == {}
    books.take([batch(2, RECORDS)])
    assert books.units() == 2


def test_only_the_last_batch_can_be_taken_back() -> None:
    books = Books()
    books.take([batch(1, RECORDS), batch(2, RECORDS), batch(1, RECORDS, retracted=True)])
    assert books.units() == 4


def test_a_retraction_takes_back_just_what_was_counted_then() -> None:
    early = UsageRecord(SEOUL, "csr", to_us(NOW + timedelta(minutes=6)), 5)  # too far ahead when it came, not any more later
    old = UsageRecord(SEOUL, "csr", NOW_US - LATE_MAX_US, 7)  # just young enough when it came, too old later
    books = Books()
    books.take([batch(1, [early, old])])
    assert books.units() == 7
    books.take([batch(1, [early, old], retracted=True, at=NOW + timedelta(hours=36))])
    assert books.counted() == {}


def test_a_retraction_of_other_records_is_a_conflict_and_changes_nothing() -> None:
    books = Books()
    books.take([batch(1, RECORDS)])
    books.take([batch(1, RECORDS[:1], retracted=True)])
    assert books.units() == 2
    assert [one.why for one in books.rejected] == [Why.CONFLICT]


def test_publishers_and_partitions_count_their_own_sequence() -> None:
    books = Books()
    content = UsageBatch(publisher="gate-1", seq=1, records=RECORDS)
    books.take([Batch(message(), 0, content), Batch(message(2), 1, content)])
    assert books.units() == 4


def test_an_event_counts_once_and_another_payload_is_a_conflict() -> None:
    record = UsageRecord(SEOUL, "csr", NOW_US, 2)
    event = Single(message(), record, b"k", b"d")
    books = Books()
    books.take([event, event])
    books.take([event, event._replace(digest=b"other")])
    assert books.units() == 2
    assert [one.why for one in books.rejected] == [Why.CONFLICT]


def test_an_event_that_is_rejected_may_come_again_and_count() -> None:
    books = Books()
    event = Single(message(), UsageRecord("u" * 20, "csr", NOW_US), b"k", b"d")
    books.take([event])
    assert books.events == {}
    assert [one.why for one in books.rejected] == [Why.UNKNOWN_APPLICATION]


@pytest.mark.parametrize(
    ("record", "why", "named"),
    [
        (UsageRecord(SEOUL, "csr", NOW_US - LATE_MAX_US - 1), Why.TOO_OLD, "occurred_at"),
        (UsageRecord(SEOUL, "csr", NOW_US + AHEAD_MAX_US + 1), Why.IN_THE_FUTURE, "occurred_at"),
        (UsageRecord(SEOUL, "csr", 2**64 - 1), Why.IN_THE_FUTURE, "occurred_at"),
        (UsageRecord(SEOUL, "csr", -(2**63)), Why.TOO_OLD, "occurred_at"),
        (UsageRecord(SEOUL, "csr", NOW_US, 0), Why.INVALID_RECORD, "quantity"),
        (UsageRecord(SEOUL, "csr", NOW_US, -1), Why.INVALID_RECORD, "quantity"),
        (UsageRecord(SEOUL, "csr", NOW_US, QUANTITY_MAX + 1), Why.INVALID_RECORD, "quantity"),
        (UsageRecord("x\0y", "csr", NOW_US), Why.INVALID_RECORD, "client_id"),
        (UsageRecord(SEOUL, "a\0b", NOW_US), Why.INVALID_RECORD, "service"),
        (UsageRecord(SEOUL, "csr", NOW_US, 1, "a\0b"), Why.INVALID_RECORD, "secret_id"),
        (UsageRecord(SEOUL, "csr", NOW_US, 1, "a" * 65), Why.INVALID_RECORD, "secret_id"),
        (UsageRecord("u" * 20, "csr", NOW_US), Why.UNKNOWN_APPLICATION, "client_id"),
        (UsageRecord(SEOUL, "unheard-of", NOW_US), Why.UNKNOWN_SERVICE, "service"),
        (UsageRecord(GONE, "csr", GONE_AT_US + AHEAD_MAX_US + 1), Why.DELETED_APPLICATION, "client_id"),
    ],
)
def test_a_bad_record_is_rejected_with_its_field_and_the_rest_counts(record: UsageRecord, why: Why, named: str) -> None:
    good = UsageRecord(SEOUL, "csr", NOW_US, 3)
    books = Books()
    books.take([batch(1, [good, record, good])])
    assert books.units() == 6
    [rejected] = books.rejected
    assert (rejected.why, rejected.number) == (why, 1)
    assert named in rejected.reason


@pytest.mark.parametrize("at_us", [NOW_US - LATE_MAX_US, NOW_US + AHEAD_MAX_US])
def test_the_bounds_of_time_are_included(at_us: int) -> None:
    books = Books()
    books.take([batch(1, [UsageRecord(SEOUL, "csr", at_us)])])
    assert books.units() == 1


def test_a_deleted_applications_calls_up_to_five_minutes_after_count() -> None:
    books = Books()
    inside, outside = GONE_AT_US + AHEAD_MAX_US, GONE_AT_US + AHEAD_MAX_US + 1
    books.take([batch(1, [UsageRecord(GONE, "csr", at) for at in (GONE_AT_US, inside, outside, inside)])])
    assert books.units(GONE) == 3


def test_late_means_after_the_end_of_its_civil_day() -> None:
    midnight = datetime(2026, 11, 21, 15, tzinfo=UTC)  # in Seoul
    record = UsageRecord(SEOUL, "csr", to_us(midnight) - 1, 4)
    for recorded_at, late in [(midnight - timedelta(microseconds=1), 0), (midnight, 4)]:
        books = Books()
        books.take([batch(1, [record], at=recorded_at)])
        assert {key.period: value for (key, what), value in books.counted().items() if what == "late"} == (
            {"h": 4, "d": 4, "m": 4} if late else {}
        )


def test_very_many_bad_records_share_a_dead_letter() -> None:
    books = Books()
    books.take([batch(1, [UsageRecord("u" * 20, "csr", NOW_US)] * 250)])
    assert len(books.rejected) == 101
    assert sum(one.records for one in books.rejected) == 250


def test_the_last_use_of_a_secret_is_the_latest_call_that_counted() -> None:
    records = [UsageRecord(SEOUL, "csr", NOW_US + shift, 1, "s1") for shift in (-5, 3, -7)]
    outcome = Books().take([batch(1, [*records, UsageRecord(SEOUL, "csr", 2**62, 1, "s2"), UsageRecord(SEOUL, "csr", NOW_US)])])
    assert outcome.secrets_used == {(SEOUL, "s1"): NOW_US + 3}
