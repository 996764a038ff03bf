"""What becomes one message: everything once, nothing forgotten, within the bounds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.alerts.bundling import ITEMS_MAX, LATELY, SETTLE_MAX_S, SETTLE_URGENT_MAX_S, Gathering, bundles, ready_at

NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)


def gathering(lately: int = 0, *, urgent: bool = False) -> Gathering:
    return Gathering("c", "email", NOW, urgent, lately)


def settle_s(lately: int, *, urgent: bool = False) -> float:
    return (ready_at(gathering(lately, urgent=urgent)) - NOW).total_seconds()


def test_the_more_messages_there_were_the_longer_the_next_one_waits() -> None:
    assert [settle_s(lately) for lately in (0, 1, 2, 3, 8, 1_000_000)] == [0.25, 0.5, 1.0, 2.0, SETTLE_MAX_S, SETTLE_MAX_S]
    assert [settle_s(lately, urgent=True) for lately in (0, 3, 9)] == [0.25, 1.0, SETTLE_URGENT_MAX_S]


@given(st.integers(0, 3 * ITEMS_MAX))
def test_bundles_are_everything_once_in_order_and_none_is_too_large(count: int) -> None:
    found = list(bundles(range(count)))
    assert [item for bundle in found for item in bundle] == list(range(count))
    assert all(0 < len(bundle) <= ITEMS_MAX for bundle in found)


@given(st.lists(st.tuples(st.floats(0, 1200), st.booleans()), min_size=1, max_size=200))
def test_whatever_comes_when_it_is_told_once_in_few_messages_and_before_long(arrivals: list[tuple[float, bool]]) -> None:
    """A worker that looks exactly when something is ready: what it makes of a contact's crossings."""
    coming = sorted((NOW + timedelta(seconds=after_s), urgent, number) for number, (after_s, urgent) in enumerate(arrivals))
    waiting: list[tuple[datetime, bool, int]] = []
    made: list[datetime] = []
    told: list[int] = []
    while coming or waiting:
        if waiting:
            lately = sum(1 for at in made if at > waiting[0][0] - LATELY)
            ready = ready_at(Gathering("c", "email", waiting[0][0], any(one[1] for one in waiting), lately))
        if not waiting or (coming and coming[0][0] <= ready):
            waiting.append(coming.pop(0))
            continue
        for due, urgent, number in waiting:
            told.append(number)
            assert ready - due <= timedelta(seconds=SETTLE_URGENT_MAX_S if urgent else SETTLE_MAX_S)
        made.append(ready)
        waiting.clear()
    assert sorted(told) == list(range(len(arrivals)))
    if not any(urgent for _, urgent in arrivals):
        assert all(sum(1 for at in made if end - LATELY < at <= end) <= 8 + 600 / SETTLE_MAX_S + 1 for end in made)
