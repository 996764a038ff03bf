"""Which crossings are told: pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.metering.thresholds import Marked, WindowKey, to_tell
from shared.events.metering import RUNGS
from shared.windows import civil

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
DAY = civil("Asia/Seoul").day(NOW)


def marked(**fields: Any) -> Marked:
    known: dict[str, Any] = {
        "key": WindowKey("acme", "a" * 20, "csr", "d", DAY.start),
        "zone": "Asia/Seoul",
        "version": 3,
        "limit": 1000,
        "rungs": RUNGS,
        "changed_at": NOW,
        "units": 0,
        "told": 0,
    }
    return Marked(**{**known, **fields})


def percents(**fields: Any) -> list[int]:
    return [event.percent for event in to_tell(marked(**fields))]


def test_a_rung_is_crossed_when_usage_has_come_to_it() -> None:
    assert percents(units=99) == []
    assert percents(units=100) == [10]
    assert percents(units=299, told=10) == [20]
    assert percents(units=10_000) == list(RUNGS)
    [event] = to_tell(marked(units=100))
    assert (event.used, event.limit, event.limit_version, event.period) == (100, 1000, 3, "daily")
    assert (event.window_start, event.window_end) == DAY


def test_rungs_are_exact_for_limits_that_no_percentage_divides() -> None:
    assert percents(limit=3, units=1, rungs=(33, 34)) == [33]
    assert percents(limit=1, units=1) == list(RUNGS)
    huge = 10**15
    assert percents(limit=huge, units=huge - 1, told=90) == []
    assert percents(limit=huge, units=huge, told=90) == [100]


def test_nothing_is_told_without_a_limit_to_measure_by() -> None:
    assert percents(limit=0, units=5) == []
    assert percents(limit=None, units=5) == []
    assert percents(version=None, limit=None, changed_at=None, units=5) == []


def test_a_limit_that_is_as_young_as_the_windows_end_tells_nothing() -> None:
    assert percents(units=100, changed_at=DAY.end) == []
    assert percents(units=100, changed_at=DAY.end - timedelta(microseconds=1)) == [10]


@given(st.lists(st.integers(0, 400), max_size=8), st.integers(1, 1000), st.sets(st.integers(1, 100), min_size=1, max_size=20))
def test_any_looks_on_the_way_tell_the_same_as_one_at_the_end(steps: list[int], limit: int, rungs: set[int]) -> None:
    told, units, along = 0, 0, []
    for step in steps:
        units += step
        found = percents(units=units, limit=limit, rungs=tuple(rungs), told=told)
        along += found
        told = max([told, *found])
    assert along == percents(units=units, limit=limit, rungs=tuple(rungs))
    assert along == sorted(set(along))
