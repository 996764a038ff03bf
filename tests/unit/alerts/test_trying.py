"""Whether something may be sent, and when it is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.trying import BACKOFF_MAX_S, RETRY_AFTER_MAX_S, Coded, Standing, next_try, obstacle

NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)
LATER = NOW + timedelta(minutes=10)
KNOWN, VOID = Coded(LATER, True), Coded(LATER, False)
UNVERIFIED, USABLE, TIRED = Standing(True), Standing(True, True), Standing(True, True, True)


@given(st.text(), st.integers(1, 1000), st.none() | st.floats(0, 1e9))
def test_the_next_try_doubles_its_wait_within_bounds_and_never_before_the_provider_wants_it(
    message_id: str, attempts: int, retry_after_s: float | None
) -> None:
    wait_s = (next_try(NOW, message_id, attempts, retry_after_s) - NOW).total_seconds()
    most_s = min(2.0 * 2.0 ** min(attempts - 1, 30), BACKOFF_MAX_S)
    assert wait_s >= most_s / 2 - 1e-6
    if retry_after_s is None:
        assert wait_s <= most_s
    else:
        assert min(retry_after_s, RETRY_AFTER_MAX_S) - 1e-6 <= wait_s <= max(most_s, RETRY_AFTER_MAX_S)


def test_what_failed_together_does_not_come_back_together() -> None:
    assert len({next_try(NOW, str(number), 3, None) for number in range(100)}) == 100


@pytest.mark.parametrize(
    ("standing", "coded", "reason"),
    [
        (Standing(), None, "contact_removed"),
        (Standing(), KNOWN, "contact_removed"),
        (UNVERIFIED, None, "not_verified"),
        (UNVERIFIED, KNOWN, None),
        (UNVERIFIED, VOID, "expired"),
        (UNVERIFIED, Coded(NOW, True), "expired"),
        (USABLE, None, None),
        (TIRED, None, "unsubscribed"),
        (TIRED, KNOWN, None),
    ],
)
def test_why_nothing_may_be_sent(standing: Standing, coded: Coded | None, reason: str | None) -> None:
    assert obstacle(NOW, standing, coded) == reason
