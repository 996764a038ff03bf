"""Events and rules in, requests out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.alerts.holding import Wishes
from services.alerts.telling import Audience, Cause, Reached, of_metering, react, rule_of
from shared.events.alerts import Crossed, Method, rungs_of
from shared.events.metering import LimitChanged, QuotaExhausted, ThresholdCrossed

NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)
START = datetime(2026, 11, 23, 15, tzinfo=UTC)
DAY = timedelta(days=1)
SCOPE = ("acme", "a" * 20, "csr")
PLAIN = Wishes("Asia/Seoul", None, None, None)
KIM = Reached("kim", "email", PLAIN)


def cause(percent: int, *, exhausted: bool = False, version: int = 1) -> Cause:
    common = {"account": SCOPE[0], "client_id": SCOPE[1], "service": SCOPE[2], "period": "daily", "window_start": START}
    common |= {"window_end": START + DAY, "used": 1, "limit": 1, "limit_version": version}
    event = QuotaExhausted(**common) if exhausted else ThresholdCrossed(**common, percent=percent)
    found = of_metering(event, NOW, "metering-1")
    assert found is not None
    return found


def audience(threshold: int | None, custom: tuple[int, ...] = (), *reached: Reached) -> Audience:
    return Audience({SCOPE: rule_of(threshold, None, custom, ())}, {SCOPE: reached or (KIM,)}, {SCOPE[1]: "Weather"}, {})


steps = st.none() | st.sampled_from(range(10, 101, 10))
heard = st.lists(st.tuples(st.integers(1, 100), st.booleans(), st.integers(0, 2)), max_size=30)
everybody = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["email", "sms", "webhook"])), min_size=1, max_size=6, unique=True
)


@given(steps, st.lists(st.integers(1, 99), max_size=4), heard, everybody)
def test_each_rung_that_a_rule_tells_is_asked_for_once_for_each_contact_and_method(
    threshold: int | None, custom: list[int], told: list[tuple[int, bool, int]], people: list[tuple[str, Method]]
) -> None:
    reached = [Reached(contact, method, PLAIN) for contact, method in people]
    causes = [cause(percent, exhausted=exhausted, version=version) for percent, exhausted, version in told]
    rungs = rungs_of(threshold, custom)
    wanted = {
        (version, 100 if exhausted else percent)
        for percent, exhausted, version in told
        if rungs and (exhausted or percent in rungs)
    }
    known = audience(threshold, tuple(custom), *reached)
    found = [one.request for one in react(causes, known, NOW, DAY)]
    assert len({one.request_id for one in found}) == len(found) == len(wanted) * len(people)
    told_of = {(one.about.limit_version, one.about.percent) for one in found if isinstance(one.about, Crossed)}
    assert told_of == wanted
    again = [one.request for one in react(reversed(causes), known, NOW + DAY, DAY)]
    assert {one.request_id for one in again} == {one.request_id for one in found}


def test_the_first_refusal_sharpens_what_the_last_rung_told() -> None:
    for causes in ([cause(100), cause(0, exhausted=True)], [cause(0, exhausted=True), cause(100)]):
        (found,) = react(causes, audience(100), NOW, DAY)
        assert isinstance(found.request.about, Crossed)
        assert found.request.about.exhausted


def test_a_request_is_due_when_its_contact_wants_it_and_no_longer_than_it_may_take() -> None:
    quiet = Reached("kim", "email", Wishes("Asia/Seoul", "10:00", "18:00", None))
    held, urgent = (one.request for one in react([cause(90), cause(100)], audience(10, (), quiet), NOW, timedelta(hours=2)))
    assert held.due_at == NOW + timedelta(hours=6)
    assert held.deadline == NOW + timedelta(hours=8)
    assert urgent.due_at == NOW
    assert held.app_name == "Weather"


def test_what_nobody_is_told_of_is_no_cause() -> None:
    changed = LimitChanged(account="acme", client_id="a", service="csr", version=1, daily=1, monthly=None)
    assert of_metering(changed, NOW, "metering-1") is None
    crossed = {"account": "acme", "client_id": "a", "service": "csr", "period": "daily", "window_start": START - DAY}
    event = ThresholdCrossed(**crossed, window_end=START, percent=10, used=1, limit=10, limit_version=1)
    assert of_metering(event, START + DAY, "metering-1") is not None
    assert of_metering(event, START + DAY + timedelta(seconds=1), "metering-1") is None


def test_without_a_rule_nobody_is_told() -> None:
    assert react([cause(100)], Audience({}, {}, {}, {SCOPE[0]: (KIM,)}), NOW, DAY) == []
