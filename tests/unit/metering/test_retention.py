"""Which months are kept, and which shelf a window is on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metering.app import MeteringSettings
from services.metering.domain import LATE_MAX_US
from services.metering.retention import MONTHS_MIN, Policy, ahead
from services.metering.shelves import Shelf, shelf_of
from shared.windows import from_us, to_us

instants = st.integers(to_us(datetime(1990, 1, 1, tzinfo=UTC)), to_us(datetime(2190, 1, 1, tzinfo=UTC))).map(from_us)


def test_a_policy_keeps_the_running_month_and_so_many_before() -> None:
    policy = Policy(hours=36, days=120)
    assert policy.first_kept("h", datetime(2026, 11, 24, 6, tzinfo=UTC)) == datetime(2023, 11, 1, tzinfo=UTC)
    assert policy.first_kept("d", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)) == datetime(2016, 12, 1, tzinfo=UTC)
    assert Policy(hours=12).first_kept("h", datetime(2026, 12, 1, tzinfo=UTC)) == datetime(2025, 12, 1, tzinfo=UTC)
    assert Policy(hours=2).first_kept("h", datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2025, 11, 1, tzinfo=UTC)


@given(instants)
def test_no_policy_drops_what_late_records_come_to(at: datetime) -> None:
    oldest_day = at - timedelta(microseconds=LATE_MAX_US) - timedelta(days=1)  # its hours, and its day, which began before
    assert Policy(MONTHS_MIN, MONTHS_MIN).first_kept("h", at) < oldest_day


@given(instants)
def test_a_shelf_is_a_month_or_a_year_in_utc(at: datetime) -> None:
    for period in "hdm":
        period_, first = shelf_of(period, at.astimezone(ZoneInfo("Asia/Seoul")))
        assert period_ == period
        assert first <= at
        assert (first.year, first.month if period != "m" else 1) == (at.year, at.month if period != "m" else 1)
        assert (first.day, first.hour, first.minute, first.utcoffset()) == (1, 0, 0, timedelta(0))


def test_shelves_are_made_a_month_ahead() -> None:
    december = datetime(2026, 12, 31, 12, tzinfo=UTC)
    months = [datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)]
    assert set(ahead(december)) == {Shelf(period, month) for period in "hd" for month in months} | {
        Shelf("m", datetime(year, 1, 1, tzinfo=UTC)) for year in (2026, 2027)
    }


def test_days_are_kept_at_least_as_long_as_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLBOOK_POSTGRES_DSN", "postgresql://metering@127.0.0.1/tollbook")
    monkeypatch.setenv("TOLLBOOK_CATALOG", "deploy/catalog.yaml")
    monkeypatch.setenv("TOLLBOOK_VAULT_KEY", "0f" * 32)
    monkeypatch.setenv("TOLLBOOK_HOURS_KEPT_MONTHS", "24")
    monkeypatch.setenv("TOLLBOOK_DAYS_KEPT_MONTHS", "24")
    assert MeteringSettings().policy() == Policy(24, 24)
    monkeypatch.setenv("TOLLBOOK_DAYS_KEPT_MONTHS", "23")
    with pytest.raises(ValueError, match="TOLLBOOK_DAYS_KEPT_MONTHS has to be at least"):
        MeteringSettings()
