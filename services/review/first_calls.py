"""Whether an application has tried a service out: asked of metering, which counts a call a moment after it was made."""

from __future__ import annotations

import asyncio
from typing import Final

from shared.clock import Clock
from shared.commands.metering import SERVICE as METERING
from shared.commands.metering import FirstCall, GetFirstCall
from shared.commands.requester import ask
from shared.errors import NotFound
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
        """Whether it has made a successful call, as far as can be known within WAIT_S. Raises Unavailable when metering does not
        answer."""
        asked_at, deadline = self._clock.now(), self._clock.monotonic() + WAIT_S
        query = GetFirstCall(account=account, client_id=client_id, service=service)
        while True:
            found = await self._ask(query)
            if found is not None and (found.called or found.as_of >= asked_at):
                return found.called
            if self._clock.monotonic() + POLL_S >= deadline:
                return False
            await asyncio.sleep(POLL_S)

    async def _ask(self, query: GetFirstCall) -> FirstCall | None:
        """None: metering has not heard of the application yet."""
        try:
            return await ask(self._nc(), METERING, query, FirstCall, timeout_s=WAIT_S)
        except NotFound:
            return None
