"""How long detail is kept: hours and days go by the month, once all that they count is in days and months. Months stay."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from services.metering.shelves import Shelf, make_shelves, shelf_of
from shared.clock import Clock
from shared.postgres import Connection

log = logging.getLogger(__name__)

DUE_S: Final = 600.0
DROP_S: Final = 60.0
"""Between two attempts to drop a shelf that is in use."""
PAGE: Final = 500
"""Applications checked at once: up to a million rows in the busiest month, a second's work."""
MONTHS_MIN: Final = 2
"""Late records come up to 35 days after: more than one month, less than two."""

_COARSER: Final = {"h": "d", "d": "m"}
_WORDS: Final = {"h": "hours", "d": "days", "m": "months"}

# Measured by what is counted, too: neither a clock that is wrong nor counting again makes anything old before its time.
_AS_OF: Final = "SELECT least($1::timestamptz, max(recorded_at)) FROM progress WHERE sequence > 0 HAVING count(*) > 0"
_OLDEST: Final = """
    SELECT to_date(right(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC'
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = ('counter_' || $1::text)::regclass ORDER BY c.relname LIMIT 1
"""
_PAGE_END: Final = """
    SELECT max(client_id) FROM (SELECT client_id FROM app WHERE client_id > $1 ORDER BY client_id LIMIT $2) AS page
"""
# Each fine window belongs to the last coarse one of its application and service that begins with it or before; both grow in one
# transaction, so there is one. A correction changes only the windows that are still open: it is left out, and where there was
# one, calls and late units are not compared. Of a coarse window that begins before the shelf, fine ones are gone.
_CHECK: Final = """
    WITH one AS (
        SELECT client_id, service, period, window_start, calls, units - corrected_units AS units, late_units, corrected_units
        FROM counter WHERE period = $1 AND window_start >= $3 AND window_start < $5
            AND client_id > $6 AND ($7::text IS NULL OR client_id <= $7)
        UNION ALL
        SELECT client_id, service, period, window_start, calls, units - corrected_units AS units, late_units, corrected_units
        FROM counter WHERE period = $2 AND window_start >= $3 - interval '32 days' AND window_start < $5
            AND client_id > $6 AND ($7::text IS NULL OR client_id <= $7)
    ), owned AS (
        SELECT *, max(window_start) FILTER (WHERE period = $2) OVER (
            PARTITION BY client_id, service ORDER BY window_start, period = $1) AS owner FROM one
    ), compared AS (
        SELECT client_id, service, owner, count(*) FILTER (WHERE period = $1 AND window_start < $4) AS counters,
            coalesce(sum(calls) FILTER (WHERE period = $1), 0) AS calls,
            coalesce(sum(units) FILTER (WHERE period = $1), 0) AS units,
            coalesce(sum(late_units) FILTER (WHERE period = $1), 0) AS late,
            coalesce(sum(calls) FILTER (WHERE period = $2), 0) AS in_calls,
            coalesce(sum(units) FILTER (WHERE period = $2), 0) AS in_units,
            coalesce(sum(late_units) FILTER (WHERE period = $2), 0) AS in_late,
            bool_or(corrected_units <> 0) AS corrected
        FROM owned GROUP BY client_id, service, owner
    )
    SELECT coalesce(sum(counters), 0)::bigint AS counters, min(client_id || ' ' || service) FILTER (WHERE counters > 0 AND (
        owner IS NULL OR units > in_units OR owner >= $3 AND units <> in_units
        OR NOT corrected AND (calls > in_calls OR late > in_late OR owner >= $3 AND (calls, late) <> (in_calls, in_late))
    )) AS differs
    FROM compared WHERE owner IS NULL OR owner < $4
"""
_DROP: Final = "SELECT drop_shelf($1, $2)"


class Policy(NamedTuple):
    """Months that detail is kept for, besides the one that is running."""

    hours: int = 36
    days: int = 120

    def first_kept(self, period: str, at: datetime) -> datetime:
        """From when on hours (h) or days (d) are kept at that instant."""
        at = at.astimezone(UTC)
        months = at.year * 12 + at.month - 1 - (self.hours if period == "h" else self.days)
        return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


class _Check(NamedTuple):
    """How far a shelf is checked: up to which application, and how many of its counters were found in coarser ones."""

    shelf: Shelf
    after: str = ""
    counters: int = 0
    done: bool = False


class Retention:
    """Makes shelves ahead and drops old ones: little by little, a step at a time."""

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._check: _Check | None = None
        self._refused: set[Shelf] = set()
        self._looked_at: float | None = None
        self._drop_at: float | None = None

    async def step(self, connection: Connection) -> bool:
        """Do one piece of what is due; whether there is more. Raises LockNotAvailableError when a shelf that is to be dropped
        is in use."""
        if self._check is None:
            if self._is_time(self._looked_at, DUE_S):
                now = self._clock.now()
                await make_shelves(connection, ahead(now))
                shelf = await self._due(connection, now)
                self._check = None if shelf is None else _Check(shelf)
                self._looked_at = self._clock.monotonic()
        elif not self._check.done:
            self._check = await self._look(connection, self._check)
        elif self._is_time(self._drop_at, DROP_S):
            await self._drop(connection, self._check)
            self._check = self._looked_at = None
        return self._check is not None or self._looked_at is None

    async def _due(self, connection: Connection, now: datetime) -> Shelf | None:
        """The oldest shelf that the policy keeps no longer."""
        as_of: datetime | None = await connection.fetchval(_AS_OF, now)
        if as_of is None:
            return None
        for period in _COARSER:
            first: datetime | None = await connection.fetchval(_OLDEST, period)
            if first is not None and first < self._policy.first_kept(period, as_of):
                shelf = Shelf(period, first)
                return None if shelf in self._refused else shelf
        return None

    async def _look(self, connection: Connection, check: _Check) -> _Check | None:
        """Check the next applications: all that the shelf counts of them has to be in coarser counters."""
        period, first = check.shelf
        after = _following(first)
        upto: str | None = await connection.fetchval(_PAGE_END, check.after, PAGE)
        bounds = (first, after, _following(after))
        row = await connection.fetchrow(_CHECK, period, _COARSER[period], *bounds, check.after, upto)
        assert row is not None, "an aggregate"
        if row["differs"] is not None:
            self._refused.add(check.shelf)
            log.error(
                "metering: the %s of %s are NOT dropped: those of %s are not what its %s count",
                _WORDS[period], f"{first:%Y-%m}", row["differs"], _WORDS[_COARSER[period]],
            )  # fmt: skip
            return None
        return check._replace(after=upto or check.after, counters=check.counters + row["counters"], done=upto is None)

    async def _drop(self, connection: Connection, check: _Check) -> None:
        period, first = check.shelf
        self._drop_at = self._clock.monotonic()
        await connection.execute(_DROP, period, first)
        self._drop_at = None
        log.info(
            "metering: the %s of %s were dropped: %d counters, all of them in the %s",
            _WORDS[period], f"{first:%Y-%m}", check.counters, _WORDS[_COARSER[period]],
        )  # fmt: skip

    def _is_time(self, last: float | None, every_s: float) -> bool:
        return last is None or self._clock.monotonic() - last >= every_s


def ahead(now: datetime) -> Iterator[Shelf]:
    """The shelves of this month and of the next."""
    for at in (now, shelf_of("h", now).first + timedelta(days=32)):
        for period in _WORDS:
            yield shelf_of(period, at)


def _following(month: datetime) -> datetime:
    """The first instant of the month after the one that begins then."""
    return shelf_of("h", month + timedelta(days=32)).first
