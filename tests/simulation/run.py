"""One run from one seed, and what has to hold during it and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.metering.quota import LEASE_S, MARGIN_S
from services.metering.rejection import Why
from shared.events.usage import CLOUDEVENTS_SUBJECT
from shared.streams.cloudevents import cloudevent_headers
from shared.windows import from_us
from tests.simulation.calls import Call
from tests.simulation.database import WINDOWS, Database, Limits
from tests.simulation.gates import Gate
from tests.simulation.ledger import Broken, Ledger
from tests.simulation.metering import LOOK_S, Worker
from tests.simulation.stream import BEGAN_US, MIDNIGHT_S, Stream
from tests.simulation.world import DRIFT_MAX, LONG_DELAY_S, SKEW_MAX_S, World

APPS: Final = ("a" * 20, "b" * 20)
PAUSE_MAX_S: Final = 16.0
SETTLE_S: Final = LONG_DELAY_S + PAUSE_MAX_S + 4.0
"""Until the latest message has come, and the longest pause is over."""
HEALED_S: Final = 2 * (LEASE_S + MARGIN_S) * (1 + 2 * DRIFT_MAX) + 5
USING_UP_S: Final = 30.0


class Run:
    """One to three gates, two workers, one or two applications with daily limits, sometimes monthly ones, sometimes one of their
    account. What happens to them is a scene's (scenes.py) to plan, before `play`."""

    def __init__(self, seed: int, gates: Sequence[int], trace: list[str] | None = None) -> None:
        self.world = world = World(seed, trace)
        self.seed = seed
        random = world.random
        self.apps = APPS[: random.choice([1, 1, 2])]
        numbers = range(random.choice(gates))
        subjects = [*(f"usage.records.{number}" for number in numbers), CLOUDEVENTS_SUBJECT]
        self.stream = Stream(world)
        self.database = Database(world, self.stream, Limits(dict.fromkeys(self.apps, 50), dict.fromkeys(self.apps)), subjects)
        self.ledger = Ledger(self.database)
        self.workers = [Worker(world, f"worker-{number}", self.database, self._recall) for number in range(2)]
        self.gates = [Gate(world, number, self.database, self.workers, self.ledger) for number in numbers]
        self.stream.stored = self._stored
        self.calls: list[Call] = []

    def set_limits(self, low: int, high: int) -> None:
        """Daily limits between these; sometimes monthly ones and the account's, which may be lower: a run is in one day of each
        month."""
        random, limits = self.world.random, self.database.limits
        for app in self.apps:
            daily = limits.daily[app] = random.randint(low, high)
            limits.monthly[app] = random.choice([None, None, random.randint(daily // 2 + 1, 2 * daily)])
        daily = max(limit for limit in limits.daily.values() if limit is not None)
        limits.account = random.choice([None, None, random.randint(daily // 2 + 1, 2 * daily)])

    def _recall(self, client_id: str) -> None:
        for gate in self.gates:
            self.world.send(gate.own(lambda gate=gate: gate.recalled(client_id)))  # type: ignore[misc]

    def _stored(self, subject: str) -> None:
        self.world.random.choice(self.workers).stored(subject)

    def play(self, until: float) -> None:
        """Everything that was planned, then no fault any more, then what has to hold. Raises Broken."""
        world = self.world
        world.run(until)
        world.faults, world.hazard = False, 0.0
        self.database.stalled_until = 0.0
        for gate in self.gates:
            gate.slow_request = gate.slow_reply = gate.committer.slow = None
        for worker in self.workers:
            worker.look_s = LOOK_S
            worker.let_in()
        world.note("no more faults")
        self._come_to_rest(SETTLE_S + HEALED_S)
        world.run(max(world.now, MIDNIGHT_S + 2 * SKEW_MAX_S))  # so that all are in the same day
        self._check_at_rest()
        if world.random.random() < 0.3:
            away_s = world.random.uniform(1.0, 5.0)
            world.note(f"demand without end; metering answers in {away_s:.1f} s")
            for gate in self.gates:
                gate.cut_until = world.now + away_s
        for app in self.apps:
            self._use_up(app)
        self._come_to_rest(HEALED_S)
        self._check_at_rest()

    def _come_to_rest(self, longest_s: float) -> None:
        """Until nothing is under way any more: no step but those that come for ever, no lease."""
        world, processes = self.world, (*self.gates, *self.workers)
        for_ever = sum(process.for_ever for process in processes)
        until = world.now + longest_s
        while world.now < until:
            world.run(world.now + 1.0)
            if world.planned == for_ever and not self.database.open and not any(process.away for process in processes):
                return

    # -- what may happen

    def call(self, gate: Gate, quantity: int | None = None, app: str = "") -> None:
        """One call at a gate, now."""
        random = self.world.random
        call = Call(app or random.choice(self.apps), quantity or random.choice([1, 1, 1, 2, 3, 7]))
        self.calls.append(call)
        if gate.down:
            call.refused = True
        gate.own(lambda: gate.call(call))()

    def calls_between(
        self, gate: Gate, first_s: float, last_s: float, count: int, quantity: int | None = None, app: str = ""
    ) -> None:
        """So many calls at a gate, some time between."""
        world = self.world
        for _ in range(count):
            world.after(world.random.uniform(first_s, last_s), lambda: self.call(gate, quantity, app))

    def stall(self, seconds: float) -> None:
        """Nothing is counted for a while; gates are answered, and leases are kept."""
        self.world.note(f"counting stalls for {seconds:.1f} s")
        self.database.stalled_until = self.world.now + seconds

    def change_limit(self) -> None:
        """A limit goes up or down, or an application is deleted; gates hear of it when they do."""
        random, ledger = self.world.random, self.ledger
        app, kind = random.choice(self.apps), random.random()
        if kind < 0.15:
            ledger.is_gone(app)
        elif kind < 0.3:
            app = ""
            ledger.limit_changes("", "m", random.randint(1, 150))
        else:
            period = random.choice(["d", "d", "m"])
            limit = self.database.limit(app, period) or 50
            ledger.limit_changes(app, period, max(1, int(limit * random.choice([0.3, 0.7, 1.5, 3]))))
        self.world.note(f"limits: {self.database.limits}, deleted: {self.database.deleted}")
        for gate in self.gates:
            self.world.send(gate.own(lambda gate=gate: gate.limit_changed(app)))  # type: ignore[misc]

    def report(self) -> None:
        """Somebody else reports usage, as a CloudEvent, perhaps twice."""
        random, world = self.world.random, self.world
        app, quantity = random.choice(self.apps), random.randint(1, 9)
        at_us = BEGAN_US + int(world.now * 1_000_000)
        self.ledger.reported(app, quantity, at_us)
        headers = cloudevent_headers(
            id_=str(len(self.stream.messages)),
            source="/simulation",
            type_="tollbook.usage.UsageRecorded.v1",
            time=from_us(at_us),
        )
        data = f'{{"client_id": "{app}", "service": "csr", "quantity": {quantity}}}'.encode()
        for _ in range(random.choice([1, 1, 2])):
            self.stream.store(CLOUDEVENTS_SUBJECT, data, {name.lower(): value for name, value in headers.items()})

    # -- what has to hold

    def _check_at_rest(self) -> None:
        """Nothing is under way: everything stored is counted, nothing is set aside, and what passed was counted, once."""
        database = self.database
        for subject, reached in database.progress.items():
            if reached != self.stream.end(subject):
                raise Broken(f"{subject} is counted up to {reached} of {self.stream.end(subject)}")
        for rejected in database.rejected:
            if rejected.why is not Why.LEASE_ENDED:
                raise Broken(f"a record was not counted: {rejected.reason}")
        for row in database.open.values():
            raise Broken(f"{row.lease} is still open: {row}")
        for (app, period, window_us), units in database.counters.items():
            in_doubt = sum(call.quantity for call in self.calls if call.client_id == app and not call.settled)
            at_least = self.ledger.units(app, period, window_us) + self.ledger.foreign(app, period, window_us)
            if not at_least <= units <= at_least + in_doubt:
                where = f"{app[0]} in {period} {from_us(window_us)}"
                raise Broken(f"{units} units of {where} are counted, {at_least} passed or were reported, {in_doubt} are in doubt")
        again = database.count_again()
        if again != database.counters:
            raise Broken(f"counted again: {again}; the first time: {database.counters}")

    def _use_up(self, app: str) -> None:
        """With demand above the limit and no faults any more, all of it is used: nothing is stranded."""
        world, database = self.world, self.database
        slot = WINDOWS.slot(BEGAN_US + int(world.now * 1_000_000))
        day, month = slot.day_start_us, slot.month_start_us
        windows = ((app, "d", day), (app, "m", month), ("", "m", month))
        rooms = [limit - database.units(*window) for window in windows if (limit := database.limit(*window[:2])) is not None]
        allowed = 0 if app in database.deleted else max(0, min(rooms))
        before = self.ledger.units(app, "d", day)
        until = world.now + USING_UP_S
        while (got := self.ledger.units(app, "d", day) - before) < allowed and world.now < until:
            self.call(world.random.choice(self.gates), max(1, (allowed - got) // 6), app)
            world.run(world.now + 0.05)
        for _ in range(3):
            self.call(world.random.choice(self.gates), 1, app)
            world.run(world.now + 0.05)
        got = self.ledger.units(app, "d", day) - before
        if got != allowed:
            raise Broken(f"{allowed} units of {app[0]} were left, {got} of them could be used")
