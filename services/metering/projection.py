"""Events of metering's own log as changes of its tables, and of the keys of KV buckets that show them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from services.metering.dashboard import BUCKET, LIMITS_BUCKET, key_of, limits_key
from shared.eventlog.changes import Change, Idempotent, insert
from shared.events.metering import (
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
from shared.streams.marks import mark_dirty

if TYPE_CHECKING:
    from datetime import datetime

    from shared.eventlog.log import Placed

TABLES: Final = ("app_limit", "account_limit", "limit_schedule", "told", "dead_letter_settled")
"""What a rebuild empties first."""
LETTER: Final[dict[Period, str]] = {"daily": "d", "monthly": "m"}

_SET: Final = """
    INSERT INTO app_limit (client_id, service, account, version, daily, monthly, daily_rungs, monthly_rungs, changed_at)
    SELECT client_id, service, account, version, daily, monthly, daily_rungs::int[], monthly_rungs::int[], at
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
        $9::timestamptz[]) AS n(client_id, service, account, version, daily, monthly, daily_rungs, monthly_rungs, at)
    ON CONFLICT (client_id, service) DO UPDATE SET version = excluded.version, daily = excluded.daily, monthly = excluded.monthly,
        daily_rungs = excluded.daily_rungs, monthly_rungs = excluded.monthly_rungs, changed_at = excluded.changed_at
"""
_SET_ACCOUNT: Final = """
    INSERT INTO account_limit (account, service, version, monthly, monthly_rungs, changed_at)
    SELECT account, service, version, monthly, monthly_rungs::int[], at
    FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::text[], $6::timestamptz[])
        AS n(account, service, version, monthly, monthly_rungs, at)
    ON CONFLICT (account, service) DO UPDATE SET version = excluded.version, monthly = excluded.monthly,
        monthly_rungs = excluded.monthly_rungs, changed_at = excluded.changed_at
"""
_SCHEDULE: Final = """
    INSERT INTO limit_schedule (schedule_id, account, client_id, service, effective_at, daily, monthly, daily_rungs,
        monthly_rungs, reason, requested_by, requested_at)
    SELECT schedule_id, account, client_id, service, effective_at, daily, monthly, daily_rungs::int[], monthly_rungs::int[],
        reason, requested_by, at
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[], $7::bigint[], $8::text[],
        $9::text[], $10::text[], $11::text[], $12::timestamptz[]) AS n(schedule_id, account, client_id, service, effective_at,
        daily, monthly, daily_rungs, monthly_rungs, reason, requested_by, at)
"""
_UNSCHEDULE: Final = "DELETE FROM limit_schedule WHERE schedule_id = ANY($1::text[])"
_TELL: Final = """
    INSERT INTO told AS t (account, client_id, service, period, window_start, version, percent, exhausted)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::int[], $7::int[], $8::bool[])
    ON CONFLICT (account, client_id, service, period, window_start, version) DO UPDATE
    SET percent = greatest(t.percent, excluded.percent), exhausted = t.exhausted OR excluded.exhausted
"""
_MARK: Final = Idempotent(
    "limit_mark",
    """
    INSERT INTO limit_mark (account, client_id, service, period, window_start)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
        AS m(account, client_id, service, period, window_start)
    ORDER BY client_id = '', client_id, service, period, window_start, account
    ON CONFLICT (account, client_id, service, period, window_start) DO UPDATE SET marked_by = pg_current_xact_id()
    """,
)
_SETTLE: Final = insert(
    "dead_letter_settled",
    {"sequence": "bigint", "state": "text", "note": "text", "settled_by": "text", "settled_at": "timestamptz"},
)
# All of them take arrays: many scopes at once (see Change).


def project(recorded: Placed, event: MeteringEvent) -> list[Change]:
    """The changes that `event` makes."""
    at = recorded.recorded_at
    match event:
        case LimitChanged():
            scope = _Scope(event.account, event.client_id, event.service)
            rungs = _ints(event.daily_rungs), _ints(event.monthly_rungs)
            row = (event.client_id, event.service, event.account, event.version, event.daily, event.monthly, *rungs, at)
            changed = scope.change(_SET, *row)
            shown = mark_dirty(BUCKET, key_of(event.account, event.client_id, event.service))
            return [changed, *scope.took_effect(event.schedule_id), shown, *scope.begins(event.version, event.passed)]
        case AccountLimitChanged():
            scope = _Scope(event.account, "", event.service)
            rung_list = _ints(event.monthly_rungs)
            changed = scope.change(_SET_ACCOUNT, event.account, event.service, event.version, event.monthly, rung_list, at)
            return [changed, *scope.took_effect(event.schedule_id), *scope.begins(event.version, event.passed)]
        case LimitChangeScheduled():
            scope = _Scope(event.account, event.client_id, event.service)
            return [_scheduled(event, at), scope.shown()]
        case LimitChangeCancelled():
            scope = _Scope(event.account, event.client_id, event.service)
            return [_unscheduled(event.schedule_id), scope.shown()]
        case ThresholdCrossed():
            scope = _Scope(event.account, event.client_id, event.service)
            return [scope.told(event.period, event.window_start, event.limit_version, event.percent, exhausted=False)]
        case QuotaExhausted():
            scope = _Scope(event.account, event.client_id, event.service)
            return [scope.told(event.period, event.window_start, event.limit_version, 0, exhausted=True)]
        case DeadLetterRetried():
            return [Change(_SETTLE, (event.letter, "retried", event.note, event.settled_by, at), f"letter/{event.letter}")]
        case DeadLetterDiscarded():
            return [Change(_SETTLE, (event.letter, "discarded", event.note, event.settled_by, at), f"letter/{event.letter}")]
        case _:
            assert_never(event)


class _Scope:
    """The changes that are about one scope."""

    def __init__(self, account: str, client_id: str, service: str) -> None:
        self._scope = (account, client_id, service)
        self._name = "/".join(self._scope)

    def change(self, statement: str, *args: object) -> Change:
        return Change(statement, args, self._name)

    def shown(self) -> Change:
        return mark_dirty(LIMITS_BUCKET, limits_key(*self._scope))

    def took_effect(self, schedule_id: str) -> list[Change]:
        return [_unscheduled(schedule_id)] if schedule_id else []

    def begins(self, version: int, passed: tuple[Passed, ...]) -> list[Change]:
        """What a new version begins with. Keys before marks, as counting does: nobody waits for each other in a circle."""
        told = [self.told(one.period, one.window_start, version, one.percent, exhausted=False) for one in passed]
        marks = [self._of_window(_MARK, one.period, one.window_start) for one in passed]
        return [self.shown(), *told, *marks]

    def told(self, period: Period, window_start: datetime, version: int, percent: int, *, exhausted: bool) -> Change:
        return self._of_window(_TELL, period, window_start, version, percent, exhausted)

    def _of_window(self, statement: str, period: Period, window_start: datetime, *args: object) -> Change:
        about = f"{self._name}/{period}/{window_start.isoformat()}"
        return Change(statement, (*self._scope, LETTER[period], window_start, *args), about)


def _scheduled(event: LimitChangeScheduled, at: datetime) -> Change:
    row = (
        event.schedule_id,
        event.account,
        event.client_id,
        event.service,
        event.effective_at,
        event.daily,
        event.monthly,
        _ints(event.daily_rungs),
        _ints(event.monthly_rungs),
        event.reason,
        event.requested_by,
        at,
    )
    return Change(_SCHEDULE, row, event.schedule_id)


def _unscheduled(schedule_id: str) -> Change:
    return Change(_UNSCHEDULE, (schedule_id,), schedule_id)


def _ints(numbers: tuple[int, ...]) -> str:
    """As the text of an array, because an array of arrays would be taken apart."""
    return "{" + ",".join(map(str, numbers)) + "}"
