"""What those who answer have in common: the parts that are there once the service has started, and waiting for the registry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeVar

from services.metering.directory import Directory
from shared.eventlog.transact import Transactor
from shared.events.metering import MeteringEvent
from shared.postgres import Connection, Pool
from shared.streams import awaiting

REGISTRY_WAIT_S: Final = 0.5
T = TypeVar("T")


class Started(NamedTuple):
    """What there is once the service has started."""

    pool: Pool
    directory: Directory
    transactor: Transactor[MeteringEvent]


async def awaited(connection: Connection, directory: Directory, find: Callable[[], Awaitable[T | None]]) -> T | None:
    """What `find` finds, of what the registry decided until now."""
    return await awaiting.awaited(find, lambda: directory.await_registry(connection, REGISTRY_WAIT_S))
