"""What metering decided: limits, and that they were approached or reached. Stream METERING, subjects metering.events.<Type>."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

from shared.events.codec import Codec, Event

Period = Literal["daily", "monthly"]

RUNGS: Final = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
"""Percentages at which a crossing is told, unless the limit has its own."""


class Passed(msgspec.Struct, frozen=True, gc=False):
    """What a new version of a limit begins with in the window that is open: up to `percent` nothing is told again."""

    period: Period
    window_start: datetime
    percent: int


class LimitChanged(Event, frozen=True, kw_only=True):
    """The limits of an application at a service are now these, in the service's unit (None: no limit; 0: blocked).

    `version` is 1, 2, 3 ... for the scope. `reason` is what was given for it, "" for nothing. `schedule_id` names the scheduled
    change that this carries out, "" when somebody asked for it now.
    """

    account: str
    client_id: str
    service: str
    version: int
    daily: int | None
    monthly: int | None
    daily_rungs: tuple[int, ...] = RUNGS
    monthly_rungs: tuple[int, ...] = RUNGS
    reason: str = ""
    schedule_id: str = ""
    passed: tuple[Passed, ...] = ()


class AccountLimitChanged(Event, frozen=True, kw_only=True):
    """The account's monthly limit at a service, over all of its applications, is now this (None: no limit; 0: blocked)."""

    account: str
    service: str
    version: int
    monthly: int | None
    monthly_rungs: tuple[int, ...] = RUNGS
    reason: str = ""
    schedule_id: str = ""
    passed: tuple[Passed, ...] = ()


class LimitChangeScheduled(Event, frozen=True, kw_only=True):
    """The limits of an application (client_id "": of the account) at a service are to become these at `effective_at`.

    `requested_by` is the id of who asked: it becomes the actor of the change.
    """

    account: str
    client_id: str
    service: str
    schedule_id: str
    effective_at: datetime
    requested_by: str
    daily: int | None
    monthly: int | None
    daily_rungs: tuple[int, ...] = RUNGS
    monthly_rungs: tuple[int, ...] = RUNGS
    reason: str = ""


class LimitChangeCancelled(Event, frozen=True, kw_only=True):
    """That scheduled change will not take effect."""

    account: str
    client_id: str
    service: str
    schedule_id: str


class ThresholdCrossed(Event, frozen=True, kw_only=True):
    """Usage has come to `percent` of a limit in a window; once for each (scope, period, window, limit_version, percent).

    client_id "" speaks of the account's own limit. `used` is what was counted when that was seen; `window_end` excluded.
    """

    account: str
    client_id: str
    service: str
    period: Period
    window_start: datetime
    window_end: datetime
    percent: int
    used: int
    limit: int
    limit_version: int


class QuotaExhausted(Event, frozen=True, kw_only=True):
    """A call was refused for want of units; told at the first one, once for each (scope, period, window, limit_version).

    Some may be left if that call was of several. One that is above the whole limit would never pass, and is not told of.
    client_id "" speaks of the account's own limit; limit_version 0 of the catalog's test quota.
    """

    account: str
    client_id: str
    service: str
    period: Period
    window_start: datetime
    window_end: datetime
    used: int
    limit: int
    limit_version: int


class DeadLetterRetried(Event, frozen=True, kw_only=True):
    """What the dead letter with that sequence in DEADLETTER holds is to be sent again, says `settled_by` with that note."""

    letter: int
    note: str
    settled_by: str


class DeadLetterDiscarded(Event, frozen=True, kw_only=True):
    """Nothing is to be done about that dead letter."""

    letter: int
    note: str
    settled_by: str


MeteringEvent = (
    LimitChanged
    | AccountLimitChanged
    | LimitChangeScheduled
    | LimitChangeCancelled
    | ThresholdCrossed
    | QuotaExhausted
    | DeadLetterRetried
    | DeadLetterDiscarded
)

CODEC: Codec[MeteringEvent] = Codec("metering", MeteringEvent)
STREAM: Final = "METERING"
SUBJECTS: Final = "metering.events.>"
