"""All data of NATS is lost, once while everything runs and once while it is stopped: the logs have it, and counting goes on."""

from __future__ import annotations

import asyncio
import shutil
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from nats.aio.client import Client

from shared.streams.declare import stream_state
from tests.chaos import checks, quiet, rebuilds
from tests.chaos.faults import Processes
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Pace
from tests.chaos.usage_load import BatchPublisher, connect
from tests.support.stack import Customer, StackProcess


class House:
    """A running stack, what was counted in it, and the connections to look at it."""

    def __init__(self, stack: StackProcess) -> None:
        self.stack = stack
        self.processes = Processes(stack.home)
        self.ledger = Ledger()
        self.apps: dict[str, str] = {}

    async def operator(self, user: str = "operator") -> Client:
        seed = (self.stack.home / "secrets" / f"nats-{user}").read_text().strip()
        return await connect(self.stack.ready["nats_url"], user, seed)

    async def use(self, round_: str) -> None:
        """A new application, calls of every application there is, and batches of other publishers."""
        async with Customer(self.stack) as owner:
            client_id, secret = await owner.register(f"App {round_}")
            self.apps[client_id] = secret
            for app, known in self.apps.items():
                for _ in range(3):
                    answer = await owner.call(app, known)
                    assert answer.status_code == 200, answer.text
                    self.ledger.counted(app, "csr")
        publisher = await self.operator("publisher")
        try:
            pace = Pace(0)
            pace.end()
            await BatchPublisher(publisher, f"batches-{round_}", 1, list(self.apps), self.ledger, pace).run(500)
        finally:
            await publisher.close()

    async def check(self) -> tuple[int, int]:
        """All is ready, counted, and like the logs; where REGISTRY ends and where USAGE begins."""
        await quiet.until("all was ready", partial(quiet.all_ready, self.processes), 60)
        database = await asyncpg.connect(self.stack.ready["postgres_dsn"], timeout=20)
        operator = await self.operator()
        try:
            await quiet.until("all was counted", partial(quiet.all_counted, database, operator), 60)
            assert await checks.usage(database, self.ledger) == []
            assert await checks.streams(database, operator) == []

            async def differs() -> str:
                return "; ".join(await rebuilds.bucket_of_apps(database, operator))

            await quiet.until("the dashboards were written again", differs, 10)
            registry, usage = await stream_state(operator, "REGISTRY"), await stream_state(operator, "USAGE")
            assert registry is not None
            assert usage is not None
            return registry.last, usage.first
        finally:
            await operator.close()
            await database.close()


@pytest.mark.timeout(240)
async def test_when_all_data_of_nats_is_lost_nothing_that_was_decided_or_counted_is(tmp_path: Path) -> None:
    stack = StackProcess(tmp_path / "home")
    await asyncio.to_thread(stack.start)
    try:
        house = House(stack)
        await house.use("1")
        decided, first = await house.check()
        assert first == 1

        gone = stack.home / "gone"
        (stack.home / "jetstream").rename(gone)
        await house.processes.kill("nats")
        shutil.rmtree(gone)
        end, first_after = await house.check()
        assert end == decided, "the log's stream has the same sequences"
        assert first_after > 1, "USAGE begins above what was counted"
        await house.use("2")
        decided, _ = await house.check()

        await asyncio.to_thread(stack.stop)
        shutil.rmtree(stack.home / "jetstream")
        await asyncio.to_thread(stack.start)
        end, first_again = await house.check()
        assert end == decided
        assert first_again > first_after
        await house.use("3")
        await house.check()
    finally:
        await asyncio.to_thread(stack.stop)
