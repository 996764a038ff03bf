"""Counting: messages of USAGE, one after the other, into what counters grow by. Pure: what is known comes in with the call.

The same messages in any cut into tallies, each repeated or not, give the same counters in the end.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, MutableMapping, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from services.metering.decoding import Batch, Item, Single, digest_of, encode_records
from services.metering.rejection import BadRecord, Rejected, Why, reject_records
from shared.events.usage import QUANTITY_MAX, UsageRecord
from shared.streams.message import Message
from shared.windows import SLOT_US, CivilWindows, from_us, to_us

DAY_US: Final = 86_400_000_000
LATE_MAX_US: Final = 35 * DAY_US
"""How long after it occurred a call still counts, measured when JetStream stored its record."""
AHEAD_MAX_US: Final = 300_000_000
"""How far a publisher's clock may be ahead, and how long after an application's deletion calls still come through the gates."""
REMEMBERED_US: Final = 36 * DAY_US
"""How long repetitions are recognised: longer than LATE_MAX_US, so that what is forgotten could not count anyway."""

CLIENT_ID: Final = re.compile(r"[a-z0-9]{20}", re.ASCII)
_SERVICE_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_CLIENT_ID_OF: Final = attrgetter("client_id")
_SECRET_ID: Final = re.compile(r"[\x21-\x7e]{0,64}", re.ASCII)


class App(NamedTuple):
    """What counting needs to know of an application."""

    account: str
    windows: CivilWindows
    deleted_at_us: int | None = None


class Position(msgspec.Struct):
    """How far one publisher was counted in one partition: the batch with the highest seq, and how it was counted.

    `recorded_at_us` is JetStream's time of that batch and `rejected` the indexes of its records that did not count: a retraction
    takes back just what was counted. `digest` tells its records; it is worked out only when it is needed.
    """

    seq: int
    retracted: bool
    recorded_at_us: int
    rejected: tuple[int, ...] = ()
    digest: bytes = b""
    records: Sequence[UsageRecord] = ()

    def fingerprint(self) -> bytes:
        if not self.digest:
            self.digest, self.records = digest_of(self.records), ()
        return self.digest


PublisherKey = tuple[str, int]
"""(publisher, partition)"""


class CounterKey(NamedTuple):
    """Which counter: `period` is h, d or m; `window_start_us` in microseconds since 1970 UTC."""

    client_id: str
    service: str
    period: str
    window_start_us: int


class Count:
    """What a counter grows by. `late_units` is the part that was reported after its civil day had ended, `after_close_units` the
    part that was reported after the counter's own window had: its hour, day or month."""

    __slots__ = ("after_close_units", "calls", "late_units", "units")

    def __init__(self) -> None:
        self.calls = 0
        self.units = 0
        self.late_units = 0
        self.after_close_units = 0

    def grow(self, group: _Group, sign: int, *, late: bool, closed: bool) -> None:
        self.calls += sign * group.calls
        self.units += sign * group.units
        if late:
            self.late_units += sign * group.units
        if closed:
            self.after_close_units += sign * group.units

    def __repr__(self) -> str:
        return f"Count({self.calls}, {self.units}, {self.late_units}, {self.after_close_units})"


class _Group:
    """Records of one application, service, secret and minute."""

    __slots__ = ("calls", "latest_us", "units")

    def __init__(self) -> None:
        self.calls = 0
        self.units = 0
        self.latest_us = 0


_GroupKey = tuple[str, str, str, int] | tuple[str, str, str, int, bool]


class Needs(NamedTuple):
    """What a tally of some messages has to be told of. Client IDs are as they came: any text."""

    client_ids: set[str]
    publishers: set[PublisherKey]
    events: set[bytes]


def needs(items: Iterable[Item]) -> Needs:
    """What the items speak of."""
    found = Needs(set(), set(), set())
    for item in items:
        if isinstance(item, Batch):
            found.client_ids.update(map(_CLIENT_ID_OF, item.batch.records))
            found.publishers.add((item.batch.publisher, item.partition))
        elif isinstance(item, Single):
            found.client_ids.add(item.record.client_id)
            found.events.add(item.key)
    return found


class Outcome(NamedTuple):
    """What follows from the messages of one transaction. Counts of what was taken back are negative.

    `positions` and `events` are those that moved or are new; `secrets_used` is the last use, in microseconds since 1970 UTC, by
    (client_id, secret_id); `records` says how many records were counted, `repeated` how many messages were known before.
    """

    counters: Mapping[CounterKey, Count]
    rejected: Sequence[Rejected]
    positions: Mapping[PublisherKey, Position]
    events: Mapping[bytes, bytes]
    secrets_used: Mapping[tuple[str, str], int]
    records: int
    repeated: int


class Tally:
    """Adds up the messages of one transaction.

    `directory`, `positions` and `events` (digest by key) hold what is known so far of the applications, publishers and single
    events that `needs` named; the tally writes to the last two what it learns. What is in none of them is unknown or new.
    """

    def __init__(
        self,
        services: Container[str],
        directory: Mapping[str, App],
        positions: MutableMapping[PublisherKey, Position],
        events: MutableMapping[bytes, bytes],
    ) -> None:
        self._services = services
        self._directory = directory
        self._positions = positions
        self._events = events
        self._groups: dict[tuple[int, int], dict[_GroupKey, _Group]] = {}
        self._rejected: list[Rejected] = []
        self._moved: dict[PublisherKey, Position] = {}
        self._new_events: dict[bytes, bytes] = {}
        self._records = 0
        self._repeated = 0

    def add(self, item: Item) -> None:
        """Count one message. In the order of the stream, for each subject."""
        if isinstance(item, Batch):
            self._add_batch(item)
        elif isinstance(item, Single):
            self._add_single(item)
        else:
            self._rejected.append(item)

    def outcome(self) -> Outcome:
        """Everything added so far."""
        counters: dict[CounterKey, Count] = {}
        used: dict[tuple[str, str], int] = {}
        for (minute, sign), groups in self._groups.items():
            recorded_us = minute * SLOT_US
            for key, group in groups.items():
                client_id, service, secret_id, slot_number = key[:4]
                slot = self._directory[client_id].windows.slot(slot_number * SLOT_US)
                late = slot.day_end_us <= recorded_us
                for period, start_us, end_us in (
                    ("h", slot.hour_start_us, slot.hour_end_us),
                    ("d", slot.day_start_us, slot.day_end_us),
                    ("m", slot.month_start_us, slot.month_end_us),
                ):
                    counter = CounterKey(client_id, service, period, start_us)
                    count = counters.get(counter)
                    if count is None:
                        count = counters[counter] = Count()
                    count.grow(group, sign, late=late, closed=end_us <= recorded_us)
                if secret_id and sign > 0:
                    used[client_id, secret_id] = max(group.latest_us, used.get((client_id, secret_id), 0))
        return Outcome(counters, self._rejected, self._moved, self._new_events, used, self._records, self._repeated)

    def _add_batch(self, item: Batch) -> None:
        batch, message = item.batch, item.message
        key = (batch.publisher, item.partition)
        position = self._positions.get(key)
        recorded_us = to_us(message.recorded_at)
        if position is None or batch.seq > position.seq:
            rejected: tuple[int, ...] = ()
            if not batch.retracted:
                self._rejected.extend(item.unreadable)
                rejected = self._count(batch.records, recorded_us, message, item.written_at)
            moved = Position(batch.seq, batch.retracted, recorded_us, rejected, records=batch.records)
            self._positions[key] = self._moved[key] = moved
        elif batch.seq == position.seq and batch.retracted and not position.retracted:
            if digest_of(batch.records) != position.fingerprint():
                reason = f"it takes back seq {batch.seq} of publisher {batch.publisher}, but that held other records"
                self._rejected.append(Rejected(message, Why.CONFLICT, reason))
                return
            self._take_back(batch.records, position)
            position.retracted = True
            self._moved[key] = position
        else:
            self._repeated += 1

    def _add_single(self, item: Single) -> None:
        known = self._events.get(item.key)
        if known is None:
            before = len(self._rejected)
            for bad in self._count_each([item.record], to_us(item.message.recorded_at)):
                self._rejected.append(Rejected(item.message, bad.why, bad.reason))
            if len(self._rejected) == before:
                self._events[item.key] = self._new_events[item.key] = item.digest
        elif known == item.digest:
            self._repeated += 1
        else:
            reason = "an event with this source and id was counted before, with another payload"
            self._rejected.append(Rejected(item.message, Why.CONFLICT, reason))

    def _count(
        self, records: Sequence[UsageRecord], recorded_us: int, message: Message, written_at: Sequence[int]
    ) -> tuple[int, ...]:
        """Count the records of a batch that may count; the indexes of the others, which are rejected."""
        bad = self._count_each(records, recorded_us)
        if written_at:
            bad = [one._replace(number=written_at[one.place]) for one in bad]

        def written(places: Sequence[int]) -> bytes:
            return encode_records(message, [records[place] for place in places])

        self._rejected.extend(reject_records(message, bad, written))
        return tuple(one.place for one in bad)

    def _count_each(self, records: Sequence[UsageRecord], recorded_us: int) -> list[BadRecord]:
        """Count what may count; the rest comes back. The hot loop of the service."""
        groups = self._groups.setdefault((recorded_us // SLOT_US, 1), {})
        find = groups.get
        oldest, newest = recorded_us - LATE_MAX_US, recorded_us + AHEAD_MAX_US
        bad: list[BadRecord] = []
        for index, record in enumerate(records):
            at = record.occurred_at_us
            quantity = record.quantity
            group = find((record.client_id, record.service, record.secret_id, at // SLOT_US))
            if group is None or not (oldest <= at <= newest and 1 <= quantity <= QUANTITY_MAX):
                refusal = self._refusal(record, recorded_us)
                if refusal is not None:
                    bad.append(BadRecord(index, *refusal, number=index))
                    continue
                group = self._group(groups, record)
            group.calls += 1
            group.units += quantity
            if at > group.latest_us:
                group.latest_us = at
        self._records += len(records) - len(bad)
        return bad

    def _take_back(self, records: Sequence[UsageRecord], position: Position) -> None:
        groups = self._groups.setdefault((position.recorded_at_us // SLOT_US, -1), {})
        skip = set(position.rejected)
        for index, record in enumerate(records):
            if index not in skip:
                group = self._group(groups, record)
                group.calls += 1
                group.units += record.quantity

    def _group(self, groups: dict[_GroupKey, _Group], record: UsageRecord) -> _Group:
        """The record's group, made if need be. A deleted application's is kept where the hot loop does not find it: each of its
        records has to be looked at."""
        key: _GroupKey = (record.client_id, record.service, record.secret_id, record.occurred_at_us // SLOT_US)
        if self._directory[record.client_id].deleted_at_us is not None:
            key = (*key, True)
        group = groups.get(key)
        if group is None:
            group = groups[key] = _Group()
        return group

    def _refusal(self, record: UsageRecord, recorded_us: int) -> tuple[Why, str] | None:
        """Why a record does not count; None if it does."""
        invalid = _invalid_field(record)
        if invalid:
            return Why.INVALID_RECORD, invalid
        at = record.occurred_at_us
        if at < recorded_us - LATE_MAX_US:
            return Why.TOO_OLD, f"occurred_at: {_instant(at)} is more than 35 days before it was reported"
        if at > recorded_us + AHEAD_MAX_US:
            return Why.IN_THE_FUTURE, f"occurred_at: {_instant(at)} is more than 5 minutes after it was reported"
        app = self._directory.get(record.client_id)
        if app is None:
            return Why.UNKNOWN_APPLICATION, f"client_id: there is no application {record.client_id}"
        if app.deleted_at_us is not None and at > app.deleted_at_us + AHEAD_MAX_US:
            return Why.DELETED_APPLICATION, f"client_id: {record.client_id} was deleted at {_instant(app.deleted_at_us)}"
        if record.service not in self._services:
            return Why.UNKNOWN_SERVICE, f"service: {record.service} is not in the catalog"
        return None


def _invalid_field(record: UsageRecord) -> str:
    if CLIENT_ID.fullmatch(record.client_id) is None:
        return "client_id: 20 characters a-z and 0-9 are allowed"
    if _SERVICE_ID.fullmatch(record.service) is None:
        return "service: 1 to 32 characters a-z, 0-9 and dash are allowed"
    if _SECRET_ID.fullmatch(record.secret_id) is None:
        return "secret_id: at most 64 printable ASCII characters without space are allowed"
    if not 1 <= record.quantity <= QUANTITY_MAX:
        return f"quantity: 1 to {QUANTITY_MAX} is allowed"
    return ""


def _instant(us: int) -> str:
    try:
        return from_us(us).isoformat()
    except OverflowError:
        return "an instant outside of the years 1 to 9999"
