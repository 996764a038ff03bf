"""The quota leases that this gate holds, and how calls spend them. Pure: times come in, requests and answers go out and come in.

`now_s` is always the interval timer, `now_us` the civil time in microseconds since 1970 UTC. Invariants: docs/decisions/0013.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple, assert_never

import msgspec

from shared.commands.quota import WISHES_MAX, Answer, Leased, Returned, Short, Undecided, Unlimited, Wish
from shared.windows import from_us, to_us

AHEAD_S: Final = 1.0
"""For how long at the recent rate a grant is to last: a busy application costs about two requests a second."""
LOW: Final = 0.5
"""Asked again when less than this part of AHEAD_S is left."""
RENEW: Final = 0.5
"""Asked again when less than this part of the lease's time is left, if it was used lately."""
IDLE_S: Final = 2.0
"""A lease that nobody spent from for so long is returned."""
RATE_HALF_LIFE_S: Final = 1.0
REFUSED_S: Final = 0.25
"""How long an answer that there is not enough stands before metering is asked again."""

Key = tuple[str, str]
"""(client_id, service)"""


def may_spend(now_s: float, asked_s: float, lease_s: float, margin_s: float) -> bool:
    """Whether a gate may let a call pass at `now_s`: for a lease that it asked for, or last extended, at `asked_s`; both by the
    gate's interval timer. Asked when the units are taken, and again when the record is acknowledged."""
    return now_s < asked_s + lease_s - margin_s


class Taken(NamedTuple):
    """Units were taken from `lease`. `remaining`: what is left, as far as this gate knows."""

    lease: str
    remaining: int


class Held(msgspec.Struct):
    """A lease as this gate holds it. Mutable: `spent` grows with each call."""

    key: Key
    lease: str
    units: int
    asked_s: float
    lease_s: float
    margin_s: float
    day_start_us: int
    day_end_us: int
    elsewhere: int
    used_s: float
    spent: int = 0

    @property
    def left(self) -> int:
        return self.units - self.spent

    def alive(self, now_s: float) -> bool:
        return may_spend(now_s, self.asked_s, self.lease_s, self.margin_s)

    def covers(self, now_s: float, now_us: int) -> bool:
        """Whether a call at this moment may be spent from it."""
        return self.day_start_us <= now_us < self.day_end_us and self.alive(now_s)


class _Demand(msgspec.Struct):
    """What is known of one application at one service: the lease, how fast it is spent, and what was answered last."""

    held: Held | None = None
    rate: float = 0.0
    rate_at_s: float = 0.0
    refusal: Short | Undecided | None = None
    refused_s: float = -math.inf

    def spend(self, quantity: int, now_s: float) -> None:
        """Note units for the rate: units a second, of which half is forgotten every RATE_HALF_LIFE_S."""
        self.rate = self.rate_now(now_s) + quantity * math.log(2) / RATE_HALF_LIFE_S
        self.rate_at_s = now_s

    def rate_now(self, now_s: float) -> float:
        return self.rate * math.exp2((self.rate_at_s - now_s) / RATE_HALF_LIFE_S)


class Leases:
    """All leases of this gate. One request is under way at a time; whoever sends it tells when (`asked_s`), and what came
    back."""

    def __init__(self) -> None:
        self._demands: dict[Key, _Demand] = {}
        self._known: dict[str, Held] = {}
        self._due: set[Key] = set()
        self._returning: dict[str, Held] = {}

    def held_units(self) -> int:
        """Units that are set aside for this gate and not spent."""
        return sum(demand.held.left for demand in self._demands.values() if demand.held is not None)

    def take(self, key: Key, quantity: int, now_s: float, now_us: int) -> Taken | Short | Undecided | None:
        """Take `quantity` units whole; None: metering has to be asked first, with this call waiting."""
        demand = self._demands.get(key)
        if demand is None:
            demand = self._demands[key] = _Demand(rate_at_s=now_s)
        held = demand.held
        if held is not None and held.left >= quantity and held.covers(now_s, now_us):
            held.spent += quantity
            held.used_s = now_s
            demand.spend(quantity, now_s)
            if held.left < LOW * AHEAD_S * demand.rate or now_s > held.asked_s + RENEW * held.lease_s:
                self._due.add(key)
            return Taken(held.lease, held.left + held.elsewhere)
        refusal = demand.refusal
        if refusal is not None and now_s < demand.refused_s + REFUSED_S and not _may_do(refusal, quantity):
            return refusal
        return None

    def still_good(self, lease: str, now_s: float) -> bool:
        """Whether a call whose units are of `lease` may pass, now that its record is acknowledged."""
        held = self._known.get(lease)
        return held is not None and held.alive(now_s)

    # -- asking

    def due(self) -> bool:
        """Whether there is something to ask for, or to return, besides what calls wait for."""
        return bool(self._due or self._returning)

    def wishes(self, waiting: Mapping[Key, int], now_s: float, now_us: int) -> list[Wish]:
        """What to ask for now: for the applications whose calls wait (with the quantity of the first one), and for those whose
        lease runs low. At most WISHES_MAX; the others have their turn with the next request."""
        keys = [*waiting, *(key for key in self._due if key not in waiting)][:WISHES_MAX]
        self._due.difference_update(keys)
        return [self._wish(key, waiting.get(key, 0), now_s, now_us) for key in keys]

    def _wish(self, key: Key, quantity: int, now_s: float, now_us: int) -> Wish:
        demand = self._demands.setdefault(key, _Demand(rate_at_s=now_s))
        held = demand.held
        if held is not None and not held.covers(now_s, now_us):
            self._give_up(demand)
            held = None
        left = 0 if held is None else held.left
        wanted = math.ceil(demand.rate_now(now_s) * AHEAD_S) - left
        needed = max(1, quantity - left)
        return Wish(key[0], key[1], max(needed, wanted), needed, from_us(now_us), "" if held is None else held.lease)

    def returns(self) -> list[Returned]:
        """The leases to return with the next request. They are told again until `returned` says that metering knows."""
        return [Returned(held.lease, held.spent) for held in islice(self._returning.values(), WISHES_MAX)]

    def returned(self, told: Iterable[Returned]) -> None:
        """Metering has taken these back."""
        for one in told:
            self._returning.pop(one.lease, None)

    def answered(self, wish: Wish, answer: Answer, asked_s: float) -> None:
        """What came back for a wish that was sent at `asked_s`."""
        key = (wish.client_id, wish.service)
        demand = self._demands.setdefault(key, _Demand(rate_at_s=asked_s))
        demand.refusal = None
        match answer:
            case Leased():
                self._leased(key, demand, answer, asked_s)
            case Unlimited():
                self._give_up(demand)
            case Short() | Undecided():
                demand.refusal, demand.refused_s = answer, asked_s
            case _:
                assert_never(answer)

    def _leased(self, key: Key, demand: _Demand, answer: Leased, asked_s: float) -> None:
        held = demand.held
        if held is not None and held.lease == answer.lease:
            held.units, held.asked_s, held.elsewhere = answer.units, asked_s, answer.remaining
            return
        self._give_up(demand)
        if answer.lease in self._known:  # it was given up while its extension was under way: what is left goes back
            return
        day_start_us, day_end_us = to_us(answer.day_start), to_us(answer.day_end)
        held = Held(
            key,
            answer.lease,
            answer.units,
            asked_s,
            answer.lease_s,
            answer.margin_s,
            day_start_us,
            day_end_us,
            answer.remaining,
            asked_s,
        )
        demand.held = self._known[answer.lease] = held

    # -- giving back

    def revoke(self, key: Key) -> None:
        """Spend no more of this application's lease, and return it: its limit has changed, it was deleted, or others need it."""
        demand = self._demands.get(key)
        if demand is not None:
            self._give_up(demand)
            demand.refusal = None

    def tidy(self, now_s: float, now_us: int) -> None:
        """Return what is idle or over, and forget what is long over. To be called every half second or so."""
        for key in [key for key, demand in self._demands.items() if self._is_idle(demand, now_s, now_us)]:
            self._give_up(self._demands.pop(key))
        for held in [held for held in self._known.values() if now_s > held.asked_s + held.lease_s + held.margin_s]:
            if held.lease not in self._returning:
                del self._known[held.lease]

    @staticmethod
    def _is_idle(demand: _Demand, now_s: float, now_us: int) -> bool:
        held = demand.held
        if held is None:
            return now_s > max(demand.refused_s, demand.rate_at_s) + IDLE_S
        return now_s > held.used_s + IDLE_S or not held.covers(now_s, now_us)

    def _give_up(self, demand: _Demand) -> None:
        if demand.held is not None:
            self._returning[demand.held.lease] = demand.held
            demand.held = None


def _may_do(refusal: Short | Undecided, quantity: int) -> bool:
    """Whether asking for another quantity than was refused makes sense."""
    return isinstance(refusal, Short) and quantity <= refusal.available
