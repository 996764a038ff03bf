"""Where benchmarks run: real servers as an operator would have them, one of each for all benchmarks, emptied between them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, TypeVar

import httpx
from nats.aio.client import Client

from deploy.servers.program import free_port
from tests.bench.peers import ROOT, TOOLS
from tests.support.servers import (
    NatsProcess,
    PostgresDatabase,
    PostgresProcess,
    connect_nats,
    create_database,
    delete_streams,
    drop_database,
)

WAIT_S: Final = 60.0
T = TypeVar("T")


class Place:
    """A NATS that syncs every write, a PostgreSQL that syncs every commit, and a folder on the same disk."""

    def __init__(self, nats_url: str, postgres_dsn: str, folder: Path) -> None:
        self.nats_url = nats_url
        self.postgres_dsn = postgres_dsn
        self.folder = folder

    @asynccontextmanager
    async def cleared(self) -> AsyncIterator[tuple[Client, PostgresDatabase]]:
        """A connection to a NATS without streams, and an empty database."""
        nc = await connect_nats(self.nats_url)
        await delete_streams(nc)
        database = await create_database(self.postgres_dsn)
        try:
            yield nc, database
        finally:
            await drop_database(self.postgres_dsn, database)
            await delete_streams(nc)
            await nc.close()


@contextmanager
def running_place() -> Iterator[Place]:
    """Both servers, for as long as the block lasts. Their data lies where this checkout does, not on a disk in memory."""
    TOOLS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-data-", dir=TOOLS, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        nats, postgres = NatsProcess(folder), PostgresProcess(folder, {})
        try:
            nats.start()
            postgres.start()
            yield Place(nats.url, postgres.dsn, folder)
        finally:
            nats.stop()
            postgres.stop()


@contextmanager
def another_nats(place: Place) -> Iterator[Place]:
    """The same place with a second NATS: for what is measured beside the first, with streams of its own."""
    folder = place.folder / "second"
    folder.mkdir(exist_ok=True)
    nats = NatsProcess(folder)
    try:
        nats.start()
        yield Place(nats.url, place.postgres_dsn, folder)
    finally:
        nats.stop()


class ServiceProcess:
    """`python -m <module>` with these settings, until `stop`."""

    def __init__(self, module: str, folder: Path, settings: Mapping[str, object]) -> None:
        self.port = free_port()
        self.log = folder / f"{module}.log"
        told = {f"TOLLBOOK_{name}": str(value) for name, value in settings.items()}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TOLLBOOK_")}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env={**clean, **told, "TOLLBOOK_HTTP_PORT": str(self.port)},
                stdout=output,
                stderr=output,
            )

    async def ready(self) -> None:
        """Wait until /readyz says so."""
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:

            async def is_ready() -> bool:
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.log.stem} ended:\n{self.log.read_text()[-3000:]}")
                try:
                    return (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(is_ready, f"{self.log.stem} to be ready", pause_s=0.05)

    def stop(self) -> None:
        end(self.process)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(15)


async def until(condition: Callable[[], Awaitable[bool]], what: str, pause_s: float = 0.02, timeout_s: float = WAIT_S) -> None:
    """Ask again and again. Raises RuntimeError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited in vain for {what}")
        await asyncio.sleep(pause_s)
