"""What PostgreSQL keeps of counting, in plain dictionaries; and messages to count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from services.metering.decoding import Batch, Item
from services.metering.domain import Outcome, Tally
from services.metering.growth import App, CounterKey
from services.metering.lapses import NO_LAPSES, Lapses
from services.metering.positions import Position, PublisherKey, needs
from services.metering.rejection import Rejected, Why
from services.metering.singles import Effect
from shared.events.usage import UsageBatch, UsageRecord
from shared.streams.message import Message
from shared.windows import civil, to_us

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
NOW_US = to_us(NOW)
SEOUL, NEW_YORK, GONE = "s" * 20, "n" * 20, "g" * 20
GONE_AT_US = NOW_US - 3_600_000_000
APPS = {
    SEOUL: App("acme", civil("Asia/Seoul")),
    NEW_YORK: App("globex", civil("America/New_York")),
    GONE: App("acme", civil("Asia/Seoul"), GONE_AT_US),
}
SERVICES = ("csr", "clova-voice")


def message(sequence: int = 1, at: datetime = NOW, subject: str = "usage.records.0") -> Message:
    return Message("USAGE", subject, sequence, {"content-type": "application/msgpack"}, b"", at)


def batch(
    seq: int, records: Sequence[UsageRecord], *, retracted: bool = False, voided: Sequence[int] = (), at: datetime = NOW
) -> Batch:
    content = UsageBatch(
        publisher="gate-1",
        seq=seq,
        records=list(records),
        retracted=retracted or bool(voided),
        voided=tuple(voided) or msgspec.UNSET,
    )
    return Batch(message(at=at), 0, content)


def rejected_record(number: int) -> Rejected:
    return Rejected(message(), Why.INVALID_RECORD, "bad", number, b"")


class Books:
    """What PostgreSQL keeps between tallies, in plain dictionaries."""

    def __init__(self) -> None:
        self.counters: Counter[tuple[CounterKey, str]] = Counter()
        self.positions: dict[PublisherKey, Position] = {}
        self.events: dict[bytes, Effect] = {}
        self.rejected: list[Rejected] = []
        self.leases: Counter[str] = Counter()

    def take(self, items: Sequence[Item], lapses: Lapses = NO_LAPSES) -> Outcome:
        wanted = needs(items)
        positions = {key: self.positions[key] for key in wanted.publishers if key in self.positions}
        events = {key: self.events[key] for key in wanted.events if key in self.events}
        tally = Tally(SERVICES, APPS, positions, events, lapses)
        for item in items:
            tally.add(item)
        outcome = tally.outcome()
        for key, count in outcome.counters.items():
            self.counters[key, "calls"] += count.calls
            self.counters[key, "units"] += count.units
            self.counters[key, "late"] += count.late_units
        for publisher, p in outcome.positions.items():
            self.positions[publisher] = Position(p.seq, p.retracted, p.recorded_at_us, p.rejected, p.fingerprint())
        for use, units in outcome.leases.items():
            self.leases[use.lease] += units
        self.events |= outcome.events
        self.rejected += outcome.rejected
        return outcome

    def counted(self) -> dict[tuple[CounterKey, str], int]:
        return {key: value for key, value in self.counters.items() if value}

    def units(self, client_id: str = SEOUL, period: str = "d") -> int:
        return sum(v for (key, what), v in self.counters.items() if what == "units" and key[0] == client_id and key[2] == period)
