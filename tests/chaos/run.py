"""One run: start, load and faults side by side, heal, check. What it found is in its Report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import asyncpg
from nats.aio.client import Client

from tests.chaos import checks, quiet, rebuilds
from tests.chaos.alerted import Readers, all_told
from tests.chaos.call_load import Callers, Key
from tests.chaos.command_load import Customers
from tests.chaos.faults import Hurting, Processes
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Pace, Size, schedule
from tests.chaos.review_load import Reviewing, all_reviewed
from tests.chaos.usage_load import BatchPublisher, SinglePublisher, connect
from tests.support.stack import StackProcess

BATCHED_APPS = 12
CALLED_APPS = 4
PUBLISHERS = 3


@dataclass
class Report:
    """What a run came to: it is good without `violations`."""

    seed: int
    size: Size
    violations: list[str] = field(default_factory=list)
    figures: dict[str, int | float] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """For people."""
        lines = [f"seed {self.seed}: {self.size.faults} faults, {self.size.records} records, {self.size.commands} commands"]
        lines += [f"  {name:<44} {value:>10,}" for name, value in self.figures.items()]
        lines += [f"  {'faults: ' + name:<44} {count:>10,}" for name, count in sorted(self.faults.items())]
        if not self.violations:
            return "\n".join([*lines, "all of it held."])
        replay = f"CHAOS_SEED={self.seed} CHAOS_FAULTS={self.size.faults} CHAOS_RECORDS={self.size.records}"
        lines += [f"VIOLATION: {one}" for one in self.violations]
        return "\n".join([*lines, f"the same again: {replay} CHAOS_COMMANDS={self.size.commands} make chaos"])


class Run:
    """A run in `folder`, which must be empty."""

    def __init__(self, seed: int, size: Size, folder: Path, say: Callable[[str], None]) -> None:
        self.report = Report(seed, size)
        self.stack = StackProcess(folder / "home")
        self._seed = seed
        self._size = size
        self._say = say
        self._processes = Processes(self.stack.home)
        self._ledger = Ledger()
        self._pace = Pace(size.faults)

    async def run(self) -> Report:
        """All of it; the stack is stopped in the end, whatever happens."""
        await asyncio.to_thread(self.stack.start)
        connections: list[Client] = []
        try:
            for user in ("publisher", "operator"):
                seed = (self.stack.home / "secrets" / f"nats-{user}").read_text().strip()
                connections.append(await connect(self.stack.ready["nats_url"], user, seed))
            await self._under_load(*connections)
        except AssertionError as error:
            self.report.violations.append(str(error))
        finally:
            for connection in connections:
                await connection.close()
            await asyncio.to_thread(self.stack.stop)
        self.report.violations += self._ledger.problems
        self.report.figures |= dict(sorted(self._ledger.figures.items()))
        return self.report

    async def _under_load(self, publisher: Client, operator: Client) -> None:
        began = time.monotonic()
        ready, ledger, pace = self.stack.ready, self._ledger, self._pace
        customers = Customers(ready["console_url"], ready["owner_token"], self._seed, ledger, pace)
        apps = [await customers.register(number) for number in range(BATCHED_APPS + CALLED_APPS)]
        await asyncio.sleep(0.5)  # the gate hears of them from the stream
        batched = [app.client_id for app in apps[:BATCHED_APPS]]
        keys = [Key(app.client_id, app.secret) for app in apps[BATCHED_APPS:]]
        readers = Readers(ready, self._seed)
        await readers.subscribe(batched, max(20, self._size.records // (4 * BATCHED_APPS)))
        reviewing = Reviewing(ready, self._seed, ledger, pace)
        await reviewing.prepare(self._size.stories)
        callers = Callers(ready["proxy_url"], keys, self._seed, self._processes, ledger, pace)
        hurting = Hurting(self._processes, pace, self._say)
        share = self._size.batched // PUBLISHERS
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hurting.run(schedule(self._seed, self._size.faults)))
            tasks.create_task(customers.run(self._size.commands))
            tasks.create_task(reviewing.run())
            tasks.create_task(callers.run(self._size.calls))
            tasks.create_task(SinglePublisher(publisher, self._seed, batched, ledger, pace).run(self._size.singles))
            for number in range(PUBLISHERS):
                more = self._size.batched - share * PUBLISHERS if number == 0 else 0
                name = f"chaos-{self._seed}-{number}"
                tasks.create_task(BatchPublisher(publisher, name, self._seed, batched, ledger, pace).run(share + more))
        self.report.faults = dict(hurting.dealt)
        self.report.figures["seconds under load"] = round(time.monotonic() - began, 1)
        await self._check(callers, customers, readers, reviewing, operator)

    async def _check(
        self, callers: Callers, customers: Customers, readers: Readers, reviewing: Reviewing, operator: Client
    ) -> None:
        report, began = self.report, time.monotonic()
        self._say("no more faults: waiting until all is quiet")
        await quiet.until("all was ready", partial(quiet.all_ready, self._processes))
        database = await asyncpg.connect(self.stack.ready["postgres_dsn"], timeout=20)
        try:
            await quiet.until("all was counted", partial(quiet.all_counted, database, operator))
            await quiet.until("all was reviewed", partial(all_reviewed, database))
            await quiet.until("all was told", partial(all_told, database))
            report.figures["seconds until quiet"] = round(time.monotonic() - began, 1)
            callers.settle()
            counted = await database.fetchval("SELECT coalesce(sum(calls), 0)::bigint FROM metering.counter WHERE period = 'd'")
            self._summarise(customers, counted)
            report.violations += await checks.usage(database, self._ledger)
            report.violations += await checks.dead_letters(operator)
            report.violations += await checks.commands(database, customers.sent, customers.apps)
            report.violations += await checks.streams(database, operator)
            report.violations += await reviewing.check(database)
            unlike, told = await readers.check(database)
            report.violations += unlike
            report.figures |= told
            broken, lengths = await checks.chains(database)
            report.violations += broken
            report.figures |= lengths
            report.violations += await self._rebuild_all(database, operator)
        finally:
            await database.close(timeout=10)

    async def _rebuild_all(self, database: checks.Database, operator: Client) -> list[str]:
        found = []
        for service in rebuilds.TABLES:
            self._say(f"rebuilding {service}")
            before = await rebuilds.rows(database, service)
            await rebuilds.rebuild(self.stack.home, service)
            await quiet.until(f"{service} was rebuilt", partial(quiet.all_counted, database, operator))
            found += rebuilds.differences(service, before, await rebuilds.rows(database, service))
        await quiet.until("all was ready", partial(quiet.all_ready, self._processes))
        found += await rebuilds.bucket_of_apps(database, operator)
        return found

    def _summarise(self, customers: Customers, counted: int) -> None:
        usage = self._ledger.usage.values()
        self.report.figures["records acknowledged"] = sum(one.calls for one in usage)
        self.report.figures["calls that may be counted besides"] = sum(one.maybe for one in usage)
        self.report.figures["calls that were"] = counted - self.report.figures["records acknowledged"]
        for outcome in ("accepted", "refused", "abandoned"):
            self.report.figures[f"commands {outcome}"] = sum(sent.outcome == outcome for sent in customers.sent)
