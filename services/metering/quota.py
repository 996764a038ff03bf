"""The rules of limits and leases: how much may be granted, when a lease may be closed, which rungs are crossed. Pure; the
invariants that they uphold are in docs/decisions/0013. The service applies them to rows, the simulation to objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from shared.events.metering import Period

LEASE_S: Final = 10.0
"""How long a gate may spend from a lease after it asked for it, or for its last extension."""
MARGIN_S: Final = 1.0
"""Kept at the end of each lease by the gate, and once more by metering: more than two interval timers can drift apart in
LEASE_S."""


class Constraint(NamedTuple):
    """One limit that applies to a call, in the window that the call is in.

    `client_id` "" is the account's own limit; `version` 0 the catalog's test quota. `counted` and `outstanding` are what the rows
    of one snapshot say.
    """

    client_id: str
    period: Period
    version: int
    limit: int
    counted: int
    outstanding: int
    window_start: datetime
    resets_at: datetime

    @property
    def available(self) -> int:
        """Units that nobody has used and nobody has set aside; never below zero."""
        return max(0, self.limit - self.counted - self.outstanding)


class Grant(NamedTuple):
    """Units set aside, and how many are available to anyone after that."""

    units: int
    remaining: int


class Shortage(NamedTuple):
    """Not enough is available of `constraint`. `recallable`: others hold units that may come back."""

    constraint: Constraint
    recallable: bool


def grant(constraints: Sequence[Constraint], wanted: int, needed: int, gates: int) -> Grant | Shortage:
    """How many units one gate of `gates` that serve the application gets: `wanted` if there is plenty, at least `needed`, or
    none.

    `needed` is the quantity of the first call that waits, which is admitted whole or refused whole. `constraints`: at least one.
    """
    tightest = min(constraints, key=_by_tightness)
    if tightest.available < needed:
        return Shortage(tightest, recallable=tightest.limit - tightest.counted >= needed)
    share = tightest.available // (2 * max(1, gates))
    units = max(needed, min(wanted, share))
    return Grant(units, tightest.available - units)


def _by_tightness(constraint: Constraint) -> tuple[int, float]:
    """Of two that are equally used up, the one that resets later comes first: waiting for the other would not help."""
    return constraint.available, -constraint.resets_at.timestamp()


def outstanding(units: int, counted: int, stated: int | None) -> int:
    """What an open lease may still bring: of `units` granted, `counted` have come; `stated` is what the gate said it had spent
    when it returned the lease (None: it has not)."""
    return max(0, (units if stated is None else stated) - counted)


def may_look_for_end(held_s: float, lease_s: float = LEASE_S, margin_s: float = MARGIN_S) -> bool:
    """Whether a lease that metering has known for `held_s` (by its interval timer, since the grant or the last extension that it
    has seen) is over for certain, so that the end of the gate's partition, looked up after this, has all that can come from
    it."""
    return held_s >= lease_s + margin_s


def may_close(end: int | None, reached: int) -> bool:
    """Whether an expired lease may be closed: everything of the gate's partition up to `end`, which was looked up after the lease
    was over, is counted. `reached` is the checkpoint; `end` None: not looked up yet."""
    return end is not None and reached >= end


def crossed(units: int, limit: int, rungs: Iterable[int], told: int) -> list[int]:
    """The rungs (percentages of `limit`, above zero) that `units` has come to and that are above `told`, in ascending order."""
    return sorted(rung for rung in set(rungs) if rung > told and units * 100 >= rung * limit)


def passed(units: int, limit: int | None, told: int) -> int:
    """The percentage that a new limit begins with: what was told of the one before, as far as usage is still there."""
    if not limit:
        return 0
    return min(told, units * 100 // limit)
