"""What those who answer have in common: the parts that are there once the service has started, and waiting for the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeVar

from services.metering.directory import Directory
from shared.eventlog.transact import Transactor
from shared.events.metering import MeteringEvent
from shared.postgres import Connection, Pool

REGISTRY_WAIT_S: Final = 0.5
RELAY_WAIT_S: Final = 0.1
T = TypeVar("T")


class Started(NamedTuple):
    """What there is once the service has started."""

    pool: Pool
    directory: Directory
    transactor: Transactor[MeteringEvent]


async def awaited(connection: Connection, directory: Directory, find: Callable[[], Awaitable[T | None]]) -> T | None:
    """What `find` finds. What the registry decided a moment ago may still be on its way here: it is waited for."""
    found = await find()
    for delay_s in (0.0, RELAY_WAIT_S):
        if found is None:
            await asyncio.sleep(delay_s)
            await directory.await_registry(connection, REGISTRY_WAIT_S)
            found = await find()
    return found
