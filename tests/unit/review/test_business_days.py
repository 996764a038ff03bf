"""When decisions are due: weekends, Korean holidays with their substitute days, year ends, clocks that change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.review.business_days import Calendar, due_at, is_business_day

SEOUL = ZoneInfo("Asia/Seoul")
KOREA = Calendar()


def in_seoul(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SEOUL)


@pytest.mark.parametrize(
    ("submitted", "due"),
    [
        ("2026-11-23T09:00", "2026-11-26T18:00"),  # Monday: Tuesday, Wednesday, Thursday
        ("2026-11-23T23:59:59", "2026-11-26T18:00"),
        ("2026-11-24T00:00", "2026-11-27T18:00"),
        ("2026-11-27T09:00", "2026-12-02T18:00"),  # Friday: over the weekend
        ("2026-11-28T09:00", "2026-12-02T18:00"),  # Saturday and Sunday count as little as the day of submission
        ("2026-11-29T23:59", "2026-12-02T18:00"),
        ("2026-02-13T10:00", "2026-02-23T18:00"),  # Seollal: Monday 16 to Wednesday 18 February
        ("2026-02-27T10:00", "2026-03-05T18:00"),  # 1 March is a Sunday: Monday the 2nd is its substitute
        ("2026-08-13T10:00", "2026-08-19T18:00"),  # 15 August is a Saturday: Monday the 17th is its substitute
        ("2026-10-02T10:00", "2026-10-08T18:00"),  # 3 October is a Saturday: Monday the 5th is its substitute
        ("2026-05-22T10:00", "2026-05-28T18:00"),  # Buddha's birthday, 24 May, is a Sunday: Monday the 25th
        ("2026-12-24T10:00", "2026-12-30T18:00"),  # Christmas is a Friday
        ("2026-12-30T10:00", "2027-01-05T18:00"),  # New Year is a Friday
        ("2026-12-31T23:30", "2027-01-06T18:00"),
    ],
)
def test_three_business_days_in_korea(submitted: str, due: str) -> None:
    assert due_at(in_seoul(submitted), KOREA) == in_seoul(due)


def test_the_day_of_submission_is_the_calendars_not_utcs() -> None:
    late = datetime(2026, 11, 23, 16, 0, tzinfo=UTC)  # Tuesday, one o'clock in Seoul
    assert due_at(late, KOREA) == in_seoul("2026-11-27T18:00")
    assert due_at(late, KOREA).tzinfo is UTC


def test_days_that_the_office_is_closed_do_not_count() -> None:
    closed = Calendar(closed_on=frozenset({date(2026, 11, 24), date(2026, 11, 25)}))
    assert due_at(in_seoul("2026-11-23T09:00"), closed) == in_seoul("2026-11-30T18:00")


def test_another_country_has_other_holidays() -> None:
    thanksgiving = date(2026, 11, 26)
    assert is_business_day(thanksgiving, KOREA)
    assert not is_business_day(thanksgiving, Calendar(country="US", zone="America/New_York"))


def test_it_closes_by_the_clock_on_the_wall() -> None:
    new_york = Calendar(country="US", zone="America/New_York", closes=time(17), business_days=1)
    assert due_at(datetime(2026, 10, 30, 15, tzinfo=UTC), new_york) == datetime(2026, 11, 2, 22, tzinfo=UTC)  # no longer summer
    assert due_at(datetime(2026, 10, 29, 15, tzinfo=UTC), new_york) == datetime(2026, 10, 30, 21, tzinfo=UTC)


@given(
    st.integers(0, 20 * 365 * 86_400).map(lambda seconds: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)),
    st.integers(1, 30),
    st.frozensets(st.dates(date(2020, 1, 1), date(2040, 3, 1)), max_size=20),
)
def test_it_is_always_a_business_day_with_so_many_before(began: datetime, days: int, closed: frozenset[date]) -> None:
    calendar = Calendar(business_days=days, closed_on=closed)
    due = due_at(began, calendar).astimezone(SEOUL)
    assert (due.hour, due.minute) == (18, 0)
    first = began.astimezone(SEOUL).date()
    between = [first + timedelta(days=n) for n in range(1, (due.date() - first).days + 1)]
    assert is_business_day(due.date(), calendar)
    assert sum(is_business_day(day, calendar) for day in between) == days
    assert due > began
