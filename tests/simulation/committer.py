"""A gate's committer as the simulation has it: the protocol of services/gate/commit.py, without the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from services.gate.leases import Leases
from shared.events.usage import MSGPACK, UsageBatch, UsageRecord
from tests.simulation.calls import Call
from tests.simulation.stream import Stream
from tests.simulation.world import Process, Step

TIMEOUT_S: Final = 2.0
RETRY_S: Final = 0.2
HEADERS: Final = {"content-type": MSGPACK}
_ENCODE: Final = msgspec.msgpack.Encoder().encode

Passed = Callable[[UsageRecord], None]
"""Is told of each call that is let in."""


class Recording(NamedTuple):
    """A call whose record waits to be stored."""

    call: Call
    record: UsageRecord


class Committer:
    """One life of a gate's committer; the gate, which it is part of, crashes and pauses. `slow`: how long messages to the stream
    take now, if not as ever."""

    def __init__(self, gate: Process, publisher: str, subject: str, stream: Stream, leases: Leases, passed: Passed) -> None:
        self.publisher = publisher
        self.slow: tuple[float, float] | None = None
        self._gate = gate
        self._subject = subject
        self._stream = stream
        self._leases = leases
        self._passed = passed
        self._seq = 0
        self._collecting: list[Recording] = []
        self._committing: list[Recording] = []
        self._publishing = 0
        self._planned = False
        self.blocked = False

    @property
    def busy(self) -> bool:
        """Whether a record is on its way, or something has to be taken back."""
        return bool(self._collecting or self._committing or self._publishing or self.blocked)

    def record(self, call: Call, record: UsageRecord) -> None:
        """Have the record in the next commit."""
        self._collecting.append(Recording(call, record))
        self._plan()

    def _plan(self) -> None:
        """The next commit begins in the event loop's next turn: a gate may stop between."""
        if not self._planned and not self._publishing and not self.blocked:
            self._planned = True
            self._gate.after(0.0002, self._commit)

    def _commit(self) -> None:
        self._planned = False
        if self._publishing or self.blocked or not self._collecting:
            return
        self._committing, self._collecting = self._collecting, []
        self._seq += 1
        batch = UsageBatch(publisher=self.publisher, seq=self._seq, records=[one.record for one in self._committing])
        self._publish(batch, lambda: self._acknowledged(batch), lambda: self._give_up(batch))

    def _publish(self, batch: UsageBatch, on_ack: Step, on_timeout: Step) -> None:
        """One of the two is called: whichever is first."""
        world, gate = self._gate.world, self._gate
        number = self._publishing = world.random.getrandbits(48) | 1
        data = _ENCODE(batch)

        def once(step: Step) -> Step:
            def only() -> None:
                if self._publishing == number:
                    self._publishing = 0
                    step()

            return gate.own(only)

        def store() -> None:
            if world.trace is not None:
                world.note(f"stored as {len(self._stream.messages) + 1}: {_short(batch)}")
            self._stream.store(self._subject, data, HEADERS)
            world.send(once(on_ack))

        world.send(store, self.slow)
        world.after(TIMEOUT_S / (1 + gate.drift), once(on_timeout))

    def _acknowledged(self, batch: UsageBatch) -> None:
        """Let those pass whose leases still last; take the others back."""
        now_s = self._gate.interval_s()
        committed, self._committing = self._committing, []
        late = [place for place, one in enumerate(committed) if not self._leases.still_good(one.record.lease, now_s)]
        for place, (call, record) in enumerate(committed):
            if place not in late:
                call.passed = True
                self._passed(record)
        if self._gate.world.trace is not None:
            self._gate.world.note(f"{self.publisher} has seq {batch.seq} acknowledged; too late: {late}")
        if not late:
            self._plan()
            return
        refused = [committed[place].call for place in late]
        retraction = msgspec.structs.replace(batch, retracted=True, voided=tuple(late))
        for call in refused:
            call.refused = call.unsure = True
        self._publish(retraction, lambda: self._taken_back(refused), lambda: self._take_back(retraction, refused))

    def _give_up(self, batch: UsageBatch) -> None:
        refused = [call for call, _ in self._committing]
        self._committing = []
        for call in refused:
            call.refused = call.unsure = True
        self._take_back(msgspec.structs.replace(batch, retracted=True), refused)

    def _take_back(self, retraction: UsageBatch, refused: list[Call]) -> None:
        """Before anything new: again and again until it is acknowledged."""
        if not self.blocked:
            self._gate.world.note(f"{self.publisher} is blocked: it takes seq {retraction.seq} back, places {retraction.voided}")
        self.blocked = True
        for call, _ in self._collecting:
            call.refused = True
        self._collecting = []

        def again() -> None:
            self._publish(retraction, lambda: self._taken_back(refused), lambda: self._take_back(retraction, refused))

        self._gate.after(RETRY_S, again)

    def _taken_back(self, refused: list[Call]) -> None:
        self.blocked = False
        for call in refused:
            call.unsure = False
        self._plan()


def _short(batch: UsageBatch) -> str:
    """A batch in one line."""
    records = ", ".join(f"{one.quantity} of {one.client_id[0]} from {one.lease}" for one in batch.records)
    back = f", retracted{batch.voided or ''}" if batch.retracted else ""
    return f"{batch.publisher} seq {batch.seq}{back}: {records}"
