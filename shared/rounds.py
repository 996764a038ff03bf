"""A background task that does something again and again, and can say how it is: the same for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from shared.errors import TollbookError
from shared.readiness import Readiness
from shared.streams.jetstream import StreamRefused
from shared.streams.passing import may_pass

log = logging.getLogger(__name__)

BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 5.0

Step = Callable[[], Awaitable[float | None]]
"""One round. What it returns is how long to pause at least, in seconds, before the next one (None: not at all)."""


class Rounds:
    """Does `step` whenever woken, else every `every_s` (which a step may change), until cancelled.

    A round that fails is said in `readiness`, and in the log once as long as it says the same, with a traceback if it is none of
    the failures that may pass or say what to do; it is tried again for ever, with back-off. `name` says whose rounds these are.
    """

    def __init__(self, name: str, step: Step, every_s: float) -> None:
        self.trouble = "not started yet"
        self.every_s = every_s
        self._name = name
        self._step = step
        self._woken = asyncio.Event()
        self._backoff_s = BACKOFF_MIN_S

    def wake(self) -> None:
        """There is something to do: now, not when it is time. Call it from the event loop's thread."""
        self._woken.set()

    def readiness(self) -> Readiness:
        """Ready while rounds go through."""
        return Readiness(not self.trouble, self.trouble)

    def went_well(self) -> None:
        """All is well: for a step that goes on for long to say in the middle."""
        self.trouble, self._backoff_s = "", BACKOFF_MIN_S

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._woken.clear()
            try:
                pause_s = await self._step()
            except Exception as error:
                self._report(error)
                await asyncio.sleep(self._backoff_s)
                self._backoff_s = min(self._backoff_s * 2, BACKOFF_MAX_S)
                continue
            self.went_well()
            await asyncio.sleep(pause_s or 0)
            await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self.every_s):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _report(self, error: Exception) -> None:
        said = f"{self._name}: {error or type(error).__name__}"
        if said != self.trouble:
            expected = isinstance(error, StreamRefused | TollbookError) or may_pass(error)
            log.error("%s", said, exc_info=None if expected else error)
        self.trouble = said
