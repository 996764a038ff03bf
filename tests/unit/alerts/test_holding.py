"""When a contact is told: quiet hours and digests, on days with and without clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.holding import Wishes, due_at

NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)
ZONES = ["Asia/Seoul", "America/New_York", "Australia/Lord_Howe", "Europe/London", "Pacific/Apia", "America/Sao_Paulo"]
times = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))
instants = st.integers(0, 20 * 365 * 1440).map(lambda minutes: datetime(2010, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes))


def at(text: str, zone: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


def test_what_is_urgent_is_never_held_back() -> None:
    assert due_at(NOW, Wishes("Asia/Seoul", "00:00", "23:59", "09:00"), urgent=True) == NOW


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-24T21:59", "2026-11-24T21:59"),
        ("2026-11-24T22:00", "2026-11-25T07:30"),
        ("2026-11-25T00:10", "2026-11-25T07:30"),
        ("2026-11-25T07:29:59", "2026-11-25T07:30"),
        ("2026-11-25T07:30", "2026-11-25T07:30"),
    ],
)
def test_quiet_hours_may_reach_over_midnight(now: str, expected: str) -> None:
    wishes = Wishes("Asia/Seoul", "22:00", "07:30", None)
    assert due_at(at(now, "Asia/Seoul"), wishes, urgent=False) == at(expected, "Asia/Seoul")


def test_a_digest_comes_at_its_next_time_and_goes_before_quiet_hours() -> None:
    wishes = Wishes("Asia/Seoul", "08:00", "20:00", "09:00")
    assert due_at(at("2026-11-24T08:59", "Asia/Seoul"), wishes, urgent=False) == at("2026-11-24T09:00", "Asia/Seoul")
    assert due_at(at("2026-11-24T09:00", "Asia/Seoul"), wishes, urgent=False) == at("2026-11-24T09:00", "Asia/Seoul")
    assert due_at(at("2026-11-24T09:01", "Asia/Seoul"), wishes, urgent=False) == at("2026-11-25T09:00", "Asia/Seoul")


def test_a_time_that_a_zone_skips_is_the_first_after_the_gap() -> None:
    digest = Wishes("America/New_York", None, None, "02:30")
    quiet = Wishes("America/New_York", "22:00", "02:30", None)
    before = at("2026-03-08T01:00", "America/New_York")
    assert due_at(before, digest, urgent=False) == at("2026-03-08T03:00", "America/New_York")
    assert due_at(before, quiet, urgent=False) == at("2026-03-08T03:00", "America/New_York")


def test_a_time_that_comes_twice_counts_once_for_a_digest_and_ends_quiet_hours_at_whichever_is_next() -> None:
    digest, quiet = Wishes("America/New_York", None, None, "01:30"), Wishes("America/New_York", "22:00", "01:30", None)
    first, again = (at("2026-11-01T01:30", "America/New_York", fold) for fold in (0, 1))
    assert again - first == timedelta(hours=1)
    assert due_at(first - timedelta(minutes=5), digest, urgent=False) == first
    assert due_at(first + timedelta(minutes=5), digest, urgent=False) == at("2026-11-02T01:30", "America/New_York")
    assert due_at(first - timedelta(minutes=5), quiet, urgent=False) == first
    assert due_at(again - timedelta(minutes=5), quiet, urgent=False) == again


@given(instants, st.sampled_from(ZONES), times, times)
def test_quiet_hours_end_within_a_day_and_nobody_is_told_in_them(now: datetime, zone: str, start: str, end: str) -> None:
    due = due_at(now, Wishes(zone, start, end, None), urgent=False)
    wall = due.astimezone(ZoneInfo(zone)).time()
    first, last = time.fromisoformat(start), time.fromisoformat(end)
    assert not (first <= wall < last if first <= last else wall >= first or wall < last)
    assert now <= due <= now + timedelta(hours=49 if zone == "Pacific/Apia" else 25)


@given(instants, st.sampled_from(ZONES), times)
def test_a_digest_comes_within_a_day_at_its_time_or_right_after_a_gap(now: datetime, zone: str, digest_at: str) -> None:
    due = due_at(now, Wishes(zone, None, None, digest_at), urgent=False)
    assert now <= due <= now + timedelta(hours=49 if zone == "Pacific/Apia" else 25)
    wall, before = (one.astimezone(ZoneInfo(zone)) for one in (due, due - timedelta(seconds=1)))
    wanted = time.fromisoformat(digest_at)
    assert wall.time() == wanted or before.utcoffset() != wall.utcoffset()
