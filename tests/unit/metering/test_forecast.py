"""When a limit will be reached at the present rate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metering.forecast import Basis, basis_window, forecast
from shared.windows import Window, civil

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 25, tzinfo=UTC)


def basis(units: int, hours: float = 4.0) -> Basis:
    return Basis(NOON - timedelta(hours=hours), NOON, units)


def test_what_is_left_lasts_as_long_as_the_rate_says() -> None:
    found = forecast(1_000, 400, MIDNIGHT, basis(400))
    assert found is not None
    assert found.model_dump() == {
        "reached_at": NOON + timedelta(hours=6),
        "units_per_hour": 100.0,
        "since": NOON - timedelta(hours=4),
        "until": NOON,
    }


@pytest.mark.parametrize(
    ("limit", "used", "units", "reached_at"),
    [
        (1_000, 400, 0, None),  # nothing is used now: never
        (1_600, 400, 400, None),  # at the very end of the window: it begins anew
        (1_599, 400, 400, NOON + timedelta(hours=11.99)),
        (400, 400, 400, NOON),
        (399, 400, 0, NOON),
        (0, 0, 0, NOON),
        (10**15, 0, 1, None),
    ],
)
def test_never_now_or_in_time(limit: int, used: int, units: int, reached_at: datetime | None) -> None:
    found = forecast(limit, used, MIDNIGHT, basis(units))
    assert found is not None
    assert found.reached_at == reached_at


def test_without_a_limit_or_with_nothing_to_go_by_there_is_none() -> None:
    assert forecast(None, 400, MIDNIGHT, basis(400)) is None
    assert forecast(1_000, 0, MIDNIGHT, Basis(NOON - timedelta(seconds=59), NOON, 50)) is None
    assert forecast(1_000, 0, MIDNIGHT, Basis(NOON, NOON - timedelta(hours=1), 0)) is None, "counting is far behind"


@given(
    limit=st.integers(0, 10**15),
    used=st.integers(0, 10**15),
    units=st.integers(0, 10**15),
    lasted=st.timedeltas(timedelta(minutes=1), timedelta(days=8)),
)
def test_it_is_never_before_now_nor_after_the_window(limit: int, used: int, units: int, lasted: timedelta) -> None:
    found = forecast(limit, used, MIDNIGHT, Basis(NOON - lasted, NOON, units))
    assert found is not None
    assert found.reached_at is None or NOON <= found.reached_at <= MIDNIGHT


def test_a_day_goes_by_its_last_hours_and_a_month_by_its_last_week() -> None:
    berlin = civil("Europe/Berlin")
    at = datetime(2026, 10, 25, 2, 30, tzinfo=UTC)  # 03:30, an hour and a half after the clock went back
    start, end = datetime(2026, 10, 24, 23, tzinfo=UTC), datetime(2026, 10, 25, 3, tzinfo=UTC)
    assert basis_window(berlin, "daily", at) == ("hour", Window(start, end))
    week, tomorrow = datetime(2026, 10, 17, 22, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC)
    assert basis_window(berlin, "monthly", at) == ("day", Window(week, tomorrow))
