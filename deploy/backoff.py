"""How long to wait before a process that ended is started again."""

from __future__ import annotations

from typing import Final

DELAY_MIN_S: Final = 0.2
DELAY_MAX_S: Final = 10.0
HEALTHY_S: Final = 60.0
"""A process that was ready this long starts with a clean record when it ends."""


class Backoff:
    """Doubles from 0.2 s to 10 s with every end in a row."""

    def __init__(self) -> None:
        self._ends = 0

    def after_end(self, healthy_s: float) -> float:
        """The delay in seconds, after an end that followed `healthy_s` seconds of being ready."""
        if healthy_s >= HEALTHY_S:
            self._ends = 0
        delay = min(DELAY_MAX_S, DELAY_MIN_S * 2.0**self._ends)
        self._ends = min(self._ends + 1, 30)
        return delay
