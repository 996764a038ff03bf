"""Which failures may pass by themselves, so that trying again makes sense."""

from __future__ import annotations

from typing import Final

import asyncpg

from shared.errors import Unavailable
from shared.streams.jetstream import NATS_FAILURES, ApiError

_PASSING: Final[tuple[type[BaseException], ...]] = (
    *NATS_FAILURES,
    ApiError,
    Unavailable,
    asyncpg.PostgresConnectionError,
    asyncpg.TransactionRollbackError,  # serialization failures, deadlocks
    asyncpg.LockNotAvailableError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, a cancelled statement
    asyncpg.InsufficientResourcesError,  # disk full, too many connections
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a primary that has just become a standby
    asyncpg.InternalClientError,
)


def may_pass(error: BaseException) -> bool:
    """True for lost connections, servers that start or stop, deadlocks, timeouts; false for anything that is our own mistake."""
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)  # a closed connection or pool; ValueError marks a wrong argument
    return isinstance(error, _PASSING)
