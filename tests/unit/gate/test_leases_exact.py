"""Gates and metering in any order of events: never is more admitted than the limits allow, never from a lease that is over, never
from one of another day. Metering is tests/support/granting.py: the service's own rules over objects."""

from __future__ import annotations

from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.gate.leases import Key, Leases, Taken, Waiting, may_spend
from shared.commands.quota import Answer, Leased, LeaseQuota, QuotaLeases
from shared.events.usage import UsageRecord
from shared.windows import from_us, to_us
from tests.support.granting import UTC_NOON, Granting

GATES = 2
APPS = ["a" * 20, "b" * 20]
GATE = st.integers(0, GATES - 1)
APP = st.sampled_from(APPS)
DRIFT = (1.0, 1.002)
"""How fast each gate's interval timer runs beside metering's: faster is the dangerous way round for nobody, slower is allowed for
by the margin."""


class Flight(NamedTuple):
    """A record on its way to the stream."""

    record: UsageRecord
    at_s: float


class Request(NamedTuple):
    body: LeaseQuota
    asked_s: float
    reply: QuotaLeases | None = None


class World(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.now_us = to_us(UTC_NOON) + 11 * 3_600_000_000
        self.gates = [Leases() for _ in range(GATES)]
        self.waiting: list[dict[Key, list[int]]] = [{} for _ in range(GATES)]
        self.under_way: list[Request | None] = [None] * GATES
        self.flights: list[list[Flight]] = [[] for _ in range(GATES)]
        self.stored: list[tuple[UsageRecord, int]] = []
        self.asked: dict[str, float] = {}
        self.admitted: dict[tuple[str, object], int] = {}
        self.metering = Granting()

    @initialize(daily=st.integers(0, 25), monthly=st.integers(0, 40), account=st.integers(0, 60), gates=st.integers(1, 3))
    def limit(self, daily: int, monthly: int, account: int, gates: int) -> None:
        keys = [(app, "csr") for app in APPS]
        self.metering = Granting(
            daily=dict.fromkeys(keys, daily), monthly={keys[0]: monthly}, of_account={"csr": account}, gates=gates
        )

    def timer(self, gate: int) -> float:
        return self.now_s * DRIFT[gate]

    @rule(gate=GATE, app=APP, quantities=st.lists(st.integers(1, 9), min_size=1, max_size=8))
    def call(self, gate: int, app: str, quantities: list[int]) -> None:
        key = app, "csr"
        for quantity in quantities:
            if key in self.waiting[gate]:
                self.waiting[gate][key].append(quantity)
            else:
                self._decide(gate, key, quantity)

    @rule(
        gate=GATE,
        app=APP,
        quantities=st.lists(st.integers(1, 9), min_size=1, max_size=8),
        between=st.sampled_from(["nothing", "recall", "change", "time"]),
    )
    def call_and_ask(self, gate: int, app: str, quantities: list[int], between: str) -> None:
        """Calls, and requests with their answers, the first of which is interrupted by something."""
        self.call(gate, app, quantities)
        for number in range(3):
            self.ask(gate)
            self.arrive(gate)
            if number == 0 and between == "time":
                self.wait(0.3, civil=True)
            elif number == 0 and between != "nothing":
                self.end_leases(gate, app, limit_changed=between == "change")
            self.answer(gate)

    def _decide(self, gate: int, key: Key, quantity: int) -> bool:
        verdict = self.gates[gate].take(key, "acme", quantity, self.timer(gate), self.now_us)
        if verdict is None:
            self.waiting[gate].setdefault(key, [quantity])
            return False
        if isinstance(verdict, Taken):
            row = self.metering.rows[verdict.lease]
            start, end = self.metering.day(row.day)
            assert start <= from_us(verdict.at_us) < end, "spent on another day"
            assert may_spend(self.timer(gate), self.asked[verdict.lease], self.metering.lease_s, self.metering.margin_s)
            record = UsageRecord(key[0], "csr", verdict.at_us, quantity, "s", verdict.lease)
            self.flights[gate].append(Flight(record, self.now_s))
        return True

    @rule(gate=GATE)
    def ask(self, gate: int) -> None:
        if self.under_way[gate] is not None:
            return
        waiting = {key: Waiting(calls[0], sum(calls), "acme") for key, calls in self.waiting[gate].items()}
        wishes = self.gates[gate].wishes(waiting, self.timer(gate), self.now_us)
        returned = self.gates[gate].returns()
        body = LeaseQuota(publisher=f"gate-{gate}", partition=gate, wishes=tuple(wishes), returned=tuple(returned))
        self.under_way[gate] = Request(body, self.timer(gate))

    @rule(gate=GATE)
    def arrive(self, gate: int) -> None:
        """The request arrives, or arrives a second time."""
        request = self.under_way[gate]
        if request is not None:
            self.under_way[gate] = request._replace(reply=self.metering.answer(request.body, self.now_s))

    @rule(gate=GATE)
    def answer(self, gate: int) -> None:
        request = self.under_way[gate]
        if request is None or request.reply is None:
            return
        self.under_way[gate] = None
        self.gates[gate].returned(request.body.returned)
        for wish, found in zip(request.body.wishes, request.reply.answers, strict=True):
            self._note(found, request.asked_s)
            self.gates[gate].answered(wish, found, request.asked_s, self.timer(gate))
            self._serve(gate, (wish.client_id, wish.service))

    def _note(self, found: Answer, asked_s: float) -> None:
        if isinstance(found, Leased):
            self.asked[found.lease] = max(asked_s, self.asked.get(found.lease, asked_s))

    def _serve(self, gate: int, key: Key) -> None:
        calls = self.waiting[gate].pop(key, [])
        while calls:
            if not self._decide(gate, key, calls[0]):
                self.waiting[gate][key] = calls
                return
            calls.pop(0)

    @rule(gate=GATE)
    def lose(self, gate: int) -> None:
        """No answer in time; whether it arrived or not. The calls are refused."""
        self.under_way[gate] = None
        self.waiting[gate].clear()

    @rule(gate=GATE)
    def acknowledge(self, gate: int) -> None:
        """The records are stored and acknowledged: the calls pass, or are taken back."""
        for record, _ in self.flights[gate]:
            self.stored.append((record, 1))
            if self.gates[gate].still_good(record.lease, self.timer(gate)):
                day = self.metering.day(from_us(record.occurred_at_us))[0]
                self.admitted[record.client_id, day] = self.admitted.get((record.client_id, day), 0) + record.quantity
            else:
                self.stored.append((record, -1))
        self.flights[gate].clear()

    @rule(gate=GATE, other=GATE, app=APP, quantities=st.lists(st.integers(4, 9), min_size=2, max_size=8), wait_s=st.floats(0, 13))
    def record_slowly(self, gate: int, other: int, app: str, quantities: list[int], wait_s: float) -> None:
        """What was taken is recorded so late that its lease may be over, and its units somebody else's."""
        self.call_and_ask(gate, app, quantities, "nothing")
        self.wait(wait_s, civil=False)
        self.call_and_ask(other, app, quantities, "nothing")
        self.acknowledge(gate)
        self.acknowledge(other)

    @rule(gate=GATE)
    def never_place(self, gate: int) -> None:
        """The records could not even be sent: the units are put back."""
        for record, _ in self.flights[gate]:
            self.gates[gate].put_back(Taken(record.lease, 0, record.occurred_at_us), record.quantity)
        self.flights[gate].clear()

    @rule()
    def count(self) -> None:
        for record, sign in self.stored:
            self.metering.count(record, sign)
        self.stored.clear()

    @rule(seconds=st.sampled_from([0.01, 0.3, 3.0, 9.0, 12.0, 1800.0]), civil=st.booleans())
    def wait(self, seconds: float, civil: bool) -> None:
        """Time passes. What is over is closed once all that was stored is counted; what is on its way is of refused calls."""
        self.now_s += seconds
        self.now_us += int(seconds * 1_000_000) if civil else 0
        self.count()
        self.metering.close_ended(self.now_s)

    @rule(hours=st.integers(-2, 2))
    def set_the_clock(self, hours: int) -> None:
        self.now_us += hours * 3_600_000_000

    @rule(gate=GATE)
    def tidy(self, gate: int) -> None:
        self.gates[gate].tidy(self.timer(gate), self.now_us)

    @rule(gate=GATE, app=st.sampled_from(["", *APPS]), limit_changed=st.booleans())
    def end_leases(self, gate: int, app: str, limit_changed: bool) -> None:
        if limit_changed:
            self.gates[gate].revoke("acme", app, "csr", self.timer(gate))
        else:
            self.gates[gate].recall("acme", app, "csr")

    @rule(gate=GATE)
    def stop_and_start(self, gate: int) -> None:
        """A gate that dies forgets its leases and the calls on their way."""
        self.gates[gate] = Leases()
        self.flights[gate].clear()
        self.waiting[gate].clear()
        self.under_way[gate] = None

    @invariant()
    def within_the_limits(self) -> None:
        metering = self.metering
        for app in APPS:
            days = {day: units for (found, day), units in self.admitted.items() if found == app}
            assert all(units <= metering.daily[app, "csr"] for units in days.values())
        of_first = sum(units for (found, _), units in self.admitted.items() if found == APPS[0])
        months = {metering.month(day)[0] for _, day in self.admitted}  # type: ignore[arg-type]
        if len(months) == 1:
            assert of_first <= metering.monthly.get((APPS[0], "csr"), of_first)
            assert sum(self.admitted.values()) <= metering.of_account["csr"]


World.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestWorld = World.TestCase
