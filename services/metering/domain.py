"""Counting: messages of USAGE, one after the other, into what counters grow by. Pure: what is known comes in with the call.

The same messages in any cut into tallies, each repeated or not, give the same counters in the end.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, MutableMapping, Sequence, Set
from itertools import chain, islice
from typing import Final, NamedTuple

from services.metering.columns import Rows
from services.metering.decoding import Batch, Item, Packed, Single, Void, digest_of, encode_records, unpack
from services.metering.fields import invalid_field, read_row
from services.metering.growth import App, Count, CounterKey, Group, Growth, Source
from services.metering.lapses import NO_LAPSES, LapsedPlace, Lapses, LeaseUse
from services.metering.positions import NO_SUCH_PLACE, Position, PublisherKey, needs, voided_of
from services.metering.rejection import BadRecord, Rejected, Why, reject_records
from services.metering.singles import Correction, Counted, Effect, Singles
from shared.events.usage import QUANTITY_MAX, UsageRecord
from shared.windows import SLOT_US, from_us, to_us

DAY_US: Final = 86_400_000_000
LATE_MAX_US: Final = 35 * DAY_US
"""How long after it occurred a call still counts, measured when JetStream stored its record."""
AHEAD_MAX_US: Final = 300_000_000
"""How far a publisher's clock may be ahead, and how long after an application's deletion calls still come through the gates."""
REMEMBERED_US: Final = 36 * DAY_US
"""How long repetitions are recognised: longer than LATE_MAX_US, so that what is forgotten could not count anyway."""

STEP: Final = 2_000
"""Groups that are settled between two looks at everything else: some 5 ms of work."""


class _Group:
    """Records that are counted together."""

    __slots__ = ("calls", "latest_us", "units")

    def __init__(self) -> None:
        self.calls = 0
        self.units = 0
        self.latest_us = 0


_GroupKey = tuple[str, str, str, str, int] | tuple[str, str, str, str, int, bool]
"""(client_id, service, secret_id, lease, minute), and True if the application is deleted"""


class _Bucket:
    """Rows that occurred in one minute and were stored in one, counted."""

    __slots__ = ("counts", "latest_us")

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}
        self.latest_us = 0


class Outcome(NamedTuple):
    """What follows from the messages of one transaction. Counts of what was taken back are negative.

    `positions` and `events` are those that moved or are new, `corrected` the records that count otherwise since `corrections`,
    by the key of their event; `secrets_used` is the last use, in microseconds since 1970 UTC and accurate to a minute, by
    (client_id, secret_id); `records` says how many records were counted, `repeated` how many messages were known before;
    `leases` are units by what they were spent from, `lapsed` the places of records that came too late for that.
    """

    counters: Mapping[CounterKey, Count]
    rejected: Sequence[Rejected]
    positions: Mapping[PublisherKey, Position]
    events: Mapping[bytes, Single | Void]
    corrections: Sequence[Correction]
    corrected: Mapping[bytes, Counted]
    secrets_used: Mapping[tuple[str, str], int]
    records: int
    repeated: int
    leases: Mapping[LeaseUse, int]
    lapsed: Sequence[LapsedPlace]


class Tally:
    """Adds up the messages of one transaction.

    `directory`, `positions` and `events` (by key) hold what is known so far of the applications, publishers and single
    events that `needs` named; the tally writes to the last two what it learns. What is in none of them is unknown or new.
    `lapses` is what is known of closed leases that the messages name.
    """

    def __init__(
        self,
        services: Container[str],
        directory: Mapping[str, App],
        positions: MutableMapping[PublisherKey, Position],
        events: MutableMapping[bytes, Effect],
        lapses: Lapses = NO_LAPSES,
    ) -> None:
        self._services = services
        self._directory = directory
        self._positions = positions
        self._lapses = lapses
        self._lapsed: list[LapsedPlace] = []
        self._groups: dict[tuple[Source, int], dict[_GroupKey, _Group]] = {}
        self._buckets: dict[tuple[Source, int], _Bucket] = {}
        self._vouched: dict[bytes, UsageRecord] = {}
        self._asked: set[str] = set()
        self._growth = Growth(directory)
        self._singles = Singles(directory, events, self._growth)
        self._rejected: list[Rejected] = []
        self._moved: dict[PublisherKey, Position] = {}
        self._records = 0
        self._repeated = 0

    def add(self, item: Item) -> Set[str]:
        """Count one message. In the order of the stream, for each subject.

        Client IDs that come back have to be looked up for the directory first, if they exist: nothing was counted, add it again.
        """
        if isinstance(item, Packed):
            return self._add_packed(item)
        if isinstance(item, Batch):
            self._add_batch(item)
        elif isinstance(item, (Single, Void)):
            return self._add_event(item)
        else:
            self._rejected.append(item)
        return frozenset()

    def unknown(self, items: Iterable[Item]) -> Set[str]:
        """Client IDs of packed batches that will be asked for, so that they can be looked up together."""
        packed = (item for item in items if isinstance(item, Packed))
        rows = {row for item in packed for rows in item.rows for row in rows} - self._vouched.keys()
        found = self._unknown({record.client_id for row in rows if (record := read_row(row)) is not None})
        self._asked |= found
        return found

    def settle(self) -> Iterator[None]:
        """Bring what was added into the counters: in steps, for the sake of whatever else waits. Nothing is added after that."""
        step = 0
        while self._groups:
            (source, sign), groups = self._groups.popitem()
            for key, group in groups.items():
                one = Group(*key[:5], source)
                self._growth.add(one, sign * group.calls, sign * group.units, group.latest_us)
                step += 1
                if step % STEP == 0:
                    yield
        while self._buckets:
            (source, minute), bucket = self._buckets.popitem()
            for row, calls in bucket.counts.items():
                record = self._vouched[row]
                one = Group(record.client_id, record.service, record.secret_id, record.lease, minute, source)
                self._growth.add(one, calls, calls * record.quantity, bucket.latest_us)
                step += 1
                if step % STEP == 0:
                    yield

    def outcome(self) -> Outcome:
        """Everything added."""
        for _ in self.settle():
            pass
        grown = self._growth
        return Outcome(
            grown.counters, self._rejected, self._moved, self._singles.new, self._singles.corrections,
            self._singles.corrected, grown.secrets_used, self._records, self._repeated, grown.leases, self._lapsed,
        )  # fmt: skip

    def _add_packed(self, item: Packed) -> Set[str]:
        key = (item.publisher, item.partition)
        position = self._positions.get(key)
        if position is not None and item.seq <= position.seq:
            self._repeated += 1
            return frozenset()
        recorded_us = to_us(item.message.recorded_at)
        unknown: set[str] = set()
        leased = any(rows.leased for rows in item.rows)
        sender = (item.publisher, item.message.subject) if leased else ("", "")  # without leases all senders' add up together
        source = Source(recorded_us // SLOT_US, *sender)
        if not self._lapses.any() and self._count_rows(item.rows, recorded_us, source, unknown):
            moved = Position(item.seq, False, recorded_us, item=item._replace(rows=()))  # its digest needs the message only
            self._positions[key] = self._moved[key] = moved
            return frozenset()
        one = None
        if not unknown:
            one = unpack(item)
            unknown = self._unknown(needs([one]).client_ids)
        if unknown:
            self._asked |= unknown
            return unknown
        assert one is not None, "it was read, as nothing is unknown"
        return self.add(one)

    def _count_rows(self, all_rows: Sequence[Rows], recorded_us: int, source: Source, unknown: set[str]) -> bool:
        """Count the rows if each of them counts. Otherwise nothing has changed; `unknown` are client IDs to be looked up."""
        minute = all_rows[0].earliest_us // SLOT_US
        earliest_us = min(rows.earliest_us for rows in all_rows)
        latest_us = max(rows.latest_us for rows in all_rows)
        if not (recorded_us - LATE_MAX_US <= earliest_us and latest_us <= recorded_us + AHEAD_MAX_US):
            return False
        if not earliest_us // SLOT_US == latest_us // SLOT_US == minute:
            return False
        bucket = self._buckets.setdefault((source, minute), _Bucket())
        counts = bucket.counts
        before = len(counts)
        for rows in all_rows:
            rows.count_into(counts)
        if len(counts) > before:
            fresh = list(islice(reversed(counts), len(counts) - before))
            bad = [row for row in fresh if not self._vouch(row, minute, unknown)]  # each is looked at: all the unknown are told
            if bad:
                for row in chain.from_iterable(all_rows):
                    counts[row] -= 1
                for row in fresh:
                    del counts[row]
                return False
        bucket.latest_us = max(bucket.latest_us, latest_us)
        self._records += sum(rows.count for rows in all_rows)
        return True

    def _vouch(self, row: bytes, minute: int, unknown: set[str]) -> bool:
        """Whether every record with these bytes counts that occurred in that minute; other rules of time have been looked at."""
        record = self._vouched.get(row)
        if record is None:
            record = read_row(row)
            if record is None or record.service not in self._services:
                return False
            if record.client_id not in self._directory:
                unknown |= self._unknown({record.client_id})
                return False
            self._vouched[row] = record
        deleted_at_us = self._directory[record.client_id].deleted_at_us
        return deleted_at_us is None or (minute + 1) * SLOT_US <= deleted_at_us + AHEAD_MAX_US

    def _unknown(self, client_ids: Set[str]) -> set[str]:
        return {one for one in client_ids if one not in self._asked and one not in self._directory}

    def _add_batch(self, item: Batch) -> None:
        batch, message = item.batch, item.message
        key = (batch.publisher, item.partition)
        position = self._positions.get(key)
        recorded_us = to_us(message.recorded_at)
        if position is None or batch.seq > position.seq:
            voided = voided_of(item)
            if voided is None:
                self._rejected.append(Rejected(message, Why.CONFLICT, NO_SUCH_PLACE))
                return
            whole = batch.retracted and not voided
            rejected: tuple[int, ...] = ()
            if not whole:
                self._rejected.extend(item.unreadable)
                rejected = self._count(item, voided)
            moved = Position(batch.seq, whole, recorded_us, rejected, item=item)
            self._positions[key] = self._moved[key] = moved
        elif batch.seq == position.seq and batch.retracted and not position.retracted:
            if digest_of(batch.records) != position.fingerprint():
                reason = f"it takes back seq {batch.seq} of publisher {batch.publisher}, but that held other records"
                self._rejected.append(Rejected(message, Why.CONFLICT, reason))
                return
            self._retract(item, key, position)
        else:
            self._repeated += 1

    def _retract(self, item: Batch, key: PublisherKey, position: Position) -> None:
        """Take back the publisher's last batch, which was counted, or the records of it that are voided. None of them twice."""
        voided = voided_of(item)
        if voided is None:
            self._rejected.append(Rejected(item.message, Why.CONFLICT, NO_SUCH_PLACE))
            return
        skip = set(position.rejected)
        places = sorted(voided - skip) if item.batch.voided else [i for i in range(len(item.batch.records)) if i not in skip]
        if item.batch.voided and not places:
            self._repeated += 1
            return
        self._take_back(item, places, position.recorded_at_us)
        if item.batch.voided:
            position.rejected = tuple(sorted(skip | voided))
        else:
            position.retracted = True
        self._moved[key] = position

    def _add_event(self, item: Single | Void) -> Set[str]:
        before = self._singles.digest_of(item)
        if before == item.digest:
            self._repeated += 1
        elif before is not None:
            reason = "an event with this source and id was counted before, with another payload"
            self._rejected.append(Rejected(item.message, Why.CONFLICT, reason))
        elif isinstance(item, Void):
            return self._add_void(item)
        else:
            recorded_us = to_us(item.message.recorded_at)
            bad = self._count_each([item.record], recorded_us, Source(recorded_us // SLOT_US, "", ""))
            if bad:
                self._rejected.append(Rejected(item.message, bad[0].why, bad[0].reason))
            else:
                self._singles.learn(item)
        return frozenset()

    def _add_void(self, item: Void) -> Set[str]:
        unknown = self._unknown(self._singles.clients_of(item))
        self._asked |= unknown
        refused = None if unknown else self._singles.correct(item)
        if refused is not None:
            self._rejected.append(refused)
        return unknown

    def _count(self, item: Batch, voided: Set[int]) -> tuple[int, ...]:
        """Count the records of a batch that may count, but for the voided ones; the indexes of all the others."""
        message, records = item.message, item.batch.records
        recorded_us = to_us(message.recorded_at)
        source = Source(recorded_us // SLOT_US, item.batch.publisher, message.subject)
        lapsed = set(self._lapses.of(item)) - voided
        if lapsed or voided:
            kept = [index for index in range(len(records)) if index not in voided and index not in lapsed]
            found = self._count_each([records[index] for index in kept], recorded_us, source)
            bad = [one._replace(place=kept[one.place]) for one in found]
            bad += [BadRecord(index, Why.LEASE_ENDED, f"lease: {records[index].lease} had ended", 0) for index in lapsed]
            bad.sort()
        else:
            bad = self._count_each(records, recorded_us, source)
        bad = [one._replace(number=item.written(one.place)) for one in bad]
        self._lapsed += [LapsedPlace(message.subject, message.sequence, item.written(index)) for index in sorted(lapsed)]

        def written(places: Sequence[int]) -> bytes:
            return encode_records(message, [records[place] for place in places])

        self._rejected.extend(reject_records(message, bad, written))
        return tuple(sorted({one.place for one in bad} | voided))

    def _count_each(self, records: Sequence[UsageRecord], recorded_us: int, source: Source) -> list[BadRecord]:
        """Count what may count; the rest comes back. The hot loop of the service."""
        groups = self._groups.setdefault((source, 1), {})
        find = groups.get
        oldest, newest = recorded_us - LATE_MAX_US, recorded_us + AHEAD_MAX_US
        bad: list[BadRecord] = []
        for index, record in enumerate(records):
            at = record.occurred_at_us
            quantity = record.quantity
            group = find((record.client_id, record.service, record.secret_id, record.lease, at // SLOT_US))
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

    def _take_back(self, item: Batch, indexes: Sequence[int], recorded_us: int) -> None:
        """Take back records that were counted when JetStream had stored them at `recorded_us`."""
        source = Source(recorded_us // SLOT_US, item.batch.publisher, item.message.subject)
        groups = self._groups.setdefault((source, -1), {})
        for index in indexes:
            record = item.batch.records[index]
            group = self._group(groups, record)
            group.calls += 1
            group.units += record.quantity

    def _group(self, groups: dict[_GroupKey, _Group], record: UsageRecord) -> _Group:
        """The record's group, made if need be. A deleted application's is kept where the hot loop does not find it: each of its
        records has to be looked at."""
        key: _GroupKey = (record.client_id, record.service, record.secret_id, record.lease, record.occurred_at_us // SLOT_US)
        if self._directory[record.client_id].deleted_at_us is not None:
            key = (*key, True)
        group = groups.get(key)
        if group is None:
            group = groups[key] = _Group()
        return group

    def _refusal(self, record: UsageRecord, recorded_us: int) -> tuple[Why, str] | None:
        """Why a record does not count; None if it does."""
        invalid = invalid_field(record)
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


def _instant(us: int) -> str:
    try:
        return from_us(us).isoformat()
    except OverflowError:
        return "an instant outside of the years 1 to 9999"
