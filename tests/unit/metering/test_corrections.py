"""Corrections of single records: exact in any cut, repeated or not; in open windows only; never below zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metering.decoding import Item, Single, Void
from services.metering.domain import LATE_MAX_US, Tally
from services.metering.growth import App
from services.metering.positions import Position, PublisherKey, needs
from services.metering.rejection import Rejected, Why
from services.metering.singles import CORRECTABLE_US, Correction, Effect, Known, counted_of
from shared.events.usage import UsageRecord
from shared.streams.message import Message
from shared.windows import civil, from_us, to_us

NOW = datetime(2026, 11, 22, 3, 30, tzinfo=UTC)
"""Half past noon in Seoul."""
SEOUL, NEW_YORK, GONE = "s" * 20, "n" * 20, "g" * 20
APPS = {
    SEOUL: App("acme", civil("Asia/Seoul")),
    NEW_YORK: App("globex", civil("America/New_York")),
    GONE: App("acme", civil("Asia/Seoul"), to_us(NOW)),
}
KINDS = ("calls", "units", "late", "after_close", "corrected")
CounterName = tuple[str, str, datetime, str]
"""(client_id, period, window start, what)"""
Row = tuple[int, int | None, int | None, bool, bool, bool]
"""(sequence, old, new, hour, day, month)"""


def message(sequence: int = 1, at: datetime = NOW) -> Message:
    return Message("USAGE", "usage.cloudevents", sequence, {}, b"", at)


def reported(
    id_: str, quantity: int, sequence: int = 1, *, at: datetime = NOW, occurred: datetime | None = None, client_id: str = SEOUL
) -> Single:
    record = UsageRecord(client_id, "csr", to_us(occurred or at), quantity)
    digest = f"{client_id} {record.occurred_at_us} {quantity}".encode()
    return Single(message(sequence, at), record, id_.encode(), digest)


def void(id_: str, record: str, quantity: int | None = None, sequence: int = 2, *, at: datetime = NOW) -> Void:
    digest = f"{record} {quantity}".encode()
    return Void(message(sequence, at), id_.encode(), digest, record.encode(), "/jobs", record, quantity, "wrong")


class Books:
    """What PostgreSQL keeps between tallies."""

    def __init__(self) -> None:
        self.counters: Counter[CounterName] = Counter()
        self.events: dict[bytes, Effect] = {}
        self.corrections: list[Correction] = []
        self.rejected: list[Rejected] = []
        self.repeated = 0

    def take(self, *items: Item) -> None:
        wanted = needs(items)
        events: dict[bytes, Effect] = {key: self.events[key] for key in wanted.events if key in self.events}
        positions: dict[PublisherKey, Position] = {}
        directory = {client_id: APPS[client_id] for client_id in wanted.client_ids if client_id in APPS}
        tally = Tally(("csr",), directory, positions, events)
        for item in items:
            while missing := tally.add(item):  # of records that were counted before
                directory.update({client_id: APPS[client_id] for client_id in missing})
        outcome = tally.outcome()
        for (client_id, _, period, start_us), count in outcome.counters.items():
            values = (count.calls, count.units, count.late_units, count.after_close_units, count.corrected_units)
            for kind, value in zip(KINDS, values, strict=True):
                self.counters[client_id, period, from_us(start_us), kind] += value
        assert not outcome.events.keys() & self.events.keys()
        self.events |= {key: Known(item.digest, counted_of(item)) for key, item in outcome.events.items()}
        self.events |= {key: Known(self.events[key].digest, counted) for key, counted in outcome.corrected.items()}
        self.corrections += outcome.corrections
        self.rejected += outcome.rejected
        self.repeated += outcome.repeated
        assert min(value for (*_, kind), value in self.counters.items() if kind != "corrected") >= 0 if self.counters else True

    def counted(self) -> dict[CounterName, int]:
        return {key: value for key, value in self.counters.items() if value}

    def rows(self) -> list[Row]:
        return [(c.void.message.sequence, c.before.quantity, c.void.quantity, c.hour, c.day, c.month) for c in self.corrections]

    def whys(self) -> list[Why]:
        return [one.why for one in self.rejected]

    def of(self, period: str, kind: str = "units") -> int:
        return sum(value for (_, its, _, what), value in self.counters.items() if (its, what) == (period, kind))


@st.composite
def streams(draw: st.DrawFn) -> list[Item]:
    """Records and corrections of a few ids, in the order of a stream, over some minutes or some weeks."""
    items: list[Item] = []
    at = NOW
    for sequence in range(1, draw(st.integers(1, 14)) + 1):
        at += draw(st.sampled_from([timedelta(), timedelta(minutes=7), timedelta(hours=9), timedelta(days=11)]))
        if draw(st.booleans()):
            occurred = at - draw(st.sampled_from([timedelta(), timedelta(minutes=50), timedelta(days=2), timedelta(days=20)]))
            client_id = draw(st.sampled_from([SEOUL, NEW_YORK, GONE, "u" * 20]))
            id_, quantity = draw(st.sampled_from(["r1", "r2", "r3"])), draw(st.integers(1, 3))
            items.append(reported(id_, quantity, sequence, at=at, occurred=occurred, client_id=client_id))
        else:
            id_, record = draw(st.sampled_from(["v1", "v2", "v3", "r1"])), draw(st.sampled_from(["r1", "r2", "r3", "v1"]))
            items.append(void(id_, record, draw(st.sampled_from([None, 0, 1, 5])), sequence, at=at))
        if draw(st.integers(0, 3)) == 0:
            again = draw(st.sampled_from(items))
            assert isinstance(again, Single | Void)
            items.append(again._replace(message=message(sequence + 100, at)))
    return items


def windows(client_id: str, us: int) -> list[tuple[str, datetime, datetime]]:
    """(period, start, end) with datetime and zoneinfo alone."""
    zone = ZoneInfo(APPS[client_id].windows.zone)
    local = from_us(us).astimezone(zone)
    hour = local.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
    day = datetime(local.year, local.month, local.day, tzinfo=zone)
    month = day.replace(day=1)
    next_month = (month + timedelta(days=32)).replace(day=1)
    ends = (hour + timedelta(hours=1), (day + timedelta(days=1)).astimezone(UTC), next_month.astimezone(UTC))
    starts = (hour, day.astimezone(UTC), month.astimezone(UTC))
    return list(zip("hdm", starts, ends, strict=True))


class Plain:
    """The same, one item at a time."""

    def __init__(self) -> None:
        self.counters: Counter[CounterName] = Counter()
        self.rows: list[Row] = []
        self._seen: set[bytes] = set()
        self._records: dict[bytes, tuple[UsageRecord, datetime, int | None]] = {}

    def take(self, item: Single | Void) -> None:
        took = item.key not in self._seen and (self._count(item) if isinstance(item, Single) else self._correct(item))
        if took:
            self._seen.add(item.key)

    def _count(self, item: Single) -> bool:
        record, at = item.record, item.message.recorded_at
        if record.client_id not in APPS or (record.client_id == GONE and record.occurred_at_us > to_us(NOW) + 300_000_000):
            return False
        self._records[item.key] = (record, at, record.quantity)
        its = windows(record.client_id, record.occurred_at_us)
        for period, start, end in its:
            late, closed = its[1][2] <= at, end <= at
            self._add(record, period, start, 1, record.quantity, (record.quantity * late, record.quantity * closed, 0))
        return True

    def _correct(self, item: Void) -> bool:
        at = item.message.recorded_at
        if item.record_key not in self._records or at - self._records[item.record_key][1] > timedelta(days=35):
            return False
        record, counted_at, old = self._records[item.record_key]
        its = windows(record.client_id, record.occurred_at_us)
        changed = [end > max(at, counted_at) for _, _, end in its]
        units, calls = (item.quantity or 0) - (old or 0), (item.quantity is not None) - (old is not None)
        for (period, start, _), open_ in zip(its, changed, strict=True):
            if open_:
                self._add(record, period, start, calls, units, (units * (its[1][2] <= counted_at), 0, units))
        self.rows.append((item.message.sequence, old, item.quantity, changed[0], changed[1], changed[2]))
        self._records[item.record_key] = (record, counted_at, item.quantity)
        return True

    def _add(
        self, record: UsageRecord, period: str, start: datetime, calls: int, units: int, parts: tuple[int, int, int]
    ) -> None:
        for kind, value in zip(KINDS, (calls, units, *parts), strict=True):
            self.counters[record.client_id, period, start, kind] += value


def plainly(items: Sequence[Item]) -> tuple[dict[CounterName, int], list[Row]]:
    """What comes of the items."""
    plain = Plain()
    for item in items:
        assert isinstance(item, Single | Void)
        plain.take(item)
    return {key: value for key, value in plain.counters.items() if value}, plain.rows


@given(streams(), st.data())
def test_any_cut_of_any_stream_gives_the_same_counters_and_corrections(items: list[Item], data: st.DataObject) -> None:
    whole, pieces = Books(), Books()
    whole.take(*items)
    rest = list(items)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces.take(*rest[:size])
        rest = rest[size:]
    assert (pieces.counted(), pieces.rows()) == (whole.counted(), whole.rows()) == plainly(items)
    assert pieces.events == whole.events
    assert pieces.whys() == whole.whys()


@given(streams())
def test_what_took_effect_takes_effect_once(items: list[Item]) -> None:
    books = Books()
    books.take(*items)
    before = (books.counted(), books.rows())
    done = [item for item in items if isinstance(item, Single | Void) and item.key in books.events]
    books.take(*done)
    assert (books.counted(), books.rows()) == before


def test_a_void_takes_back_call_and_units_and_says_so() -> None:
    books = Books()
    books.take(reported("r", 5), reported("other", 2), void("v", "r"))
    assert (books.of("h"), books.of("d"), books.of("m"), books.of("d", "calls")) == (2, 2, 2, 1)
    assert books.of("d", "corrected") == -5
    assert books.rows() == [(2, 5, None, True, True, True)]


def test_an_adjustment_states_what_should_have_been_counted_and_the_last_one_holds() -> None:
    books = Books()
    books.take(reported("r", 5))
    books.take(void("v1", "r", 7), void("v2", "r", 0, 3))
    books.take(void("v3", "r", None, 4))
    books.take(void("v4", "r", 3, 5))
    assert (books.of("d"), books.of("d", "calls"), books.of("d", "corrected")) == (3, 1, -2)
    assert [(old, new) for _, old, new, *_ in books.rows()] == [(5, 7), (7, 0), (0, None), (None, 3)]


def test_what_has_closed_stays_and_the_correction_is_listed() -> None:
    tomorrow = NOW + timedelta(days=1)
    books = Books()
    books.take(reported("r", 5))
    books.take(void("v", "r", 1, at=tomorrow))
    assert (books.of("h"), books.of("d"), books.of("m")) == (5, 5, 1)
    assert (books.of("d", "corrected"), books.of("m", "corrected")) == (0, -4)
    assert books.rows() == [(2, 5, 1, False, False, True)]


def test_a_window_ends_at_its_end() -> None:
    end = datetime(2026, 11, 22, 15, tzinfo=UTC)  # midnight in Seoul
    for at, changed in [(end - timedelta(microseconds=1), True), (end, False)]:
        books = Books()
        books.take(reported("r", 5), void("v", "r", at=at))
        assert books.of("d") == (0 if changed else 5)


def test_late_units_that_are_taken_back_are_not_late_any_more() -> None:
    books = Books()
    books.take(reported("r", 5, occurred=NOW - timedelta(days=1)))
    assert books.of("m", "late") == 5
    books.take(void("v", "r", 2))
    assert (books.of("m"), books.of("m", "late"), books.of("d")) == (2, 2, 5)


def test_one_that_overtakes_its_record_is_refused_and_may_come_again() -> None:
    books = Books()
    books.take(void("v", "r"), reported("r", 5))
    assert (books.of("d"), books.whys()) == (5, [Why.UNKNOWN_RECORD])
    books.take(void("v", "r", sequence=3))
    assert (books.of("d"), books.whys()) == (0, [Why.UNKNOWN_RECORD])


@pytest.mark.parametrize("why", ["no such record", "a correction", "a record that did not count"])
def test_only_records_that_count_can_be_corrected(why: str) -> None:
    books = Books()
    books.take(reported("r", 5), void("v", "r", 3), reported("bad", 5, client_id="u" * 20))
    record = {"no such record": "x", "a correction": "v", "a record that did not count": "bad"}[why]
    books.take(void("w", record))
    assert books.of("d") == 3
    assert books.whys() == [Why.UNKNOWN_APPLICATION, Why.UNKNOWN_RECORD]
    assert "record_id" in books.rejected[1].reason


@pytest.mark.parametrize("over_us", [0, 1])
def test_records_can_be_corrected_for_35_days(over_us: int) -> None:
    assert CORRECTABLE_US == LATE_MAX_US
    books = Books()
    books.take(reported("r", 5))
    books.take(void("v", "r", at=from_us(to_us(NOW) + CORRECTABLE_US + over_us)))
    assert (len(books.corrections), books.whys()) == ((0, [Why.UNKNOWN_RECORD]) if over_us else (1, []))


def test_another_correction_under_the_same_id_is_a_conflict() -> None:
    books = Books()
    books.take(reported("r", 5), void("v", "r", 3))
    books.take(void("v", "r", 3), void("v", "r", 4))
    assert (books.of("d"), books.repeated, books.whys()) == (3, 1, [Why.CONFLICT])


def test_a_record_of_a_deleted_application_can_be_corrected() -> None:
    books = Books()
    books.take(reported("r", 5, client_id=GONE))
    books.take(void("v", "r", at=NOW + timedelta(minutes=20)))
    assert books.of("d") == 0


def test_one_whose_clock_was_before_that_of_its_record_changes_nothing_that_had_closed() -> None:
    midnight = datetime(2026, 11, 22, 15, tzinfo=UTC)
    books = Books()
    books.take(reported("r", 5, at=midnight, occurred=NOW), void("v", "r", at=midnight - timedelta(seconds=1)))
    assert (books.of("d"), books.of("d", "after_close"), books.of("m")) == (5, 5, 0)
