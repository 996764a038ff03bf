"""The quota leases that this gate holds, and how calls spend them. Pure: times come in, requests and answers go out and come in.

`now_s` is always the interval timer, `now_us` the civil time in microseconds since 1970 UTC. Invariants: docs/decisions/0013.

No step looks at all applications: a call at its own, `tidy` at so many, one after the other.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple, assert_never

import msgspec

from shared.commands.quota import WISHES_MAX, Answer, Leased, Returned, Short, Undecided, Unlimited, Wish
from shared.windows import from_us, to_us

AHEAD_S: Final = 4.0
"""For how long at the recent rate a grant is to last: a busy application is asked for about once in three seconds."""
LOW_S: Final = 1.0
"""Asked again when what is left would not last for so long at the recent rate."""
RENEW: Final = 0.5
"""Asked again when less than this part of the lease's time is left, if it was used lately."""
ACK_S: Final = 0.25
"""Nothing is taken from a lease that ends before an acknowledgement can be expected: the call would be refused after all."""
IDLE_S: Final = 2.0
"""A lease that nobody spent from for so long is returned; an application that nobody called for so long is forgotten."""
RATE_HALF_LIFE_S: Final = 1.0
REFUSED_S: Final = 0.25
"""How long an answer that there is not enough stands before metering is asked again."""
HOPE_S: Final = 0.5
"""How long calls wait for units that were asked back from others, or for metering to know more, before that answer is theirs."""
AGAIN_S: Final = 0.05
"""How soon is asked again after such an answer."""
WANTED_MAX: Final = 10**12
"""More is never asked for at once, so that no sum of it comes near 64 bits."""
TIDY_MAX: Final = 2_000
"""Applications, and ended leases, that one `tidy` looks at."""

Key = tuple[str, str]
"""(client_id, service)"""
_RATE_OF_ONE: Final = math.log(2) / RATE_HALF_LIFE_S


def may_spend(now_s: float, asked_s: float, lease_s: float, margin_s: float) -> bool:
    """Whether a gate may let a call pass at `now_s`: for a lease that it asked for, or last extended, at `asked_s`; both by the
    gate's interval timer. Asked when the units are taken, and again when the record is acknowledged."""
    return now_s < asked_s + lease_s - margin_s


class Taken(NamedTuple):
    """Units were taken from `lease` for a call at `at_us`. `remaining`: what is left, as far as this gate knows."""

    lease: str
    remaining: int
    at_us: int


Verdict = Taken | Short | Undecided | Unlimited
"""What becomes of a call: units, a refusal, or that it needs none."""


class Waiting(NamedTuple):
    """Calls of an application that wait for units: the quantity of the first one, and of all together; whose it is."""

    first: int
    total: int
    account: str


class Held(msgspec.Struct):
    """A lease as this gate holds it. Mutable: `spent` grows with each call."""

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

    def over(self, now_s: float) -> bool:
        """Whether metering has seen its end too, or is about to: nothing is to be gained by returning it."""
        return not now_s <= self.asked_s + self.lease_s + self.margin_s

    def covers(self, now_s: float, now_us: int) -> bool:
        """Whether a call at this moment may be spent from it."""
        return self.day_start_us <= now_us < self.day_end_us and self.alive(now_s + ACK_S)


class _Demand(msgspec.Struct):
    """What is known of one application at one service: the lease, how fast it is spent, and what was answered last.

    The answer is what calls get from `from_s` to `until_s`; before, they wait (`hoping`), and metering is not asked again
    before `again_s`. What it was asked before `changed_s`, when a limit changed, says nothing any more.
    """

    key: Key
    account: str
    seen_s: float
    held: Held | None = None
    rate: float = 0.0
    rate_at_s: float = 0.0
    answer: Short | Undecided | Unlimited | None = None
    hoping: bool = False
    from_s: float = 0.0
    until_s: float = 0.0
    again_s: float = -math.inf
    changed_s: float = -math.inf

    def spend(self, held: Held, quantity: int, now_s: float) -> None:
        """Note the units; for the rate too: units a second, of which half is forgotten every RATE_HALF_LIFE_S."""
        held.spent += quantity
        held.used_s = now_s
        self.rate = self.rate_now(now_s) + quantity * _RATE_OF_ONE
        self.rate_at_s = now_s

    def rate_now(self, now_s: float) -> float:
        ago_s = now_s - self.rate_at_s
        return self.rate * math.exp2(-ago_s / RATE_HALF_LIFE_S) if ago_s > 0 else self.rate

    def should_extend(self, held: Held, now_s: float) -> bool:
        """Whether the lease runs low, and there is more to be had, or has used up much of its time and is still of use."""
        if self.answer is not None and now_s < self.until_s:
            return False
        if held.elsewhere > 0 and held.left < LOW_S * self.rate_now(now_s):
            return True
        return now_s > held.asked_s + RENEW * held.lease_s and (held.left > 0 or held.elsewhere > 0)

    def stand(self, answer: Short | Undecided | Unlimited, now_s: float) -> None:
        """Have `answer` be what calls get: at once, or after HOPE_S if that may help."""
        hopeful = isinstance(answer, Undecided) or (isinstance(answer, Short) and answer.recallable)
        if not hopeful or not self.hoping or now_s >= self.until_s:
            self.from_s = now_s + HOPE_S if hopeful else now_s
            self.until_s = self.from_s + REFUSED_S
        self.answer, self.hoping = answer, hopeful
        self.again_s = now_s + AGAIN_S if hopeful else -math.inf

    def standing(self, quantity: int, now_s: float, now_us: int) -> Short | Undecided | Unlimited | None:
        """What a call gets without asking; None: metering is to be asked, or asked again."""
        answer = self.answer
        if answer is None or not self.from_s <= now_s < self.until_s:
            return None
        if isinstance(answer, Short):
            left = 0 if self.held is None else self.held.left
            if quantity - left <= answer.available or now_us >= to_us(answer.resets_at):
                return None
        return answer

    def forget_answer(self) -> None:
        self.answer, self.hoping, self.again_s = None, False, -math.inf


class Leases:
    """All leases of this gate. One request is under way at a time; whoever sends it tells when (`asked_s`), and what came
    back."""

    def __init__(self) -> None:
        self._demands: dict[Key, _Demand] = {}
        self._round: deque[_Demand] = deque()
        self._of_account: dict[Key, dict[Key, None]] = {}
        self._due: dict[Key, None] = {}
        self._known: dict[str, Held] = {}
        self._returning: dict[str, Held] = {}
        self._ended: deque[Held] = deque()

    def held(self) -> tuple[int, int]:
        """Leases that are spent from, and the units of them that are not spent."""
        left = [demand.held.left for demand in self._demands.values() if demand.held is not None]
        return len(left), sum(left)

    def take(self, key: Key, account: str, quantity: int, now_s: float, now_us: int) -> Verdict | None:
        """Take `quantity` units whole; None: metering has to be asked first, with this call waiting."""
        demand = self._demands.get(key) or self._demand(key, account, now_s)
        demand.seen_s = now_s
        held = demand.held
        if held is not None and held.left >= quantity and held.covers(now_s, now_us):
            demand.spend(held, quantity, now_s)
            if key not in self._due and demand.should_extend(held, now_s):
                self._due[key] = None
            return Taken(held.lease, held.left + max(0, held.elsewhere), now_us)
        return demand.standing(quantity, now_s, now_us)

    def put_back(self, taken: Taken, quantity: int) -> None:
        """These units were not used: no record names them, and none ever will."""
        held = self._known.get(taken.lease)
        if held is not None:
            held.spent -= quantity

    def still_good(self, lease: str, now_s: float) -> bool:
        """Whether a call whose units are of `lease` may pass, now that its record is acknowledged."""
        held = self._known.get(lease)
        return held is not None and held.alive(now_s)

    def last_word(self, key: Key) -> Short | Undecided | None:
        """What metering said last, for a call that cannot wait any longer."""
        demand = self._demands.get(key)
        return demand.answer if demand is not None and isinstance(demand.answer, Short | Undecided) else None

    def _demand(self, key: Key, account: str, now_s: float) -> _Demand:
        demand = self._demands[key] = _Demand(key, account, now_s, rate_at_s=now_s)
        self._round.append(demand)
        self._of_account.setdefault((account, key[1]), {})[key] = None
        return demand

    # -- asking

    def due(self) -> bool:
        """Whether there is something to ask for, or to return, besides what calls wait for."""
        return bool(self._due or self._returning)

    def wishes(self, waiting: Mapping[Key, Waiting], now_s: float, now_us: int) -> list[Wish]:
        """What to ask for now: for the applications whose calls wait, and for those whose lease runs low. At most WISHES_MAX; the
        others have their turn with the next request."""
        wishes: list[Wish] = []
        for key, calls in waiting.items():
            demand = self._demands.get(key) or self._demand(key, calls.account, now_s)
            demand.seen_s = now_s  # who waits is not forgotten: nobody would ask for it, for as long as more come to wait
            if now_s >= demand.again_s and len(wishes) < WISHES_MAX:
                self._due.pop(key, None)
                wishes.append(self._wish(demand, calls, now_s, now_us))
        for key in list(islice(self._due, WISHES_MAX - len(wishes))):
            del self._due[key]
            one = self._demands.get(key)
            if key in waiting or one is None or one.held is None or not one.should_extend(one.held, now_s):
                continue
            wishes.append(self._wish(one, Waiting(1, 0, one.account), now_s, now_us))
        return wishes

    def _wish(self, demand: _Demand, calls: Waiting, now_s: float, now_us: int) -> Wish:
        held = demand.held
        if held is not None and not held.covers(now_s, now_us):
            self._give_up(demand)
            held = None
        left = 0 if held is None else held.left
        needed = calls.first - left if calls.total else 1
        later = demand.rate_now(now_s) * AHEAD_S + calls.total * _RATE_OF_ONE  # what waits may come once only
        ahead = calls.total + math.ceil(min(later, WANTED_MAX)) - left
        needed = max(1, needed)
        wanted = max(needed, min(ahead, WANTED_MAX))
        return Wish(*demand.key, wanted, needed, from_us(now_us), "" if held is None else held.lease)

    def returns(self) -> list[Returned]:
        """The leases to return with the next request: to be called after `wishes`, which gives leases up. They are told again
        until `returned` says that metering knows."""
        return [Returned(held.lease, held.spent) for held in islice(self._returning.values(), WISHES_MAX)]

    def returned(self, told: Iterable[Returned]) -> None:
        """Metering has taken these back."""
        for one in told:
            self._returning.pop(one.lease, None)

    def answered(self, wish: Wish, answer: Answer, asked_s: float, now_s: float) -> None:
        """What came back, now, for a wish that was sent at `asked_s`."""
        demand = self._demands.get((wish.client_id, wish.service))
        match answer:
            case Leased():
                self._leased(demand, wish, answer, asked_s, now_s)
            case Short() | Undecided() | Unlimited():
                if demand is None or asked_s <= demand.changed_s:
                    return  # said of a limit that has changed since
                if isinstance(answer, Unlimited):
                    self._give_up(demand)
                demand.stand(answer, now_s)
            case _:
                assert_never(answer)

    def _leased(self, demand: _Demand | None, wish: Wish, answer: Leased, asked_s: float, now_s: float) -> None:
        if demand is not None and demand.held is not None and demand.held.lease == answer.lease:
            held = demand.held
            held.units = max(held.units, answer.units)
            held.asked_s, held.lease_s, held.margin_s = asked_s, answer.lease_s, answer.margin_s
            held.elsewhere = answer.remaining
            demand.forget_answer()
            return
        if answer.lease == wish.lease or answer.lease in self._known:
            return  # it was given up while its extension was under way, perhaps so long ago that it is forgotten: never anew
        start_us, end_us = to_us(answer.day_start), to_us(answer.day_end)
        held = Held(
            answer.lease, answer.units, asked_s, answer.lease_s, answer.margin_s, start_us, end_us, answer.remaining, now_s
        )
        self._known[held.lease] = held
        if demand is None or asked_s <= demand.changed_s:
            self._end(held)  # granted under a limit that has changed since, or for nobody
            return
        self._give_up(demand)
        demand.held = held
        demand.forget_answer()
        if not held.alive(now_s + ACK_S):
            demand.again_s = now_s + AGAIN_S  # it came too late to be of use; do not ask without a pause

    # -- giving back

    def revoke(self, account: str, client_id: str, service: str, now_s: float) -> None:
        """A limit of this scope has changed, or the application: spend no more of what was granted before, and return it.

        client_id "": of all of the account's applications.
        """
        for demand in self._in_scope(account, client_id, service):
            self._give_up(demand)
            demand.forget_answer()
            demand.changed_s = now_s

    def recall(self, account: str, client_id: str, service: str) -> None:
        """Others need units of this scope: return what is not spent."""
        for demand in self._in_scope(account, client_id, service):
            self._give_up(demand)

    def return_all(self) -> None:
        """The gate stops: spend no more of anything."""
        for demand in self._demands.values():
            self._give_up(demand)

    def _in_scope(self, account: str, client_id: str, service: str) -> list[_Demand]:
        keys = [(client_id, service)] if client_id else [*self._of_account.get((account, service), ())]
        return [demand for key in keys if (demand := self._demands.get(key)) is not None]

    def tidy(self, now_s: float, now_us: int) -> None:
        """Return what is idle or over, and forget what is long over. To be called every half second or so."""
        for _ in range(min(TIDY_MAX, len(self._round))):
            demand = self._round.popleft()
            held = demand.held
            if held is not None and (now_s > held.used_s + IDLE_S or not held.covers(now_s, now_us)):
                self._give_up(demand)
            if demand.held is None and now_s > demand.seen_s + IDLE_S:
                self._forget(demand)
            else:
                self._round.append(demand)
        for _ in range(min(TIDY_MAX, len(self._ended))):
            held = self._ended.popleft()
            if held.over(now_s):
                self._returning.pop(held.lease, None)
                del self._known[held.lease]
            else:
                self._ended.append(held)

    def _forget(self, demand: _Demand) -> None:
        del self._demands[demand.key]
        self._due.pop(demand.key, None)
        scope = demand.account, demand.key[1]
        keys = self._of_account[scope]
        keys.pop(demand.key, None)
        if not keys:
            del self._of_account[scope]

    def _give_up(self, demand: _Demand) -> None:
        if demand.held is not None:
            self._end(demand.held)
            demand.held = None

    def _end(self, held: Held) -> None:
        self._returning[held.lease] = held
        self._ended.append(held)
