"""USAGE into counters: what the consumer does with each batch of messages, in its transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping, Sequence
from typing import Final

from services.metering import deadletters, store
from services.metering.decoding import portions
from services.metering.directory import Directory
from services.metering.domain import Outcome, Tally
from services.metering.lapses import NO_LAPSES, Lapses
from services.metering.lease_counts import count_leases, keep_lapsed, read_lapses
from services.metering.marks import mark_accounts
from services.metering.metrics import Metrics
from services.metering.positions import Position, PublisherKey, needs
from services.metering.shelves import Shelves
from services.metering.singles import Effect
from shared.errors import Unavailable
from shared.postgres import Connection
from shared.streams.jetstream import Connected
from shared.streams.message import Message

PORTION_BYTES: Final = 256 * 1024
"""Decoded at once: about 3,000 records as gates write them or 500 events, 5 to 10 ms of work between two looks at everything else
that waits."""
SECRETS_MAX: Final = 100_000
"""Secrets whose last use is remembered."""
USE_ACCURACY_US: Final = 60_000_000
"""The last use of a secret is written at most once in this time."""


class Ingest:
    """Counts USAGE. `services` are the ids of the catalog. `handle` is the consumer's Handle."""

    def __init__(self, services: Container[str], directory: Directory, nc: Connected, metrics: Metrics) -> None:
        self._services = services
        self._directory = directory
        self._nc = nc
        self._metrics = metrics
        self._shelves = Shelves()
        self._uses = Uses()

    async def handle(self, connection: Connection, messages: Sequence[Message]) -> None:
        """Count the messages. Raises Unavailable when the registry's events or the dead letters have to wait."""
        newest = {message.subject: message for message in messages}
        self._uses.begin(messages)
        await self._directory.refresh(connection)
        outcome = await self._tally(connection, messages, NO_LAPSES)
        lapses = await read_lapses(connection, outcome.leases, messages)
        if lapses.any():  # seldom: once more, without what came too late
            outcome = await self._tally(connection, messages, lapses)
        await self._write(connection, outcome, lapses, newest)
        self._metrics.counted(outcome, len(messages))

    async def _tally(self, connection: Connection, messages: Sequence[Message], lapses: Lapses) -> Outcome:
        """What follows from the messages."""
        positions: dict[PublisherKey, Position] = {}
        events: dict[bytes, Effect] = {}
        directory = await self._directory.load(connection, ())
        tally = Tally(self._services, directory, positions, events, lapses)
        asked: set[str] = set()
        for items in portions(messages, PORTION_BYTES):
            needed = needs(items)
            await self._directory.load(connection, needed.client_ids - asked)
            asked |= needed.client_ids
            positions |= await store.read_positions(connection, needed.publishers - positions.keys())
            events |= await store.read_events(connection, needed.events - events.keys())
            for place, item in enumerate(items):
                while missing := tally.add(item):
                    missing |= tally.unknown(items[place + 1 :])
                    await self._directory.load(connection, missing - asked)
                    asked |= missing
            await asyncio.sleep(0)
        for _ in tally.settle():
            await asyncio.sleep(0)
        return tally.outcome()

    async def _write(self, connection: Connection, outcome: Outcome, lapses: Lapses, newest: Mapping[str, Message]) -> None:
        directory = await self._directory.load(connection, ())
        await self._tell(connection, outcome, newest)
        await store.move_positions(connection, outcome.positions)
        await store.remember_events(connection, outcome.events, outcome.corrected)
        await store.list_corrections(connection, outcome.corrections)
        await store.mark_counted(connection, outcome.counters, directory)  # keys before marks, as changes of limits do
        await self._shelves.add_counts(connection, outcome.counters)
        await mark_accounts(connection, outcome.counters, directory)
        await store.use_secrets(connection, self._uses.to_write(outcome.secrets_used))
        await keep_lapsed(connection, outcome.lapsed)
        await self._count_leases(connection, outcome, lapses, newest)
        await store.move_progress(connection, newest)

    async def _count_leases(
        self, connection: Connection, outcome: Outcome, lapses: Lapses, newest: Mapping[str, Message]
    ) -> None:
        """Note what came from leases. Raises Unavailable when one was closed since it was looked at: then all is done again."""
        known = {(lease, subject) for lease, _, subject in lapses.ends}
        ends = await count_leases(connection, outcome.leases)
        told = await store.read_told(connection, newest) if ends.keys() - known else {}
        for (lease, subject), end in ends.items():
            if (lease, subject) not in known and max(end, told.get(subject, 0)) < newest[subject].sequence:
                raise Unavailable(f"The quota lease {lease} was closed meanwhile.")

    async def _tell(self, connection: Connection, outcome: Outcome, newest: Mapping[str, Message]) -> None:
        """Publish the dead letters, before the transaction that passes over them commits."""
        if outcome.rejected:
            told = await store.read_told(connection, newest)
            fresh = [one for one in outcome.rejected if one.message.sequence > told.get(one.message.subject, 0)]
            await deadletters.publish(self._nc(), fresh)


class Uses:
    """Which secrets' last use is due to be written: at most one write a minute for each."""

    def __init__(self) -> None:
        self._written: dict[tuple[str, str], int] = {}
        self._reached: dict[str, int] = {}

    def begin(self, messages: Sequence[Message]) -> None:
        """Look whether these messages come again: then their transaction failed, and what was remembered may not be written."""
        for message in messages:
            if message.sequence <= self._reached.get(message.subject, 0):
                self._written.clear()
            self._reached[message.subject] = message.sequence

    def to_write(self, used: Mapping[tuple[str, str], int]) -> Mapping[tuple[str, str], int]:
        """Those of the uses that are to be written now (last use in microseconds since 1970, by client and secret id)."""
        if len(self._written) > SECRETS_MAX:
            self._written.clear()
        due = {key: us for key, us in used.items() if us >= self._written.get(key, -USE_ACCURACY_US) + USE_ACCURACY_US}
        self._written.update(due)
        return due
