"""Leaving a NATS server that is cut off from its cluster: it keeps its clients, but nothing reaches a stream through it."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from shared.errors import Unavailable
from shared.streams.jetstream import ApiError, Connected, api

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
ANSWER_S: Final = 2.0
MISSES_MIN: Final = 3
MISSES_MAX: Final = 24
"""The whole of JetStream may be away, or choosing a leader: each move in vain doubles the patience for the next, up to this."""


class Elsewhere:
    """Has the connection made again, through another server of the pool, when JetStream does not answer through this one. With a
    single server there is nowhere to go, and nothing is asked."""

    def __init__(self, nc: Connected) -> None:
        self._nc = nc

    async def run(self) -> None:
        """Look until cancelled."""
        misses, patience = 0, MISSES_MIN
        while True:
            await asyncio.sleep(LOOK_S)
            nc = self._nc()
            if not nc.is_connected or len(nc.servers) < 2:
                misses = 0
                continue
            if await self._answers():
                misses, patience = 0, MISSES_MIN
                continue
            misses += 1
            if misses >= patience and nc.is_connected:
                server = nc.connected_url.netloc.rpartition("@")[2] if nc.connected_url else "this server"
                log.warning("JetStream does not answer through %s: trying another server", server)
                await nc.force_reconnect()
                misses, patience = 0, min(patience * 2, MISSES_MAX)

    async def _answers(self) -> bool:
        try:
            await api(self._nc(), "INFO", timeout_s=ANSWER_S)
        except Unavailable:
            return False
        except ApiError:
            return True
        return True
