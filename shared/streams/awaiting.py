"""Waiting until a consumer has applied what its stream holds now: for whoever must see what another service has just decided."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from shared.clock import Clock
from shared.errors import Unavailable
from shared.postgres import Connection
from shared.streams.declare import stream_state
from shared.streams.jetstream import Connected

POLL_S: Final = 0.02
RELAY_WAIT_S: Final = 0.1
"""How long what another service has just decided may take to come into its stream."""
T = TypeVar("T")
_CHECKPOINT: Final = "SELECT sequence FROM checkpoint WHERE consumer = $1 AND stream = $2 AND subject = ''"


async def await_applied(
    connection: Connection, nc: Connected, consumer: str, stream: str, timeout_s: float, clock: Clock
) -> None:
    """Wait until every message that is in `stream` now has been applied under `consumer`'s checkpoint, by whichever worker.

    `connection` is in no transaction that would keep it from seeing the checkpoint move. Raises Unavailable after `timeout_s`.
    """
    state = await stream_state(nc(), stream)
    end = 0 if state is None else state.last
    deadline = clock.monotonic() + timeout_s
    while (await connection.fetchval(_CHECKPOINT, consumer, stream) or 0) < end:
        if clock.monotonic() > deadline:
            raise Unavailable(f"Message {end} of {stream} has not been applied here within {timeout_s:g} s.")
        await asyncio.sleep(POLL_S)


async def awaited(find: Callable[[], Awaitable[T | None]], applied: Callable[[], Awaitable[None]]) -> T | None:
    """What `find` finds. What another service decided a moment ago may still be on its way here: it is waited for.

    `applied` waits for what is in that service's stream now, as `await_applied` does.
    """
    found = await find()
    for delay_s in (0.0, RELAY_WAIT_S):
        if found is None:
            await asyncio.sleep(delay_s)
            await applied()
            found = await find()
    return found
