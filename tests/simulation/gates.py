"""A gate as the simulation has it: its leases are the service's own code; how calls wait, and how metering is asked, is the
protocol of services/gate/leasing.py without the event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from services.gate.leases import Key, Leases, Taken, Verdict, Waiting
from shared.commands.quota import Leased, LeaseQuota, QuotaLeases, Short
from shared.events.usage import UsageRecord
from tests.simulation.calls import Call, outline
from tests.simulation.committer import Committer
from tests.simulation.database import ACCOUNT, SERVICE, Database
from tests.simulation.ledger import Ledger
from tests.simulation.metering import Worker
from tests.simulation.stream import BEGAN_US
from tests.simulation.world import Process, World

REQUEST_TIMEOUT_S: Final = 1.0
LINGER_S: Final = 0.003
PATIENCE_S: Final = 1.7
LOOK_S: Final = 0.05
TIDY_S: Final = 0.5
BACKOFF_S: Final = 0.1
DRAIN_S: Final = 5.0


class _Waiting(NamedTuple):
    call: Call
    since_s: float


class Gate(Process):
    """One gate, with as many lives as it has had starts; each life is a publisher of its own.

    Until `cut_until` neither its requests reach metering nor metering's recalls it; `slow` is how long requests take now, and
    answers, if not as ever. `leased_s` is when it asked for the last lease, or extension, that it got.
    """

    def __init__(self, world: World, number: int, database: Database, workers: list[Worker], ledger: Ledger) -> None:
        super().__init__(world, f"gate-{number}")
        self.cut_until = 0.0
        self.slow_request: tuple[float, float] | None = None
        self.slow_reply: tuple[float, float] | None = None
        self.partition = number
        self._database = database
        self._workers = workers
        self._ledger = ledger
        self.started()

    def started(self) -> None:
        publisher = f"{self.name}-{self.life}"
        self.leases = Leases()
        subject = f"usage.records.{self.partition}"
        self.committer = Committer(self, publisher, subject, self._database.stream, self.leases, self._ledger.passed)
        self.leased_s = self.world.now
        self._lines: dict[Key, deque[_Waiting]] = {}
        self._asking = 0
        self._away_since_s: float | None = None
        self._woken = False
        self._looking = False
        self._stopping = False
        self.every(TIDY_S, self._tidy)

    def _now_us(self) -> int:
        return BEGAN_US + int((self.world.now + self.skew_s) * 1_000_000)

    # -- calls

    def call(self, call: Call) -> None:
        key = (call.client_id, SERVICE)
        if key not in self._lines:
            verdict = self.leases.take(key, ACCOUNT, call.quantity, self.interval_s(), self._now_us())
            if verdict is not None:
                self._tell(call, verdict)
                if self.leases.due():
                    self._wake()
                return
        away_s = self._away_since_s
        if self._stopping or (away_s is not None and self.interval_s() > away_s + PATIENCE_S):
            call.refused = True
            return
        self._lines.setdefault(key, deque()).append(_Waiting(call, self.interval_s()))
        self._wake()
        if not self._looking:
            self._looking = True
            self.after(LOOK_S, self._look)

    def _tell(self, call: Call, verdict: Verdict) -> None:
        if self.world.trace is not None:
            self.world.note(f"{self.name}: a call for {call.quantity} of {call.client_id[0]}: {outline(verdict)}")
        if not isinstance(verdict, Taken):
            call.refused, call.short = True, isinstance(verdict, Short)
        elif self.committer.blocked:
            self.leases.put_back(verdict, call.quantity)
            call.refused = True
        else:
            self.committer.record(call, UsageRecord(call.client_id, SERVICE, verdict.at_us, call.quantity, "", verdict.lease))

    def _serve(self, key: Key) -> None:
        line = self._lines.get(key)
        while line:
            call = line[0].call
            verdict = self.leases.take(key, ACCOUNT, call.quantity, self.interval_s(), self._now_us())
            if verdict is None:
                return
            line.popleft()
            if not line:
                del self._lines[key]
            self._tell(call, verdict)

    def _look(self) -> None:
        """While calls wait: refuse those that have waited too long, and ask again."""
        late_s = self.interval_s() - PATIENCE_S
        for key, line in list(self._lines.items()):
            while line and line[0].since_s < late_s:
                call = line.popleft().call
                call.refused, call.short = True, isinstance(self.leases.last_word(key), Short)
            if not line:
                del self._lines[key]
        self._looking = bool(self._lines)
        if self._looking:
            self._wake()
            self.after(LOOK_S, self._look)

    # -- asking

    def _wake(self) -> None:
        if not self._woken and not self._asking:
            self._woken = True
            self.after(LINGER_S, self._ask)

    def _ask(self) -> None:
        self._woken = False
        if self._asking:
            return
        waiting = self._waiting()
        asked_s, asked_at = self.interval_s(), self.world.now
        wishes = self.leases.wishes(waiting, asked_s, self._now_us())
        returned = self.leases.returns()
        if not wishes and not returned and self._away_since_s is None:
            return
        body = LeaseQuota(
            publisher=self.committer.publisher, partition=self.partition, wishes=tuple(wishes), returned=tuple(returned)
        )
        number = self._asking = self.world.random.getrandbits(48) | 1

        def on_reply(reply: QuotaLeases) -> None:
            if self._asking == number:
                self._asking, self._away_since_s = 0, None
                if any(isinstance(answer, Leased) for answer in reply.answers):
                    self.leased_s = asked_at
                self._on_leases(body, reply, asked_s)

        def on_timeout() -> None:
            if self._asking == number:
                self._asking = 0
                if self._away_since_s is None:
                    self._away_since_s = self.interval_s()
                self.after(BACKOFF_S, self._wake)

        self._request(body, on_reply)
        self.world.after(REQUEST_TIMEOUT_S / (1 + self.drift), self.own(on_timeout))

    def _waiting(self) -> Mapping[Key, Waiting]:
        return {
            key: Waiting(line[0].call.quantity, sum(one.call.quantity for one in line), ACCOUNT)
            for key, line in self._lines.items()
        }

    def _request(self, body: LeaseQuota, on_reply: Callable[[QuotaLeases], None]) -> None:
        world = self.world
        worker = world.random.choice(self._workers)

        def arrive() -> None:
            reply = worker.answer(body)
            world.send(self.own(lambda: on_reply(reply)), self.slow_reply)

        if world.now >= self.cut_until:
            world.send(worker.own(arrive), self.slow_request)

    def _on_leases(self, body: LeaseQuota, reply: QuotaLeases, asked_s: float) -> None:
        self.leases.returned(body.returned)
        now_s = self.interval_s()
        for wish, answer in zip(body.wishes, reply.answers, strict=True):
            self.leases.answered(wish, answer, asked_s, now_s)
        for wish in body.wishes:
            self._serve((wish.client_id, wish.service))
        if self._lines or self.leases.due():
            self._wake()

    # -- giving back

    def recalled(self, client_id: str) -> None:
        if self.world.now >= self.cut_until:
            self.leases.recall(ACCOUNT, client_id, SERVICE)
            if self.leases.due():
                self._wake()

    def limit_changed(self, client_id: str) -> None:
        self.leases.revoke(ACCOUNT, client_id, SERVICE, self.interval_s())
        if self._lines or self.leases.due():
            self._wake()

    def _tidy(self) -> None:
        self.leases.tidy(self.interval_s(), self._now_us())
        if self.leases.due():
            self._wake()

    def stop(self) -> None:
        """As a stopped gate does: nobody is let wait, what is on its way is recorded, and what is left is returned."""
        if self.down or self._stopping:
            return
        self._stopping = True
        self.world.note(f"{self.name} is being stopped")
        for line in self._lines.values():
            for one in line:
                one.call.refused = True
        self._lines.clear()
        self._drain(self.interval_s() + DRAIN_S)

    def _drain(self, until_s: float) -> None:
        if self.committer.busy and self.interval_s() < until_s:
            self.after(LOOK_S, lambda: self._drain(until_s))
            return
        self.leases.return_all()
        self._wake()
        self.after(REQUEST_TIMEOUT_S, lambda: self._end("has stopped"))
