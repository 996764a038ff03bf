"""Callers at gates' doors: plain HTTP/1.1 over connections that stay open, as a proxy has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from tests.exactness.accounts import Accounts
from tests.support.gates import Issued

TIMEOUT_S: Final = 25.0
AFTER_REFUSAL_S: Final = 0.002
AFTER_FAILURE_S: Final = 0.05


@dataclass(frozen=True)
class Door:
    """A gate's address, and the process that stands there now."""

    port: int
    pid: Callable[[], int]


@dataclass
class Answer:
    status: int
    body: dict[str, Any] = field(default_factory=dict)


class Connection:
    """One connection to one gate, opened when it is needed."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, app: Issued, quantity: int) -> Answer | None:
        """One call; None if nobody took it. Raises ConnectionError, EOFError or TimeoutError if it was taken and not answered."""
        if self._streams is None:
            try:
                self._streams = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self._door.port), TIMEOUT_S)
            except OSError:
                return None
        reader, writer = self._streams
        lines = ["GET /authorize/csr HTTP/1.1", "Host: gate", f"X-Tollbook-Quantity: {quantity}"]
        lines += [f"{name}: {value}" for name, value in app.headers.items()]
        try:
            async with asyncio.timeout(TIMEOUT_S):
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
                await writer.drain()
                return await _read(reader)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()  # a stopped gate would keep a connection that only closes
            self._streams = None


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(head[0].split()[1]), json.loads(body) if body else {})


@dataclass
class Hammer:
    """Callers at every door, with weights from 1 to 7, until told to stop."""

    doors: list[Door]
    apps: list[Issued]
    accounts: Accounts
    seed: int
    stopping: bool = False

    async def run(self, callers: int) -> None:
        """`callers` at each door."""
        async with asyncio.TaskGroup() as group:
            for place, door in enumerate(self.doors):
                for number in range(callers):
                    group.create_task(self._caller(door, Random(f"{self.seed} {place} {number}")))

    async def _caller(self, door: Door, random: Random) -> None:
        connection = Connection(door)
        while not self.stopping:
            answer = await called(connection, door, random.choice(self.apps), random.randint(1, 7), self.accounts)
            if answer is None:
                await asyncio.sleep(AFTER_FAILURE_S)
            elif answer.status != 200:
                await asyncio.sleep(AFTER_REFUSAL_S)
        connection.close()


async def called(connection: Connection, door: Door, app: Issued, quantity: int, accounts: Accounts) -> Answer | None:
    """One call, entered into the accounts; None if it was not answered."""
    loop = asyncio.get_running_loop()
    began, pid = loop.time(), door.pid()
    try:
        answer = await connection.call(app, quantity)
    except (OSError, EOFError):
        accounts.unanswered(app.client_id, quantity)
        return None
    if answer is not None:
        accounts.answered(app.client_id, quantity, answer.status, pid, began, loop.time())
    return answer
