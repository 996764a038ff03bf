"""Whether an application has tried a service out: asked of metering, which counts a call a moment after it was made."""

from __future__ import annotations

import asyncio
from typing import Final

from shared.clock import Clock
from shared.commands.metering import SERVICE as METERING
from shared.commands.metering import FirstCall, GetFirstCall
from shared.commands.requester import ask
from shared.errors import NotFound, Unavailable
from shared.streams.jetstream import Connected

WAIT_S: Final = 1.5
"""How long a call of just now is waited for, at most."""
POLL_S: Final = 0.1


class FirstCalls:
    """Asks metering."""

    def __init__(self, nc: Connected, clock: Clock) -> None:
        self._nc = nc
        self._clock = clock

    async def made(self, account: str, client_id: str, service: str) -> bool:
        """Whether it has made a successful call. Raises Unavailable when metering does not say so of now within WAIT_S."""
        asked_at, deadline = self._clock.now(), self._clock.monotonic() + WAIT_S
        query = GetFirstCall(account=account, client_id=client_id, service=service)
        while (left_s := deadline - self._clock.monotonic()) > 0:
            found = await self._ask(query, left_s)
            if found is not None and (found.called or found.as_of >= asked_at):
                return found.called
            await asyncio.sleep(POLL_S)
        raise Unavailable(f"The service {METERING} has not counted the calls of this moment yet. Ask again in a second.")

    async def _ask(self, query: GetFirstCall, timeout_s: float) -> FirstCall | None:
        """None: metering has not heard of the application yet."""
        try:
            return await ask(self._nc(), METERING, query, FirstCall, timeout_s)
        except NotFound:
            return None
