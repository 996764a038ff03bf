"""Setting, scheduling and cancelling limits: given / when / then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from services.metering import limits
from services.metering.limits import AccountFacts, AppFacts, OpenWindow, Scope
from shared.commands.limits import (
    SCHEDULED_MAX,
    AccountLimitView,
    CancelSchedule,
    LimitsView,
    ScheduleAccountLimit,
    ScheduleLimits,
    SetAccountLimit,
    SetLimits,
)
from shared.errors import Conflict, InvalidInput, NotFound
from shared.events.metering import (
    RUNGS,
    AccountLimitChanged,
    LimitChangeCancelled,
    LimitChanged,
    LimitChangeScheduled,
    MeteringEvent,
    Passed,
    QuotaExhausted,
    ThresholdCrossed,
)
from tests.support.scenario import Outcome, Scenario

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
BEFORE = NOW - timedelta(days=1)
DAY, MONTH = datetime(2026, 11, 21, 15, tzinfo=UTC), datetime(2026, 10, 31, 15, tzinfo=UTC)
ACCOUNT, CLIENT_ID, SERVICE = "acme", "k3v9x2m1q8w7e5r4t6y0", "csr"
CATALOG = ("clova-voice", "csr")
FIRST, SECOND = "1" * 32, "2" * 32
SCOPE: Scenario[Scope] = Scenario(Scope(), limits.evolve)
META: dict[str, Any] = {"command_id": "c1", "account": ACCOUNT, "actor": "token:t1"}
WHERE: dict[str, Any] = {"account": ACCOUNT, "client_id": CLIENT_ID, "service": SERVICE}


def app_facts(version: int = 0, windows: tuple[OpenWindow, ...] = (), selected: tuple[str, ...] | None = (SERVICE,)) -> AppFacts:
    view = LimitsView(client_id=CLIENT_ID, service=SERVICE, version=version, changed_at=BEFORE if version else None)
    return AppFacts(NOW, selected, view, windows)


def account_facts(version: int = 0, windows: tuple[OpenWindow, ...] = (), opened: bool = True) -> AccountFacts:
    view = AccountLimitView(service=SERVICE, version=version, changed_at=BEFORE if version else None)
    return AccountFacts(NOW, opened, view, windows)


def set_limits(*past: MeteringEvent, facts: AppFacts | None = None, **fields: Any) -> Outcome[Scope]:
    asked = SetLimits(**{**META, "client_id": CLIENT_ID, "service": SERVICE, **fields})
    return SCOPE.given(*past).when(lambda state: limits.set_limits(state, facts or app_facts(state.version), asked, CATALOG))


def set_account(*past: MeteringEvent, facts: AccountFacts | None = None, **fields: Any) -> Outcome[Scope]:
    asked = SetAccountLimit(**{**META, "service": SERVICE, **fields})
    return SCOPE.given(*past).when(
        lambda state: limits.set_account_limit(state, facts or account_facts(state.version), asked, CATALOG)
    )


def schedule(*past: MeteringEvent, at: datetime, facts: AppFacts | None = None, **fields: Any) -> Outcome[Scope]:
    asked = ScheduleLimits(**{**META, "client_id": CLIENT_ID, "service": SERVICE, "effective_at": at, **fields})
    return SCOPE.given(*past).when(
        lambda state: limits.schedule_limits(state, facts or app_facts(state.version), asked, CATALOG, FIRST)
    )


def cancel(*past: MeteringEvent, schedule_id: str = FIRST, **fields: Any) -> Outcome[Scope]:
    asked = CancelSchedule(**{**META, "client_id": CLIENT_ID, "service": SERVICE, "schedule_id": schedule_id, **fields})
    return SCOPE.given(*past).when(lambda state: limits.cancel_schedule(state, asked))


def changed(version: int = 1, daily: int | None = 100, monthly: int | None = None, **extra: Any) -> LimitChanged:
    return LimitChanged(**WHERE, version=version, daily=daily, monthly=monthly, **extra)


def waits(schedule_id: str = FIRST, at: datetime = NOW + timedelta(hours=1), daily: int | None = 7) -> LimitChangeScheduled:
    return LimitChangeScheduled(
        **WHERE, schedule_id=schedule_id, effective_at=at, requested_by="token:t1", daily=daily, monthly=None
    )


# -- setting


def test_a_first_limit_is_version_1() -> None:
    decision = set_limits(daily=100, reason=" to begin with ").then(changed(reason="to begin with"))
    assert decision.reply.version == 1
    assert (decision.reply.daily, decision.reply.monthly, decision.reply.changed_at) == (100, None, NOW)
    assert decision.at == NOW


def test_amounts_are_given_whole_and_what_is_left_out_is_no_limit() -> None:
    past = changed(daily=10, monthly=100)
    set_limits(past, monthly=50, monthly_thresholds=(90, 50)).then(
        LimitChanged(**WHERE, version=2, daily=None, monthly=50, monthly_rungs=(50, 90))
    )
    set_limits(past).then(changed(2, None, None))


def test_the_same_amounts_again_change_nothing() -> None:
    facts = app_facts(1)
    decision = set_limits(changed(), facts=facts, daily=100, reason="again").then_nothing()
    assert decision.reply is facts.view
    set_limits().then_nothing()
    set_limits(changed(), daily=100, daily_thresholds=(50,)).then(changed(2, daily_rungs=(50,)))


def test_a_wish_that_was_made_on_another_version_is_refused_with_both() -> None:
    refusal = set_limits(changed(), changed(2, 200), daily=300, expected_version=1).refused(Conflict, says="at version 2, not 1")
    assert "read it again" in refusal.detail
    set_limits(expected_version=1).refused(Conflict)
    set_limits(changed(), daily=100, expected_version=0).refused(Conflict)
    set_limits(changed(), daily=300, expected_version=1).then(changed(2, 300))
    set_limits(daily=1, expected_version=0).then(changed(1, 1))


def test_zero_blocks_and_is_not_none() -> None:
    set_limits(daily=0).then(changed(daily=0))
    set_limits(changed(daily=0)).then(changed(2, None))


def test_only_a_selected_service_of_an_application_of_the_account() -> None:
    set_limits(facts=app_facts(selected=None), daily=1).refused(NotFound)
    set_limits(facts=app_facts(selected=()), daily=1).refused(InvalidInput, fields=("service",))
    asked = set_limits(facts=app_facts(selected=()), service="nope", daily=1)
    assert "there is no service nope" in asked.refused(InvalidInput).fields[0].problem
    set_limits(facts=app_facts(selected=("gone",)), service="gone", daily=1).then(
        LimitChanged(account=ACCOUNT, client_id=CLIENT_ID, service="gone", version=1, daily=1, monthly=None)
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"daily": -1},
        {"daily": 10**15 + 1},
        {"daily": 11, "monthly": 10},
        {"daily": 1.5},
        {"daily_thresholds": ()},
        {"daily_thresholds": (0,)},
        {"daily_thresholds": (101,)},
        {"daily_thresholds": (10, 10)},
        {"daily_thresholds": tuple(range(1, 22))},
        {"reason": "x" * 201},
        {"reason": "a\nb"},
        {"expected_version": -1},
    ],
)
def test_what_no_limit_can_be_does_not_even_arrive(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        set_limits(**fields)


# -- what a new version begins with


def test_a_new_version_begins_with_what_was_told_as_far_as_usage_is_there() -> None:
    windows = (OpenWindow("daily", DAY, 35, 30), OpenWindow("monthly", MONTH, 350, 70))
    facts = app_facts(1, windows)
    set_limits(changed(), facts=facts, daily=70, monthly=1000).then(
        changed(2, 70, 1000, passed=(Passed("daily", DAY, 30), Passed("monthly", MONTH, 35)))
    )
    set_limits(changed(), facts=facts, daily=1000).then(changed(2, 1000, passed=(Passed("daily", DAY, 3),)))
    set_limits(changed(), facts=facts, daily=0).then(changed(2, 0))
    set_limits(changed(), facts=facts).then(changed(2, None))


# -- the account's own


def test_an_accounts_limit() -> None:
    facts = account_facts(windows=(OpenWindow("monthly", MONTH, 1, 0),))
    first = AccountLimitChanged(
        account=ACCOUNT,
        service=SERVICE,
        version=1,
        monthly=9,
        monthly_rungs=(50,),
        reason="r",
        passed=(Passed("monthly", MONTH, 0),),
    )
    decision = set_account(facts=facts, monthly=9, monthly_thresholds=(50,), reason="r").then(first)
    assert (decision.reply.version, decision.reply.monthly, decision.reply.changed_at) == (1, 9, NOW)
    set_account(first, monthly=9, monthly_thresholds=(50,)).then_nothing()
    set_account(first, monthly=8, expected_version=0).refused(Conflict, says="at version 1, not 0")
    set_account(first).then(AccountLimitChanged(account=ACCOUNT, service=SERVICE, version=2, monthly=None))
    set_account(facts=account_facts(opened=False), monthly=1).refused(NotFound)
    set_account(service="nope", monthly=1).refused(InvalidInput, fields=("service",))


# -- schedules


def test_a_change_can_wait_for_its_time() -> None:
    at = NOW + timedelta(hours=1)
    decision = schedule(changed(), at=at, daily=7).then(waits(at=at))
    [shown] = decision.reply.scheduled
    assert (shown.schedule_id, shown.effective_at, shown.daily, shown.daily_thresholds) == (FIRST, at, 7, RUNGS)
    assert (shown.requested_by, shown.requested_at) == ("token:t1", NOW)
    assert decision.reply.version == 1, "nothing has changed yet"


def test_any_offset_is_kept_as_the_instant() -> None:
    seoul = datetime.fromisoformat("2026-11-23T00:00:00+09:00")
    event = schedule(at=seoul).then(
        LimitChangeScheduled(
            **WHERE,
            schedule_id=FIRST,
            effective_at=datetime(2026, 11, 22, 15, tzinfo=UTC),
            requested_by="token:t1",
            daily=None,
            monthly=None,
        )
    )
    assert event.events[0].effective_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "at",
    [
        NOW,
        NOW - timedelta(microseconds=1),
        NOW + timedelta(days=366, microseconds=1),
        datetime(2026, 11, 23),  # noqa: DTZ001 - without an offset
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
    ],
)
def test_a_time_that_cannot_be_is_refused(at: datetime) -> None:
    schedule(at=at, daily=1).refused(InvalidInput, fields=("effective_at",))


def test_only_so_many_wait_at_once() -> None:
    past = [waits(f"{number:032x}") for number in range(SCHEDULED_MAX)]
    schedule(*past, at=NOW + timedelta(days=1)).refused(InvalidInput, fields=("effective_at",))
    over = LimitChangeCancelled(**WHERE, schedule_id=past[0].schedule_id)
    schedule(*past, over, at=NOW + timedelta(hours=1), daily=7).then(waits())


def test_what_may_not_be_set_may_not_be_scheduled() -> None:
    schedule(at=NOW + timedelta(days=1), facts=app_facts(selected=None)).refused(NotFound)
    schedule(at=NOW + timedelta(days=1), facts=app_facts(selected=())).refused(InvalidInput, fields=("service",))


def test_an_accounts_change_can_wait_too() -> None:
    at = NOW + timedelta(hours=1)
    asked = ScheduleAccountLimit(**META, service=SERVICE, monthly=5, effective_at=at, reason="r")
    decision = (
        SCOPE.given()
        .when(lambda state: limits.schedule_account_limit(state, account_facts(), asked, CATALOG, FIRST))
        .then(
            LimitChangeScheduled(
                account=ACCOUNT,
                client_id="",
                service=SERVICE,
                schedule_id=FIRST,
                effective_at=at,
                requested_by="token:t1",
                daily=None,
                monthly=5,
                reason="r",
            )
        )
    )
    assert decision.reply.scheduled[0].monthly == 5


def test_a_scheduled_change_takes_effect_once() -> None:
    state = SCOPE.given(changed(), waits()).state
    windows = (OpenWindow("daily", DAY, 5, 0),)
    effect = limits.take_effect(state, windows, FIRST)
    assert effect == [changed(2, 7, schedule_id=FIRST, passed=(Passed("daily", DAY, 0),))]
    after = limits.evolve(state, effect[0])
    assert limits.take_effect(after, windows, FIRST) == []
    assert after.waiting == ()


def test_it_takes_effect_even_if_it_changes_no_amount() -> None:
    state = SCOPE.given(changed(daily=7), waits()).state
    assert limits.take_effect(state, (), FIRST) == [changed(2, 7, schedule_id=FIRST)]


def test_of_an_account_too() -> None:
    scheduled = LimitChangeScheduled(
        account=ACCOUNT,
        client_id="",
        service=SERVICE,
        schedule_id=FIRST,
        effective_at=NOW,
        requested_by="token:t1",
        daily=None,
        monthly=5,
        reason="r",
    )
    assert limits.take_effect(SCOPE.given(scheduled).state, (), FIRST) == [
        AccountLimitChanged(account=ACCOUNT, service=SERVICE, version=1, monthly=5, reason="r", schedule_id=FIRST)
    ]


def test_cancelling() -> None:
    over = LimitChangeCancelled(**WHERE, schedule_id=FIRST)
    cancel(waits()).then(over)
    cancel(waits(), waits(SECOND), over).then_nothing()
    cancel(waits(), changed(1, 7, schedule_id=FIRST)).refused(Conflict, says="has taken effect")
    cancel(waits(), schedule_id=SECOND).refused(NotFound)
    cancel().refused(NotFound)
    cancel(waits(), account="globex").refused(NotFound)
    assert limits.take_effect(SCOPE.given(waits(), over).state, (), FIRST) == []


def test_what_is_told_of_usage_changes_no_limit() -> None:
    window: dict[str, Any] = {
        "period": "daily",
        "window_start": DAY,
        "window_end": NOW,
        "used": 1,
        "limit": 1,
        "limit_version": 1,
    }
    state = SCOPE.given(changed()).state
    assert limits.evolve(state, ThresholdCrossed(**WHERE, **window, percent=10)) == state
    assert limits.evolve(state, QuotaExhausted(**WHERE, **window)) == state
