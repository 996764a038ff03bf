"""What other services' events are told as, and to whom: events and rules in, requests out. Pure.

A request's id follows from what happened, the contact and the method. So whatever is heard of twice is asked for once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from services.alerts.holding import FULL, Wishes, due_at, is_urgent
from services.alerts.requests import request_id
from shared.events.alerts import (
    AboutReview,
    Crossed,
    Deleted,
    Method,
    NotificationRequested,
    Reissued,
    rungs_of,
    told_to_reviewers,
)
from shared.events.metering import MeteringEvent, Period, QuotaExhausted, ThresholdCrossed
from shared.events.registry import AppDeleted, RegistryEvent, SecretReissued

if TYPE_CHECKING:
    from shared.events.alerts import About

STALE: Final = timedelta(days=1)
"""What is older when it is heard of is not told: a stream that is read again from its beginning is full of it."""

Scope: TypeAlias = tuple[str, str, str]
"""(account, client_id, service), as in a rule."""


class Cause(NamedTuple):
    """Something to tell. `name` is the same whenever it is heard of; `heard_as`: which event said so.

    `account` is whose contacts are told: the application's, or that of the reviewers.
    """

    name: str
    account: str
    client_id: str
    service: str
    about: About
    heard_as: str


class Rule(NamedTuple):
    """The percentages that a scope tells, by period."""

    daily: tuple[int, ...]
    monthly: tuple[int, ...]

    def tells(self, crossed: Crossed) -> bool:
        """Whether that is one of them. The end of a limit is told by every rule that tells anything of its period."""
        rungs = self.daily if crossed.period == "daily" else self.monthly
        return bool(rungs) if crossed.exhausted else crossed.percent in rungs


class Reached(NamedTuple):
    """A contact that can be told by a method, and how it wants it."""

    contact_id: str
    method: Method
    wishes: Wishes


class Audience(NamedTuple):
    """Whom the rules of some applications name and who can be reached, each once; and what the applications are called.

    `everybody`: by account, whoever can be reached, for accounts that a review concerns.
    """

    rules: Mapping[Scope, Rule]
    reached: Mapping[Scope, Sequence[Reached]]
    names: Mapping[str, str]
    everybody: Mapping[str, Sequence[Reached]]

    def of(self, cause: Cause) -> Iterator[Reached]:
        """Who is told of it. What no rule of its own service tells anybody is told to all that the application's rules name.

        What happens in a review is told without any rule too, to the whole account: a decision gets lost to nobody.
        """
        scope = (cause.account, cause.client_id, cause.service)
        if told_to_reviewers(cause.about):
            yield from self.everybody.get(cause.account, ())
        elif isinstance(cause.about, Crossed):
            rule = self.rules.get(scope)
            if rule is not None and rule.tells(cause.about):
                yield from self.reached.get(scope, ())
        elif self.reached.get(scope):
            yield from self.reached[scope]
        elif named := [one for rule in self.rules if rule[:2] == scope[:2] for one in self.reached.get(rule, ())]:
            yield from named
        elif isinstance(cause.about, AboutReview):
            yield from self.everybody.get(cause.account, ())


def rule_of(daily: int | None, monthly: int | None, daily_custom: Iterable[int], monthly_custom: Iterable[int]) -> Rule:
    """From thresholds and custom percentages."""
    return Rule(rungs_of(daily, daily_custom), rungs_of(monthly, monthly_custom))


def of_metering(event: MeteringEvent, now: datetime, heard_as: str) -> Cause | None:
    """What is to be told of it. Nothing of a window that ended long ago."""
    match event:
        case ThresholdCrossed():
            percent, exhausted = event.percent, False
        case QuotaExhausted():
            percent, exhausted = FULL, True
        case _:
            return None
    if event.window_end + STALE < now:
        return None
    about = Crossed(
        period=event.period,
        window_start=event.window_start,
        window_end=event.window_end,
        percent=percent,
        used=event.used,
        limit=event.limit,
        limit_version=event.limit_version,
        exhausted=exhausted,
    )
    scope = (event.account, event.client_id, event.service)
    return Cause(_crossing(scope, event.period, event.window_start, event.limit_version, percent), *scope, about, heard_as)


def _crossing(scope: Scope, period: Period, window_start: datetime, limit_version: int, percent: int) -> str:
    """100 % and the first refusal are the same thing to who is told: that the limit is used up."""
    return "/".join(("crossed", *scope, period, window_start.isoformat(), str(limit_version), str(percent)))


def of_registry(event: RegistryEvent, recorded_at: datetime, now: datetime, heard_as: str) -> Cause | None:
    """What is to be told of it: new secrets and deletions, if they are of today."""
    if recorded_at + STALE < now:
        return None
    match event:
        case SecretReissued():
            name, about = f"secret_reissued/{event.client_id}/{event.secret.secret_id}", _reissued(event, recorded_at)
            return Cause(name, event.account, event.client_id, "", about, heard_as)
        case AppDeleted():
            return Cause(f"app_deleted/{event.client_id}", event.account, event.client_id, "", Deleted(recorded_at), heard_as)
        case _:
            return None


def _reissued(event: SecretReissued, recorded_at: datetime) -> Reissued:
    return Reissued(recorded_at, event.previous_valid_until)


class Asked(NamedTuple):
    """A request, and which event it comes from."""

    request: NotificationRequested
    heard_as: str


def react(causes: Iterable[Cause], audience: Audience, now: datetime, keep_for: timedelta) -> list[Asked]:
    """The requests, each once: for every cause one for each contact and method. `keep_for`: how long it may take to deliver
    one, once it is due."""
    asked: dict[str, Asked] = {}
    for cause in causes:
        for contact_id, method, wishes in audience.of(cause):
            id_ = request_id(cause.name, contact_id, method)
            known = asked.get(id_)
            if known is not None:
                asked[id_] = Asked(_sharpened(known.request, cause.about), known.heard_as)
                continue
            due = due_at(now, wishes, urgent=is_urgent(cause.about))
            request = NotificationRequested(
                request_id=id_,
                account=cause.account,
                # To reviewers it is another account's, and none of those that they can look up as their own.
                client_id="" if told_to_reviewers(cause.about) else cause.client_id,
                service=cause.service,
                app_name=audience.names.get(cause.client_id, ""),
                contact_id=contact_id,
                method=method,
                about=cause.about,
                due_at=due,
                deadline=due + keep_for,
            )
            asked[id_] = Asked(request, cause.heard_as)
    return list(asked.values())


def _sharpened(request: NotificationRequested, about: About) -> NotificationRequested:
    """With what is known better now: of a limit that is used up, that calls are being refused."""
    if isinstance(about, Crossed) and about.exhausted:
        return msgspec.structs.replace(request, about=about)
    return request
