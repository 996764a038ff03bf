"""How gates get quota leases from metering: request/reply on SUBJECT, and RECALL_SUBJECT, on which metering asks for leases back.

Between machines, so the bodies are JSON of msgspec Structs; a request that cannot be read is answered with an error header as
every refused command. docs/decisions/0013 says what it is for.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from shared.events.metering import Period

SUBJECT: Final = "metering.commands.LeaseQuota"
RECALL_SUBJECT: Final = "metering.recall"
"""Core NATS, no answer, may be lost: leases end by themselves."""
WISHES_MAX: Final = 500
"""Wishes, and returns, in one request, at most."""

Whose = Literal["application", "account", "test"]
"""Whose limit it is: the application's, its account's, or the test quota of the catalog."""


class Wish(msgspec.Struct, frozen=True, gc=False):
    """Units for one application at one service.

    `wanted` is what would be good to have for the next two seconds, `needed` the least that is of use: what the first waiting
    call needs (1 when none waits). `at` is the gate's civil time: its day is the lease's. `lease` is the one to be extended, ""
    for a new one.
    """

    client_id: str
    service: str
    wanted: Annotated[int, msgspec.Meta(ge=1)]
    needed: Annotated[int, msgspec.Meta(ge=1)]
    at: datetime
    lease: str = ""


class Returned(msgspec.Struct, frozen=True, gc=False):
    """A lease that the gate spends no more from. `spent`: all that was ever taken from it, also for records that are still on
    their way."""

    lease: str
    spent: int


class LeaseQuota(msgspec.Struct, frozen=True, kw_only=True):
    """One gate's request. `publisher` is the name under which it publishes usage, `partition` where to.

    What is returned is there for the wishes of the same request; returning a lease again changes nothing. Every wish is
    answered, in the same order.
    """

    publisher: str
    partition: int
    wishes: Annotated[tuple[Wish, ...], msgspec.Meta(max_length=WISHES_MAX)] = ()
    returned: Annotated[tuple[Returned, ...], msgspec.Meta(max_length=WISHES_MAX)] = ()


class Leased(msgspec.Struct, frozen=True, gc=False, tag="leased"):
    """Units set aside. `units` is all that `lease` was ever granted, this time included; `added` what came now.

    Valid for `lease_s` from when the gate sent the request, less `margin_s`, and only for calls in [`day_start`, `day_end`).
    `remaining`: what is left for anyone, of the tightest limit, besides all leases.
    """

    lease: str
    units: int
    added: int
    lease_s: float
    margin_s: float
    day_start: datetime
    day_end: datetime
    remaining: int


class Short(msgspec.Struct, frozen=True, gc=False, tag="short"):
    """Not enough for `needed`; up to `available` units could be had.

    `whose` is the limit that is in the way: the application's, its account's, or the catalog's test quota; `limit`, `used`,
    `resets_at` and `period` are of that one too. `recallable`: units that others hold were asked back; asking again in a moment
    may help.
    """

    period: Period
    limit: int
    used: int
    resets_at: datetime
    available: int
    recallable: bool
    whose: Whose = "application"


class Unlimited(msgspec.Struct, frozen=True, gc=False, tag="unlimited"):
    """No limit applies (any more): no lease is needed."""


class Undecided(msgspec.Struct, frozen=True, gc=False, tag="undecided"):
    """Cannot be decided now, with the reason: counting is not up to date, or the application is not known here yet."""

    reason: str


Answer = Leased | Short | Unlimited | Undecided


class QuotaLeases(msgspec.Struct, frozen=True, kw_only=True):
    """The reply: an answer for each wish."""

    answers: tuple[Answer, ...] = ()


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever holds unspent units of this scope should return them now. client_id "": of all the account's applications at the
    service."""

    account: str
    client_id: str
    service: str
