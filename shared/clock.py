"""The only place that reads a clock. Everything else is handed the time, so that tests and replays can choose it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final, Protocol


class Clock(Protocol):
    """Gives the civil time for facts and a monotonic time for intervals."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC, to the microsecond."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back, and goes on while the machine sleeps. For timeouts and intervals
        only."""
        ...


# Goes on while the machine sleeps, which CLOCK_MONOTONIC does not on Linux: two intervals on two machines stay comparable.
_INTERVALS: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.clock_gettime(_INTERVALS)


class FixedClock:
    """A clock that moves only when told. For tests, simulations and replays."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks on by `seconds` (which may be fractional, never negative)."""
        if seconds < 0:
            raise ValueError("a clock does not go back")
        self._now = datetime.fromtimestamp(self._now.timestamp() + seconds, UTC)
        self._monotonic += seconds
