"""What the wishes of one request get, from what the rows of one snapshot say. Pure.

Later wishes of a request see what earlier ones got: `Book` adds it to what the rows say is outstanding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from services.metering import quota
from services.metering.quota import Constraint, Shortage
from shared.commands.quota import Answer, Leased, Short, Undecided, Unlimited, Whose, Wish
from shared.events.metering import Period
from shared.windows import Window

AHEAD_MAX: Final = timedelta(minutes=5)
"""How far a gate's civil time may be from metering's."""
_DAILY: Final[Period] = "daily"
_MONTHLY: Final[Period] = "monthly"


class Scope(NamedTuple):
    """What a limit is on; client_id "" for the account's own."""

    account: str
    client_id: str
    service: str


class Sum(NamedTuple):
    """Units of one window: what is counted, and what open leases may still bring."""

    counted: int
    outstanding: int


class Facts(NamedTuple):
    """What one snapshot says of a wish's application and service.

    `daily`, `monthly` and `account_monthly` are the limits (None: none). `others`: publishers that spend from leases now, besides
    the asker. `held`: units of the lease that the wish names, if it may be extended.
    """

    account: str
    deleted: bool
    selected: bool
    in_test: bool
    version: int
    daily: int | None
    monthly: int | None
    account_version: int
    account_monthly: int | None
    day: Sum
    month: Sum
    account_month: Sum
    others: int
    held: int | None


class SetAside(msgspec.Struct):
    """Units that the request adds to a lease. `before`: what the lease had; 0 for a new one."""

    scope: Scope
    lease: str
    day: Window
    month: Window
    before: int
    added: int = 0


class Terms(NamedTuple):
    """What leases are given on: their length and margin in seconds, and the test quota of each service of the catalog."""

    lease_s: float
    margin_s: float
    test_quotas: Mapping[str, int | None]


def unanswerable(wish: Wish, now: datetime, services: Container[str]) -> str:
    """Why a wish cannot be looked at, "" if it can."""
    if wish.service not in services:
        return f"the service {wish.service} is not in the catalog"
    if abs(wish.at - now) > AHEAD_MAX:
        return f"the gate's clock says {wish.at.isoformat()}, metering's {now.isoformat()}"
    return ""


class Book:
    """The answers of one request. `set_aside` are the units granted, `exhausted` and `recalls` the shortages for good and those
    that others can end."""

    def __init__(self, terms: Terms, new_lease: Callable[[], str], *, trusted: bool) -> None:
        self.set_aside: dict[tuple[str, str, datetime], SetAside] = {}
        self.exhausted: list[tuple[Scope, Constraint]] = []
        self.recalls: set[Scope] = set()
        self._terms = terms
        self._new_lease = new_lease
        self._trusted = trusted
        self._granted: Counter[tuple[Scope, Period, datetime]] = Counter()

    def answer(self, wish: Wish, day: Window, month: Window, facts: Facts) -> Answer:
        """Grant what may be granted. `day` and `month` are the account's windows at `wish.at`."""
        if facts.deleted:
            return Undecided(f"the application {wish.client_id} was deleted")
        if not facts.selected:
            return Undecided(f"the application {wish.client_id} has not selected {wish.service}")
        constraints = self._constraints(wish, day, month, facts)
        if not constraints:
            return Unlimited()
        if not self._trusted:
            return Undecided("counting is not up to date")
        decision = quota.grant(constraints, wish.wanted, wish.needed, facts.others + 1)
        if isinstance(decision, Shortage):
            return self._short(wish, facts, decision)
        one = self._lease(wish, day, month, facts)
        one.added += decision.units
        self._granted[one.scope, "daily", day.start] += decision.units
        self._granted[one.scope, "monthly", month.start] += decision.units
        self._granted[one.scope._replace(client_id=""), "monthly", month.start] += decision.units
        return Leased(
            one.lease, one.before + one.added, decision.units, self._terms.lease_s, self._terms.margin_s, day.start, day.end,
            decision.remaining,
        )  # fmt: skip

    def _constraints(self, wish: Wish, day: Window, month: Window, facts: Facts) -> list[Constraint]:
        own = Scope(facts.account, wish.client_id, wish.service)
        test_quota = self._terms.test_quotas.get(wish.service) if facts.in_test else None
        found: list[Constraint] = []
        for scope, period, version, limit, used, window in (
            (own, _DAILY, facts.version, facts.daily, facts.day, day),
            (own, _MONTHLY, facts.version, facts.monthly, facts.month, month),
            (own, _MONTHLY, 0, test_quota, facts.month, month),
            (own._replace(client_id=""), _MONTHLY, facts.account_version, facts.account_monthly, facts.account_month, month),
        ):
            if limit is not None:
                outstanding = used.outstanding + self._granted[scope, period, window.start]
                found.append(Constraint(scope.client_id, period, version, limit, used.counted, outstanding, *window))
        return found

    def _short(self, wish: Wish, facts: Facts, shortage: Shortage) -> Short:
        limit = shortage.constraint
        scope = Scope(facts.account, limit.client_id, wish.service)
        if shortage.recallable:
            self.recalls.add(scope)
        elif wish.needed <= max(
            1, limit.limit
        ):  # what is above the whole limit would never pass: that says nothing of what is left
            self.exhausted.append((scope, limit))
        whose: Whose = "account" if not limit.client_id else "application" if limit.version else "test"
        return Short(limit.period, limit.limit, limit.counted, limit.resets_at, limit.available, shortage.recallable, whose)

    def _lease(self, wish: Wish, day: Window, month: Window, facts: Facts) -> SetAside:
        """The lease that the units come to: one that an earlier wish got, the one that the wish names, or a new one."""
        key = (wish.client_id, wish.service, day.start)
        if key not in self.set_aside:
            scope = Scope(facts.account, wish.client_id, wish.service)
            lease = self._new_lease() if facts.held is None else wish.lease
            self.set_aside[key] = SetAside(scope, lease, day, month, facts.held or 0)
        return self.set_aside[key]
