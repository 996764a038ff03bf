"""Shelves: the parts of the table of counters, one for each month of hours and of days, for each year of months (in UTC).

They are made before anything is put on them, and dropped whole when what is on them is old (`retention.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

import asyncpg

from services.metering import store
from services.metering.growth import Count, CounterKey
from shared.errors import Unavailable
from shared.postgres import Connection
from shared.windows import EPOCH, from_us

STARTS_MAX: Final = 50_000
"""Windows' starts remembered, at most: each hour of five years."""

_SINCE: Final = "SELECT period, since FROM kept"
_MAKE: Final = "SELECT make_shelf(period, first) FROM unnest($1::text[], $2::timestamptz[]) AS s(period, first)"

_Start = tuple[str, int]
"""Period, and the window's start in microseconds since 1970 UTC."""


class Shelf(NamedTuple):
    """`period` is h, d or m; `first` the first instant of its month, or of its year."""

    period: str
    first: datetime


def shelf_of(period: str, at: datetime) -> Shelf:
    """The shelf for a window of that period which begins at `at`."""
    at = at.astimezone(UTC)
    return Shelf(period, datetime(at.year, 1 if period == "m" else at.month, 1, tzinfo=UTC))


class Kept(NamedTuple):
    """From when on hours and days are there; months are for ever. Nothing dropped yet: 1970."""

    hours: datetime
    days: datetime


async def kept_since(connection: Connection) -> Kept:
    """What has not been dropped: windows that begin before these instants are not told by the rows any more."""
    since = {row["period"]: row["since"] for row in await connection.fetch(_SINCE)}
    return Kept(since["h"], since["d"])


async def make_shelves(connection: Connection, shelves: Iterable[Shelf]) -> None:
    """Have these there, unless they are not kept any more."""
    wanted = sorted(shelves)
    await connection.execute(_MAKE, [shelf.period for shelf in wanted], [shelf.first for shelf in wanted])


class Shelves:
    """Puts what counters grow by on shelves. What is known to have one is remembered: mostly there is nothing to ask for."""

    def __init__(self) -> None:
        self._there: set[Shelf] = set()
        self._known: set[_Start] = set()

    async def add_counts(self, connection: Connection, counters: Mapping[CounterKey, Count]) -> None:
        """Let the counters grow; those that are not kept any more are left out. Raises Unavailable when a shelf that was there is
        gone: the next time it is known."""
        starts: set[_Start] = {(key.period, key.window_start_us) for key in counters}
        gone = await self._prepare(connection, starts - self._known) if starts - self._known else set()
        kept = {key: count for key, count in counters.items() if key[2:] not in gone} if gone else counters
        try:
            await store.add_counts(connection, kept)
        except asyncpg.CheckViolationError as error:  # dropped meanwhile, or made in a transaction that failed
            self._there.clear()
            self._known.clear()
            raise Unavailable("A shelf of counters is not there any more.") from error

    async def _prepare(self, connection: Connection, starts: set[_Start]) -> set[_Start]:
        """Have shelves for these; which of them are not kept any more. Those are not remembered: counting again may change it."""
        shelves = {start: shelf_of(start[0], from_us(start[1])) for start in starts}
        if missing := set(shelves.values()) - self._there:
            since = await kept_since(connection)
            first = {"h": since.hours, "d": since.days}
            missing = {shelf for shelf in missing if shelf.first >= first.get(shelf.period, EPOCH)}
            await make_shelves(connection, missing)
            self._there |= missing
        if len(self._known) > STARTS_MAX:
            self._known.clear()
        kept = {start for start, shelf in shelves.items() if shelf in self._there}
        self._known |= kept
        return starts - kept
