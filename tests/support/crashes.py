"""Crashes at chosen awaits: stand-ins for a NATS connection and a PostgreSQL pool that count every operation and, at the chosen
one, fail or hang (to be killed there), either before or after the operation has really happened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import Client

from shared.postgres import Pool


class Tripwire:
    """`at`: the operation, counted from 1, at which to trip; 0: never. `after`: once it has happened, else instead of it.

    `hang`: wait there for ever (the test then cancels the task, as a kill would), else raise ConnectionError.
    """

    def __init__(self, at: int = 0, *, after: bool = False, hang: bool = False) -> None:
        self.at = at
        self.after = after
        self.hang = hang
        self.steps = 0
        self.tripped = asyncio.Event()

    async def step(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        self.steps += 1
        mine = self.steps == self.at
        if mine and not self.after:
            await self._trip()
        result = await operation()
        if mine and self.after:
            await self._trip()
        return result

    async def _trip(self) -> None:
        self.tripped.set()
        if self.hang:
            await asyncio.Event().wait()
        raise ConnectionResetError("tripped")


class TripwireClient:
    """A nats.aio.client.Client whose sends may trip."""

    def __init__(self, nc: Client, wire: Tripwire) -> None:
        self._nc = nc
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        return getattr(self._nc, name)

    async def publish(self, *args: Any, **kwargs: Any) -> Any:
        return await self._wire.step(lambda: self._nc.publish(*args, **kwargs))

    async def request(self, *args: Any, **kwargs: Any) -> Any:
        return await self._wire.step(lambda: self._nc.request(*args, **kwargs))

    async def subscribe(self, *args: Any, **kwargs: Any) -> Any:
        return await self._wire.step(lambda: self._nc.subscribe(*args, **kwargs))


class TripwirePool:
    """An asyncpg pool whose acquisitions, statements and ends of transactions may trip."""

    def __init__(self, pool: Pool, wire: Tripwire) -> None:
        self._pool = pool
        self._wire = wire

    def acquire(self, **kwargs: Any) -> Any:
        return _Acquired(self._pool.acquire(**kwargs), self._wire)


class _Acquired:
    def __init__(self, context: Any, wire: Tripwire) -> None:
        self._context = context
        self._wire = wire

    async def __aenter__(self) -> Any:
        await self._wire.step(_nothing)
        return _Connection(await self._context.__aenter__(), self._wire)

    async def __aexit__(self, *error: Any) -> None:
        await self._context.__aexit__(*error)


class _Connection:
    def __init__(self, connection: Any, wire: Tripwire) -> None:
        self._connection = connection
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        if name not in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
            return found
        return lambda *args, **kwargs: self._wire.step(lambda: found(*args, **kwargs))

    def transaction(self, **kwargs: Any) -> Any:
        return _Transaction(self._connection.transaction(**kwargs), self._wire)


class _Transaction:
    def __init__(self, transaction: Any, wire: Tripwire) -> None:
        self._transaction = transaction
        self._wire = wire

    async def __aenter__(self) -> None:
        await self._transaction.start()

    async def __aexit__(self, error_class: Any, *error: Any) -> None:
        if error_class is not None:
            await self._transaction.rollback()
            return
        committed = False

        async def commit() -> None:
            nonlocal committed
            await self._transaction.commit()
            committed = True

        try:
            await self._wire.step(commit)
        except BaseException:
            if not committed:
                await self._transaction.rollback()
            raise


async def _nothing() -> None:
    pass


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], what: str, timeout_s: float = 20.0) -> None:
    """Poll `condition`; fail after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                found = condition()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


async def killed(task: asyncio.Task[Any]) -> None:
    """Cancel the task and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
