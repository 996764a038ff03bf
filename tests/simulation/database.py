"""Metering's rows as the simulation has them: each method is a transaction, whole or not at all; the rules are the service's own.

What the service's SQL does to quota_lease (setting_aside.py, lease_counts.py, keeper.py) is done to objects here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Final

import msgspec

from services.metering import quota
from services.metering.decoding import portions
from services.metering.domain import Outcome, Tally
from services.metering.grants import Book, Facts, Sum, Terms
from services.metering.growth import App
from services.metering.lapses import NO_LAPSES, LapsedPlace, Lapses, LeaseUse
from services.metering.positions import Position, PublisherKey, needs
from services.metering.rejection import Rejected
from services.metering.singles import Effect
from shared.commands.quota import Answer, LeaseQuota, QuotaLeases, Returned, Wish
from shared.streams.message import Message
from shared.windows import Slot, Window, civil, from_us, to_us
from tests.simulation.calls import outline
from tests.simulation.stream import BEGAN_US, Stream
from tests.simulation.world import World

ACCOUNT, SERVICE, ZONE = "acme", "csr", "Asia/Seoul"
WINDOWS: Final = civil(ZONE)
TERMS: Final = Terms(quota.LEASE_S, quota.MARGIN_S, {SERVICE: None})
PORTION_BYTES: Final = 1_500
"""Small, so that a transaction of the simulation has several portions as well."""


class LeaseRow(msgspec.Struct, gc=False):
    """A row of quota_lease."""

    lease: str
    publisher: str
    subject: str
    client_id: str
    day_us: int
    month_us: int
    units: int
    counted: int = 0
    stated: int | None = None
    extensions: int = 0
    end_sequence: int | None = None
    closed: bool = False

    @property
    def outstanding(self) -> int:
        return 0 if self.closed else quota.outstanding(self.units, self.counted, self.stated)


class Limits(msgspec.Struct):
    """Limits by application, and the account's own. None: none."""

    daily: dict[str, int | None]
    monthly: dict[str, int | None]
    account: int | None = None


Watch = Callable[[Sequence[LeaseRow]], None]
"""Is called after each transaction that changed leases or counters, with the leases that it changed."""


class Database:
    def __init__(self, world: World, stream: Stream, limits: Limits, subjects: Sequence[str]) -> None:
        self.stream = stream
        self.limits = limits
        self.apps = [*limits.daily]
        self.deleted: set[str] = set()
        self.leases: dict[str, LeaseRow] = {}
        self.open: dict[str, LeaseRow] = {}
        self.progress = dict.fromkeys(subjects, 0)
        self.counters: dict[tuple[str, str, int], int] = {}
        self.rejected: list[Rejected] = []
        self.stalled_until = 0.0
        self.watch: Watch = lambda changed: None
        self._world = world
        self._directory = {client_id: App(ACCOUNT, WINDOWS) for client_id in self.apps}
        self._numbers = count(1)
        self._positions: dict[PublisherKey, Position] = {}
        self._events: dict[bytes, Effect] = {}
        self._lapsed: set[LapsedPlace] = set()

    # -- sums

    def units(self, client_id: str, period: str, window_us: int) -> int:
        """Counted units; client_id "": of all the account's applications."""
        if client_id:
            return self.counters.get((client_id, period, window_us), 0)
        return sum(self.counters.get((one, period, window_us), 0) for one in self.apps)

    def limit(self, client_id: str, period: str) -> int | None:
        if not client_id:
            return self.limits.account if period == "m" else None
        return (self.limits.daily if period == "d" else self.limits.monthly)[client_id]

    def _sum(self, client_id: str, period: str, window_us: int) -> Sum:
        outstanding = sum(
            lease.outstanding
            for lease in self.open.values()
            if (lease.day_us if period == "d" else lease.month_us) == window_us and client_id in ("", lease.client_id)
        )
        return Sum(self.units(client_id, period, window_us), outstanding)

    def delete(self, client_id: str) -> None:
        """The application is gone."""
        self.deleted.add(client_id)
        at_us = BEGAN_US + int(self._world.now * 1_000_000)
        self._directory[client_id] = App(ACCOUNT, WINDOWS, at_us)

    # -- granting

    def answer(self, request: LeaseQuota) -> QuotaLeases:
        """What LeaseQuota does: take back, decide, write."""
        changed = [row for one in request.returned if (row := self._take_back(one, request.publisher)) is not None]
        book = Book(TERMS, lambda: f"lease{next(self._numbers)}", trusted=True)
        answers = tuple(self._decide(book, wish, request) for wish in request.wishes)
        for one in book.set_aside.values():
            if one.before:
                row = self.leases[one.lease]
                row.units += one.added
                row.extensions += 1
            else:
                subject = f"usage.records.{request.partition}"
                days = to_us(one.day.start), to_us(one.month.start)
                row = LeaseRow(one.lease, request.publisher, subject, one.scope.client_id, *days, one.added)
                self.leases[one.lease] = self.open[one.lease] = row
            changed.append(row)
        if self._world.trace is not None:
            self._world.note(f"metering answers {request.publisher}: {_short(request, answers)}")
        self.watch(changed)
        return QuotaLeases(answers=answers)

    def _take_back(self, returned: Returned, publisher: str) -> LeaseRow | None:
        row = self.open.get(returned.lease)
        if row is None or row.publisher != publisher or row.stated is not None:
            return None
        row.stated = min(returned.spent, row.units)
        return row

    def _decide(self, book: Book, wish: Wish, request: LeaseQuota) -> Answer:
        day, month = windows(WINDOWS.slot(to_us(wish.at)))
        return book.answer(wish, day, month, self.facts(wish, request, to_us(day.start), to_us(month.start)))

    def facts(self, wish: Wish, request: LeaseQuota, day_us: int, month_us: int) -> Facts:
        """What the one statement of the service reads."""
        client_id, publisher = wish.client_id, request.publisher
        others = {
            row.publisher
            for row in self.open.values()
            if row.client_id == client_id and row.stated is None and row.day_us == day_us and row.publisher != publisher
        }
        row = self.open.get(wish.lease)
        extendable = (
            row is not None
            and row.publisher == publisher
            and row.client_id == client_id
            and row.day_us == day_us
            and row.stated is None
            and row.end_sequence is None
        )
        return Facts(
            ACCOUNT,
            client_id in self.deleted,
            True,
            False,
            1,
            self.limits.daily[client_id],
            self.limits.monthly[client_id],
            1,
            self.limits.account,
            self._sum(client_id, "d", day_us),
            self._sum(client_id, "m", month_us),
            self._sum("", "m", month_us),
            len(others),
            row.units if extendable and row is not None else None,
        )

    # -- counting

    def count(self, subject: str, most: int) -> bool:
        """Count the next messages of a subject, in one transaction. Whether there were any."""
        messages = self.stream.after(subject, self.progress[subject], most)
        if not messages:
            return False
        outcome = self._tally(messages, NO_LAPSES, self._positions, self._events)
        lapses = self._lapses(outcome.leases, subject, messages[-1].sequence)
        if lapses.any():
            outcome = self._tally(messages, lapses, self._positions, self._events)
        self._positions.update((key, _stored(one)) for key, one in outcome.positions.items())
        self._events |= outcome.events
        _grow(self.counters, outcome)
        self._lapsed.update(outcome.lapsed)
        self.rejected += outcome.rejected
        self.progress[subject] = messages[-1].sequence
        self._world.note(
            f"counted: {subject} up to {messages[-1].sequence}, {outcome.records} records, {len(outcome.lapsed)} lapsed"
        )
        self.watch(self._count_leases(outcome.leases))
        return True

    def _count_leases(self, used: Mapping[LeaseUse, int]) -> list[LeaseRow]:
        changed = []
        for use, units in used.items():
            row = self.leases.get(use.lease)
            if row is not None and (row.publisher, row.subject, row.client_id, row.day_us) == (
                use.publisher, use.subject, use.client_id, use.day_start_us,
            ):  # fmt: skip
                row.counted += units
                changed.append(row)
        return changed

    def _lapses(self, used: Mapping[LeaseUse, int], subject: str, newest: int) -> Lapses:
        """What the service reads of closed leases."""
        rows = [row for use in used if (row := self.leases.get(use.lease)) is not None and row.closed]
        ends = {
            (row.lease, row.publisher, row.subject): row.end_sequence
            for row in rows
            if row.subject == subject and row.end_sequence is not None and row.end_sequence < newest
        }
        return Lapses(ends, {}, frozenset())

    def _tally(
        self,
        messages: Sequence[Message],
        lapses: Lapses,
        known: Mapping[PublisherKey, Position],
        known_events: Mapping[bytes, Effect],
    ) -> Outcome:
        """As services/metering/ingest.py does it."""
        positions: dict[PublisherKey, Position] = {}
        events: dict[bytes, Effect] = {}
        tally = Tally({SERVICE}, self._directory, positions, events, lapses)
        for items in portions(messages, PORTION_BYTES):
            needed = needs(items)
            for key in needed.publishers:
                if key in known and key not in positions:
                    positions[key] = msgspec.structs.replace(known[key])
            events |= {key: known_events[key] for key in needed.events if key in known_events and key not in events}
            for item in items:
                tally.add(item)
        return tally.outcome()

    def count_again(self) -> dict[tuple[str, str, int], int]:
        """What the counters would be, were all of USAGE counted again from its beginning, with leases forgotten."""
        told = {subject: self.stream.end(subject) for subject in self.progress}
        lapses = Lapses({}, told, frozenset(self._lapsed))
        counters: dict[tuple[str, str, int], int] = {}
        _grow(counters, self._tally(self.stream.messages, lapses, {}, {}))
        return counters

    # -- keeping

    def expire(self, lease: str, extensions: int, end: int) -> None:
        """Note the end of the partition that was seen after the lease was over; not if it was extended meanwhile."""
        row = self.open.get(lease)
        if row is not None and may_end(row, extensions) and (row.end_sequence is None or row.end_sequence > end):
            row.end_sequence = end
            self._world.note(f"{lease} is over; its partition ends at {end}")

    def close(self) -> None:
        """Close what everything has come from."""
        changed = []
        for row in list(self.open.values()):
            returned = row.stated is not None and row.counted >= row.stated
            if returned or quota.may_close(row.end_sequence, self.progress[row.subject]):
                row.closed = True
                del self.open[row.lease]
                changed.append(row)
                if self._world.trace is not None:
                    self._world.note(
                        f"{row.lease} is closed, {'returned' if returned else 'ended'}: {row.counted} of {row.units} counted"
                    )
        if changed:
            self.watch(changed)


def may_end(row: LeaseRow, extensions: int) -> bool:
    """Whether an end that was looked up for a lease with so many extensions is still about it."""
    return row.extensions == extensions


def windows(slot: Slot) -> tuple[Window, Window]:
    """Day and month."""
    day = Window(from_us(slot.day_start_us), from_us(slot.day_end_us))
    return day, Window(from_us(slot.month_start_us), from_us(slot.month_end_us))


def _stored(position: Position) -> Position:
    """As a row of publisher_position says it."""
    return Position(position.seq, position.retracted, position.recorded_at_us, position.rejected, position.fingerprint())


def _grow(counters: dict[tuple[str, str, int], int], outcome: Outcome) -> None:
    for key, grown in outcome.counters.items():
        if key.period != "h":
            place = key.client_id, key.period, key.window_start_us
            counters[place] = counters.get(place, 0) + grown.units


def _short(request: LeaseQuota, answers: Sequence[Answer]) -> str:
    """A request and its answers in one line."""
    texts = [f"{one.lease} comes back, {one.spent} spent" for one in request.returned]
    for wish, answer in zip(request.wishes, answers, strict=True):
        texts.append(f"{wish.needed} to {wish.wanted} of {wish.client_id[0]} ({wish.lease or 'new'}): {outline(answer)}")
    return "; ".join(texts)
