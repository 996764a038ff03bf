"""Voided records, and records of quota leases: what counts for which lease, and what came too late."""

from __future__ import annotations

from itertools import permutations

import pytest

from services.metering.decoding import Batch
from services.metering.lapses import LapsedPlace, Lapses
from services.metering.rejection import Why
from shared.events.usage import UsageRecord
from tests.support.books import NOW_US, SEOUL, Books, batch, message, rejected_record

LEASED = [UsageRecord(SEOUL, "csr", NOW_US, units, "", f"lease{units % 2}") for units in (1, 2, 4, 8)]


@pytest.mark.parametrize("order", sorted(set(permutations(["sent", "sent", "void 1", "void 1", "void 1 3"]))))
@pytest.mark.parametrize("pieces", [1, 5])
def test_voided_records_count_nothing_in_whatever_order_and_how_often_it_comes(order: tuple[str, ...], pieces: int) -> None:
    voids = {"sent": (), "void 1": (1,), "void 1 3": (3, 1, 3)}
    items = [batch(1, LEASED, voided=voids[kind]) for kind in order]
    books = Books()
    for start in range(0, len(items), len(items) // pieces):
        books.take(items[start : start + len(items) // pieces])
    assert (books.units(), books.leases["lease1"], books.leases["lease0"]) == (5, 1, 4)
    books.take([batch(1, LEASED, retracted=True), batch(1, LEASED, voided=[0]), batch(1, LEASED, retracted=True)])
    assert books.counted() == {}
    assert not any(books.leases.values())
    assert books.rejected == []


def test_a_rejected_record_that_is_voided_stays_uncounted() -> None:
    books = Books()
    bad = UsageRecord("u" * 20, "csr", NOW_US, 7)
    books.take([batch(1, [*LEASED, bad]), batch(1, [*LEASED, bad], voided=[4])])
    assert books.units() == 15
    books.take([batch(1, [*LEASED, bad], voided=[4, 0])])
    assert books.units() == 14


@pytest.mark.parametrize("voided", [[4], [-1], [0, 10**30]])
@pytest.mark.parametrize("before", [True, False])
def test_a_place_that_the_batch_does_not_have_is_a_conflict_and_changes_nothing(voided: list[int], before: bool) -> None:
    books = Books()
    if before:
        books.take([batch(1, LEASED)])
    books.take([batch(1, LEASED, voided=voided)])
    assert [one.why for one in books.rejected] == [Why.CONFLICT]
    books.take([batch(1, LEASED)])
    assert books.units() == 15


def test_voided_places_are_of_the_records_as_they_were_written() -> None:
    read = Batch(message(), 0, batch(1, [LEASED[0], LEASED[2]], voided=[1, 2]).batch, (rejected_record(1),), (0, 2))
    counted = Batch(message(), 0, batch(1, [LEASED[0], LEASED[2]]).batch, (rejected_record(1),), (0, 2))
    books = Books()
    books.take([counted, read])
    assert books.units() == 1


def test_what_comes_from_a_closed_lease_after_its_end_does_not_count_and_its_place_is_kept() -> None:
    lapses = Lapses({("lease0", "gate-1", "usage.records.0"): 3}, {}, frozenset())
    books = Books()
    early = Batch(message(3), 0, batch(1, LEASED).batch)
    late = Batch(message(4), 0, batch(2, LEASED).batch)
    outcome = books.take([early, late], lapses)
    assert (books.units(), books.leases["lease0"]) == (15 + 1, 14)
    assert outcome.lapsed == [("usage.records.0", 4, place) for place in (1, 2, 3)]
    assert {one.why for one in books.rejected} == {Why.LEASE_ENDED}
    books.take([Batch(message(5), 0, batch(2, LEASED, voided=[1, 0]).batch)], lapses)
    assert books.leases["lease1"] == 1


def test_counting_again_goes_by_the_places_that_were_kept() -> None:
    ends = {("lease0", "gate-1", "usage.records.0"): 3}
    place = LapsedPlace("usage.records.0", 4, 2)
    books = Books()
    late = Batch(message(4), 0, batch(1, LEASED).batch)
    outcome = books.take([late], Lapses(ends, {"usage.records.0": 4}, frozenset({place})))
    assert (books.units(), outcome.lapsed) == (11, [place])


def test_a_lease_of_another_publisher_or_partition_is_no_matter() -> None:
    lapses = Lapses({("lease1", "gate-2", "usage.records.0"): 0, ("lease1", "gate-1", "usage.records.1"): 0}, {}, frozenset())
    books = Books()
    books.take([batch(1, LEASED)], lapses)
    assert (books.units(), books.rejected) == (15, [])
