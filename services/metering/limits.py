"""Limits: what has been decided about one scope, and what follows from a wish to change it. Pure.

A scope is an application at a service, or an account at a service over all of its applications (client_id ""). Each has a stream
of its own in the log. What is told of usage (thresholds.py) has others, for it comes often and decides nothing here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, assert_never

import msgspec

from services.metering import quota
from shared.commands.base import Command
from shared.commands.limits import (
    SCHEDULED_MAX,
    AccountAmount,
    AccountLimitView,
    Amounts,
    CancelSchedule,
    LimitsView,
    ScheduleAccountLimit,
    ScheduleCancelled,
    ScheduledView,
    ScheduleLimits,
    SetAccountLimit,
    SetLimits,
)
from shared.errors import Conflict, FieldProblem, InvalidInput, NotFound
from shared.eventlog.decision import Decision
from shared.events.metering import (
    RUNGS,
    AccountLimitChanged,
    DeadLetterDiscarded,
    DeadLetterRetried,
    LimitChangeCancelled,
    LimitChanged,
    LimitChangeScheduled,
    MeteringEvent,
    Passed,
    Period,
    QuotaExhausted,
    ThresholdCrossed,
)

AHEAD_MAX: Final = timedelta(days=366)
"""How far away a change can be scheduled."""


class Limit(NamedTuple):
    """Amounts in the service's unit (None: no limit; 0: blocked), and the percentages at which a crossing is told."""

    daily: int | None = None
    monthly: int | None = None
    daily_rungs: tuple[int, ...] = RUNGS
    monthly_rungs: tuple[int, ...] = RUNGS

    def of(self, period: Period) -> int | None:
        """The amount of that period."""
        return self.daily if period == "daily" else self.monthly


class Scope(msgspec.Struct, frozen=True):
    """What was decided about one scope. `account` "": nothing was yet.

    `waiting` are the scheduled changes that neither took effect nor were cancelled, in the order in which they were asked for.
    """

    account: str = ""
    version: int = 0
    limit: Limit = Limit()
    waiting: tuple[LimitChangeScheduled, ...] = ()
    took_effect: frozenset[str] = frozenset()
    cancelled: frozenset[str] = frozenset()


class OpenWindow(NamedTuple):
    """A window that counts now, or will within minutes. `units` were counted while it was open, `told` is the percentage that was
    told of the version that is in force."""

    period: Period
    window_start: datetime
    units: int
    told: int


class AppFacts(NamedTuple):
    """What a decision about an application's limits needs besides their stream.

    `selected` are the services that the application has selected, None when the account has no such application. `view` is what
    is in force.
    """

    now: datetime
    selected: Collection[str] | None
    view: LimitsView
    windows: Sequence[OpenWindow]


class AccountFacts(NamedTuple):
    """The same for an account's limit. `opened`: there is such an account."""

    now: datetime
    opened: bool
    view: AccountLimitView
    windows: Sequence[OpenWindow]


def limit_stream(client_id: str, service: str) -> str:
    """The stream of an application's limits at a service."""
    return f"limit/{client_id}/{service}"


def account_limit_stream(account: str, service: str) -> str:
    """The stream of an account's limit at a service."""
    return f"account-limit/{account}/{service}"


def stream_of(account: str, client_id: str, service: str) -> str:
    """The stream of a scope; client_id "": of the account's own limit."""
    return limit_stream(client_id, service) if client_id else account_limit_stream(account, service)


def evolve(state: Scope, event: MeteringEvent) -> Scope:
    """The scope after the event."""
    match event:
        case LimitChanged() | AccountLimitChanged():
            daily, daily_rungs = (event.daily, event.daily_rungs) if isinstance(event, LimitChanged) else (None, RUNGS)
            limit = Limit(daily, event.monthly, daily_rungs, event.monthly_rungs)
            done = _without(state, event.schedule_id)
            took_effect = state.took_effect | {event.schedule_id} if event.schedule_id else state.took_effect
            return msgspec.structs.replace(
                done, account=event.account, version=event.version, limit=limit, took_effect=took_effect
            )
        case LimitChangeScheduled():
            return msgspec.structs.replace(state, account=event.account, waiting=(*state.waiting, event))
        case LimitChangeCancelled():
            cancelled = state.cancelled | {event.schedule_id}
            return msgspec.structs.replace(_without(state, event.schedule_id), cancelled=cancelled)
        case ThresholdCrossed() | QuotaExhausted() | DeadLetterRetried() | DeadLetterDiscarded():
            return state
        case _:
            assert_never(event)


def _without(state: Scope, schedule_id: str) -> Scope:
    waiting = tuple(one for one in state.waiting if one.schedule_id != schedule_id)
    return msgspec.structs.replace(state, waiting=waiting)


# -- commands


def set_limits(
    state: Scope, facts: AppFacts, command: SetLimits, services: Collection[str]
) -> Decision[MeteringEvent, LimitsView]:
    """The application's limits at a service, as wished from now on. `services` are the ids of the catalog."""
    _check_app(facts, command.client_id, command.service, services)
    _check_version(state, command.expected_version)
    limit = limit_from(command)
    if limit == state.limit:
        return Decision([], facts.view)
    changed = _changed(command.account, command.client_id, command.service, state, limit, facts.windows, command.reason)
    update = {**command.model_dump(include=set(Amounts.model_fields)), "version": changed.version, "changed_at": facts.now}
    return Decision([changed], facts.view.model_copy(update=update), at=facts.now)


def set_account_limit(
    state: Scope, facts: AccountFacts, command: SetAccountLimit, services: Collection[str]
) -> Decision[MeteringEvent, AccountLimitView]:
    """The account's limit at a service, as wished from now on."""
    _check_account(facts, command, command.service, services)
    _check_version(state, command.expected_version)
    limit = limit_from(command)
    if limit == state.limit:
        return Decision([], facts.view)
    changed = _changed(command.account, "", command.service, state, limit, facts.windows, command.reason)
    update = {**command.model_dump(include=set(AccountAmount.model_fields)), "version": changed.version, "changed_at": facts.now}
    return Decision([changed], facts.view.model_copy(update=update), at=facts.now)


def schedule_limits(
    state: Scope, facts: AppFacts, command: ScheduleLimits, services: Collection[str], schedule_id: str
) -> Decision[MeteringEvent, LimitsView]:
    """A change of the application's limits that waits for its time."""
    _check_app(facts, command.client_id, command.service, services)
    event, waits = _schedule(state, facts.now, command, command.client_id, schedule_id)
    return Decision([event], facts.view.model_copy(update={"scheduled": _added(facts.view.scheduled, waits)}), at=facts.now)


def schedule_account_limit(
    state: Scope, facts: AccountFacts, command: ScheduleAccountLimit, services: Collection[str], schedule_id: str
) -> Decision[MeteringEvent, AccountLimitView]:
    """A change of the account's limit that waits for its time."""
    _check_account(facts, command, command.service, services)
    event, waits = _schedule(state, facts.now, command, "", schedule_id)
    return Decision([event], facts.view.model_copy(update={"scheduled": _added(facts.view.scheduled, waits)}), at=facts.now)


def cancel_schedule(state: Scope, command: CancelSchedule) -> Decision[MeteringEvent, ScheduleCancelled]:
    """A scheduled change taken back. Once more changes nothing."""
    wanted, reply = command.schedule_id, ScheduleCancelled(schedule_id=command.schedule_id)
    own = state.account == command.account
    if own and wanted in state.cancelled:
        return Decision([], reply)
    if own and wanted in state.took_effect:
        raise Conflict("That change has taken effect. Set the limits anew to change them.")
    if not own or wanted not in {one.schedule_id for one in state.waiting}:
        raise NotFound(f"There is no scheduled change {wanted}.")
    client_id = command.client_id or ""
    event = LimitChangeCancelled(
        account=command.account, client_id=client_id, service=command.service, schedule_id=command.schedule_id
    )
    return Decision([event], reply)


def take_effect(state: Scope, windows: Sequence[OpenWindow], schedule_id: str) -> list[MeteringEvent]:
    """What a scheduled change comes to when its time has come: nothing if it does not wait (any longer)."""
    due = next((one for one in state.waiting if one.schedule_id == schedule_id), None)
    if due is None:
        return []
    limit = Limit(due.daily, due.monthly, due.daily_rungs, due.monthly_rungs)
    return [_changed(due.account, due.client_id, due.service, state, limit, windows, due.reason, schedule_id)]


def limit_from(wish: Amounts | AccountAmount) -> Limit:
    """What a command wishes."""
    if isinstance(wish, Amounts):
        return Limit(wish.daily, wish.monthly, wish.daily_thresholds, wish.monthly_thresholds)
    return Limit(None, wish.monthly, RUNGS, wish.monthly_thresholds)


def _changed(
    account: str,
    client_id: str,
    service: str,
    state: Scope,
    limit: Limit,
    windows: Sequence[OpenWindow],
    reason: str,
    schedule_id: str = "",
) -> LimitChanged | AccountLimitChanged:
    version = state.version + 1
    passed = tuple(
        Passed(one.period, one.window_start, quota.passed(one.units, limit.of(one.period), one.told))
        for one in windows
        if limit.of(one.period)
    )
    if not client_id:
        return AccountLimitChanged(
            account=account,
            service=service,
            version=version,
            monthly=limit.monthly,
            monthly_rungs=limit.monthly_rungs,
            reason=reason,
            schedule_id=schedule_id,
            passed=passed,
        )
    return LimitChanged(
        account=account,
        client_id=client_id,
        service=service,
        version=version,
        daily=limit.daily,
        monthly=limit.monthly,
        daily_rungs=limit.daily_rungs,
        monthly_rungs=limit.monthly_rungs,
        reason=reason,
        schedule_id=schedule_id,
        passed=passed,
    )


def _schedule(
    state: Scope, now: datetime, command: ScheduleLimits | ScheduleAccountLimit, client_id: str, schedule_id: str
) -> tuple[LimitChangeScheduled, ScheduledView]:
    effective_at = _effective_at(state, now, command.effective_at)
    limit = limit_from(command)
    event = LimitChangeScheduled(
        account=command.account,
        client_id=client_id,
        service=command.service,
        schedule_id=schedule_id,
        effective_at=effective_at,
        requested_by=command.actor,
        daily=limit.daily,
        monthly=limit.monthly,
        daily_rungs=limit.daily_rungs,
        monthly_rungs=limit.monthly_rungs,
        reason=command.reason,
    )
    waits = scheduled_view(limit, schedule_id, effective_at, command.reason, command.actor, now)
    return event, waits


def scheduled_view(
    limit: Limit, schedule_id: str, effective_at: datetime, reason: str, requested_by: str, requested_at: datetime
) -> ScheduledView:
    """A waiting change as it is shown."""
    return ScheduledView(
        **amounts_of(limit),
        schedule_id=schedule_id,
        effective_at=effective_at,
        reason=reason,
        requested_by=requested_by,
        requested_at=requested_at,
    )


def amounts_of(limit: Limit) -> Mapping[str, object]:
    """The fields of Amounts."""
    return dict(zip(("daily", "monthly", "daily_thresholds", "monthly_thresholds"), limit, strict=True))


def _added(waiting: Sequence[ScheduledView], one: ScheduledView) -> tuple[ScheduledView, ...]:
    return tuple(sorted((*waiting, one), key=lambda view: view.effective_at))


# -- what a command must keep to


def _check_app(facts: AppFacts, client_id: str, service: str, services: Collection[str]) -> None:
    if facts.selected is None:
        raise no_app(client_id)
    check_selected(facts.selected, service, services)


def _check_account(facts: AccountFacts, command: Command, service: str, services: Collection[str]) -> None:
    if not facts.opened:
        raise NotFound(f"The account {command.account} is not open.")
    if not facts.view.version:  # what was limited once may be changed, even when the catalog has dropped it
        check_service(service, services)


def no_app(client_id: str) -> NotFound:
    """What is said about an application that is not there, and about another account's."""
    return NotFound(f"There is no application {client_id}.")


def check_selected(selected: Collection[str], service: str, services: Collection[str]) -> None:
    """Raises InvalidInput unless the application has selected the service."""
    if service in selected:
        return
    check_service(service, services)
    raise _invalid("service", f"the application has not selected {service}", "Select it for the application first.")


def check_service(service: str, services: Collection[str]) -> None:
    """Raises InvalidInput unless the catalog has the service."""
    if service not in services:
        raise _invalid("service", f"there is no service {service}", f"Give one of: {', '.join(sorted(services))}.")


def _check_version(state: Scope, expected: int | None) -> None:
    if expected is not None and expected != state.version:
        raise Conflict(f"The limit is at version {state.version}, not {expected}: read it again and decide anew.")


def _effective_at(state: Scope, now: datetime, wished: datetime) -> datetime:
    """In UTC. Raises InvalidInput."""
    if wished.tzinfo is None:
        raise _invalid("effective_at", "it has no offset from UTC", "Give one, as in 2026-01-31T09:00:00Z.")
    if wished <= now:
        raise _invalid("effective_at", "it is not in the future", "Set the limits now instead, or give a later instant.")
    if wished - now > AHEAD_MAX:
        raise _invalid("effective_at", f"it is more than {AHEAD_MAX.days} days away", "Give an earlier instant.")
    if len(state.waiting) >= SCHEDULED_MAX:
        problem = f"{SCHEDULED_MAX} changes of this limit wait already"
        raise _invalid("effective_at", problem, "Cancel one of them first.")
    return wished.astimezone(UTC)


def _invalid(field: str, problem: str, hint: str) -> InvalidInput:
    return InvalidInput("The request breaks the rules named in `fields`.", [FieldProblem(field, problem, hint)])
