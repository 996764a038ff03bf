"""Limits that customers set for themselves, as metering takes and tells them. Subjects metering.commands.<Name>,
metering.queries.<Name>.

A limit is on a *scope*: one application at one service (daily and monthly), or the whole account at one service, over all of its
applications (monthly). Amounts are in the service's unit; None is no limit, 0 blocks.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from shared.commands.base import Command, Message, Query, Reply, whole
from shared.commands.metering import ClientId, ServiceId
from shared.events.metering import RUNGS

LIMIT_MAX: Final = 1_000_000_000_000_000
"""Units in a limit, at most: a thousand calls of the largest quantity a second, for a day."""
RUNGS_MAX: Final = 20
VERSION_MAX: Final = 2**31 - 1
REASON_MAX: Final = 200
SCHEDULED_MAX: Final = 20
"""Changes of one scope that can wait at once."""
PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 20

_NUMBER: Final = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", re.IGNORECASE)


def _rungs(entered: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(entered)) != len(entered):
        raise PydanticCustomError("rung_repeated", "A percentage is there twice.", {"hint": "Name each once."})
    return tuple(sorted(entered))


def _no_number(entered: Any) -> Any:
    """A number would be taken for seconds since 1970."""
    if isinstance(entered, str | datetime) and not (isinstance(entered, str) and _NUMBER.fullmatch(entered.strip())):
        return entered
    raise PydanticCustomError("instant", "This is not an instant.", {"hint": "Give it with its offset: 2026-01-31T09:00:00Z."})


Amount = Annotated[int, Field(ge=0, le=LIMIT_MAX, strict=True), BeforeValidator(whole)]
Percent = Annotated[int, Field(ge=1, le=100, strict=True), BeforeValidator(whole)]
Rungs = Annotated[
    tuple[Percent, ...],
    Field(min_length=1, max_length=RUNGS_MAX, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_rungs),
]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=REASON_MAX, pattern=r"^[^\x00-\x1f\x7f]*$")]
Version = Annotated[int, Field(ge=0, le=VERSION_MAX, strict=True), BeforeValidator(whole)]
Instant = Annotated[datetime, BeforeValidator(_no_number)]


class Amounts(Message):
    """The limits of an application at a service, whole: what is left out is no limit.

    `daily_thresholds` and `monthly_thresholds` are the percentages at which ThresholdCrossed is told.
    """

    daily: Amount | None = None
    monthly: Amount | None = None
    daily_thresholds: Rungs = RUNGS
    monthly_thresholds: Rungs = RUNGS

    @model_validator(mode="after")
    def _daily_fits_into_monthly(self) -> Self:
        if self.daily is not None and self.monthly is not None and self.daily > self.monthly:
            raise PydanticCustomError(
                "daily_above_monthly",
                "`daily` ({daily}) is above `monthly` ({monthly}).",
                {
                    "daily": self.daily,
                    "monthly": self.monthly,
                    "hint": "Lower `daily`, or raise `monthly`.",
                    "fields": ["daily", "monthly"],
                },
            )
        return self


class AccountAmount(Message):
    """The account's limit at a service over all of its applications."""

    monthly: Amount | None = None
    monthly_thresholds: Rungs = RUNGS


class SetLimits(Command, Amounts):
    """Set, change or remove the limits of an application at a service.

    `expected_version`: the version that the wish was made on (0: none was set yet); another one by now is a Conflict. None:
    whatever it is. Refused with NotFound (no such application) and InvalidInput (it has not selected the service).
    """

    client_id: ClientId
    service: ServiceId
    expected_version: Version | None = None
    reason: Reason = ""


class SetAccountLimit(Command, AccountAmount):
    """Set, change or remove the account's limit at a service."""

    service: ServiceId
    expected_version: Version | None = None
    reason: Reason = ""


class ScheduleLimits(Command, Amounts):
    """Have the limits become these at `effective_at`, which is in the future, at most a year away. -> LimitsView"""

    client_id: ClientId
    service: ServiceId
    effective_at: Instant
    reason: Reason = ""


class ScheduleAccountLimit(Command, AccountAmount):
    """Have the account's limit become this at `effective_at`, which is in the future, at most a year away. -> AccountLimitView"""

    service: ServiceId
    effective_at: Instant
    reason: Reason = ""


class CancelSchedule(Command):
    """Take a scheduled change back before it takes effect. `client_id` None: one of the account's own limit.

    Cancelled already: nothing changes. Refused with NotFound, and with Conflict when it has taken effect.
    """

    client_id: ClientId | None = None
    service: ServiceId
    schedule_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class ScheduledView(Reply, Amounts):
    """A change that waits. `daily` is None for an account's limit."""

    schedule_id: str
    effective_at: datetime
    reason: str
    requested_by: str
    requested_at: datetime


class LimitsView(Reply, Amounts):
    """The limits of an application at a service. `version` 0: none was ever set.

    `test_quota` is the catalog's monthly limit while the service waits for its review; the lower of it and `monthly` holds.
    """

    client_id: str
    service: str
    version: int
    changed_at: datetime | None
    test_quota: int | None = None
    scheduled: tuple[ScheduledView, ...] = ()


class AccountLimitView(Reply, AccountAmount):
    """The account's limit at a service. `version` 0: none was ever set."""

    service: str
    version: int
    changed_at: datetime | None
    scheduled: tuple[ScheduledView, ...] = ()


class ScheduleCancelled(Reply):
    schedule_id: str


class GetLimits(Query):
    """The limits of an application at a service. Refused with NotFound and InvalidInput as SetLimits."""

    client_id: ClientId
    service: ServiceId


class GetAccountLimit(Query):
    """The account's limit at a service. Refused with InvalidInput when the catalog has no such service."""

    service: ServiceId


class ListLimitChanges(Query):
    """The changes of a scope's limits, the newest first. `client_id` None: of the account's own limit. `before`: the version to
    go on below."""

    client_id: ClientId | None = None
    service: ServiceId
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    before: Version | None = None


class LimitChange(Reply):
    """One change: who (an id), when, from what, to what, why. `old` is None for the first one."""

    version: int
    changed_at: datetime
    changed_by: str
    old: dict[str, Any] | None
    new: dict[str, Any]
    reason: str
    schedule_id: str | None = None


class LimitChanges(Reply):
    """One page. `next_before` is what to ask on with; None: this was the last."""

    changes: tuple[LimitChange, ...]
    next_before: int | None
