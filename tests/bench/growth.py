"""A million applications: what counting and reading take when the tables are large; and two workers instead of one."""

from __future__ import annotations

import asyncio
import signal
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import md5
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

import asyncpg
from nats.aio.client import Client
from pydantic import SecretStr

from deploy.servers.roles import ServiceDsn
from services.metering.directory import Directory
from services.metering.ends import Ends
from services.metering.handlers import Handlers
from services.metering.projection import project
from services.metering.serving import Started
from services.metering.streams import USAGE_CONSUMER, subjects
from shared.catalog import load_catalog
from shared.clock import SystemClock
from shared.commands.metering import GetUsage, Usage
from shared.commands.requester import ask
from shared.eventlog.log import EventLog
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.metering import CODEC
from shared.events.usage import partition_of
from shared.ids import new_id, new_vault_key
from shared.postgres import open_pool
from shared.streams.publish import Outgoing, publish_batch, split_batches
from tests.bench.examples import ACCOUNT, Issued, cut, issue, opened, publish_registry, usage_batches
from tests.bench.ingest import APPS, CATALOG, PARTITIONS, POLL_S, RECORDS, connect, metering_settings, running_worker
from tests.bench.measure import Aim, Row, interleaved, percentile, row, said
from tests.bench.place import WAIT_S, Place, ServiceProcess, until
from tests.support.servers import PostgresDatabase, create_database, drop_database

MANY: Final = 1_000_000
DETAILED: Final = 20_000
"""Applications that have a month of days and a day of hours; the others have today and this month."""
BATCHES: Final = 6_000
SPREAD_BATCHES: Final = 100
REPETITIONS: Final = 2
READS: Final = 2_000
GATES: Final = 4
PATIENCE_S: Final = 4 * WAIT_S

_FORGET_POSITIONS: Final = "DELETE FROM checkpoint WHERE consumer = $1"
# As a rebuild does, but the counters stay as many as they are.
_COUNT_AGAIN: Final = """
    TRUNCATE publisher_position;
    UPDATE progress SET sequence = 0, recorded_at = NULL;
    UPDATE lease SET worker = NULL, expires_at = NULL
"""
_PROGRESS: Final = "SELECT subject, sequence FROM progress"
_CLIENT_ID: Final = "substr(md5(n::text), 1, 20)"
_DAY: Final = "date_trunc('day', now(), 'Asia/Seoul')"
_FILL: Final = f"""
    INSERT INTO app (client_id, account, services, registered_at, position)
    SELECT {_CLIENT_ID}, '{ACCOUNT}', '{{csr}}', now(), 0 FROM generate_series(1, {MANY}) AS n ORDER BY 1;
    SELECT make_shelf(p, now() - n * interval '15 days') FROM unnest('{{h,d,m}}'::text[]) AS p, generate_series(0, 3) AS n;
    INSERT INTO counter (client_id, service, period, window_start, calls, units, late_units)
    SELECT {_CLIENT_ID}, 'csr', 'm', date_trunc('month', now(), 'Asia/Seoul'), n, n, 0
    FROM generate_series(1, {MANY}) AS n ORDER BY 1;
    INSERT INTO counter (client_id, service, period, window_start, calls, units, late_units)
    SELECT {_CLIENT_ID}, 'csr', 'd', {_DAY} - d * interval '1 day', 1, 1, 0
    FROM generate_series(1, {MANY}) AS n, generate_series(0, CASE WHEN n <= {DETAILED} THEN 29 ELSE 0 END) AS d ORDER BY 1;
    INSERT INTO counter (client_id, service, period, window_start, calls, units, late_units)
    SELECT {_CLIENT_ID}, 'csr', 'h', {_DAY} + h * interval '1 hour', 1, 1, 0
    FROM generate_series(1, {DETAILED}) AS n, generate_series(0, 23) AS h ORDER BY 1;
"""
_LIMIT: Final = """
    INSERT INTO app_limit (client_id, service, account, version, daily, monthly, daily_rungs, monthly_rungs, changed_at)
    SELECT client_id, 'csr', account, 1, 1000000000000, 1000000000000, '{50,80,100}', '{50,80,100}', now()
    FROM app
"""
_SETTLE: Final = "ANALYZE app, app_limit, counter; CHECKPOINT"


class Filled:
    """Messages of USAGE: the sequences of each subject, and how many of them are counted when that much is."""

    def __init__(self) -> None:
        self.messages = 0
        self._sequences: dict[str, list[int]] = {}

    async def publish(self, nc: Client, messages: Sequence[Outgoing]) -> None:
        for batch in split_batches(messages):
            last = await publish_batch(nc, batch, expected_last_sequence=None, timeout_s=WAIT_S)
            for sequence, message in enumerate(batch, last - len(batch) + 1):
                self._sequences.setdefault(message.subject, []).append(sequence)
            self.messages += len(batch)

    def counted(self, progress: dict[str, int]) -> int:
        return sum(bisect_right(found, progress.get(subject, 0)) for subject, found in self._sequences.items())


class Counting:
    """A metering worker on a database of its own, which can have `MANY` applications besides those of the stream."""

    def __init__(self, process: ServiceProcess, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.process = process
        self._connection = connection

    async def fill(self) -> None:
        """Have many applications and what they have used."""
        await self._connection.execute(_FILL, timeout=PATIENCE_S)
        await self._connection.execute(_SETTLE, timeout=PATIENCE_S)

    async def limit(self) -> None:
        """Have a daily and a monthly limit on every application, so high that none is reached."""
        await self._connection.execute(_LIMIT, timeout=PATIENCE_S)
        await self._connection.execute(_SETTLE, timeout=PATIENCE_S)

    async def again(self, filled: Filled) -> float:
        """Have it count the messages once more, the counters as large as they are: records a second, first commit to last."""
        async with self._connection.transaction():
            await self._connection.execute(_FORGET_POSITIONS, USAGE_CONSUMER)
            await self._connection.execute(_COUNT_AGAIN)
        first, began = await self._when_above(filled, 0)
        last, ended = await self._when_above(filled, filled.messages - 1)
        return (last - first) * RECORDS / (ended - began)

    async def spread(self, nc: Client, messages: Sequence[Outgoing]) -> float:
        """Have these wait, then counted: records a second, from when it wakes up to its last commit."""
        await self.quiet()
        filled = Filled()
        self.process.process.send_signal(signal.SIGSTOP)
        try:
            await filled.publish(nc, messages)
        finally:
            self.process.process.send_signal(signal.SIGCONT)
        began = time.perf_counter()
        last, ended = await self._when_above(filled, filled.messages - 1)
        return last * RECORDS / (ended - began)

    async def quiet(self) -> None:
        """Wait until the dashboards show everything."""

        async def nothing_waits() -> bool:
            return bool(await self._connection.fetchval("SELECT NOT EXISTS (SELECT FROM kv_dirty)"))

        await until(nothing_waits, "every dashboard to be written", pause_s=0.1, timeout_s=PATIENCE_S)

    async def _when_above(self, filled: Filled, messages: int) -> tuple[int, float]:
        deadline = time.perf_counter() + PATIENCE_S
        while True:
            progress = {row["subject"]: row["sequence"] for row in await self._connection.fetch(_PROGRESS)}
            if (found := filled.counted(progress)) > messages:
                return found, time.perf_counter()
            if time.perf_counter() > deadline:
                raise RuntimeError(f"the worker has counted {found} messages and not more than {messages}")
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def counting(place: Place, database: PostgresDatabase) -> AsyncIterator[tuple[Counting, ServiceDsn]]:
    """A worker that runs."""
    dsn = await database.service_schema("metering")
    process = ServiceProcess("services.metering", place.folder, metering_settings(place, dsn))
    try:
        await process.ready()
        connection = await connect(database, "metering")
        try:
            yield Counting(process, connection), dsn
        finally:
            await connection.close()
    finally:
        process.stop()


async def many_apps(place: Place) -> list[Row]:
    """The same messages into small tables and into large ones, without limits and with one on every application; messages of
    all applications; and reading."""
    async with place.cleared() as (nc, database):
        apps = issue(APPS)
        await publish_registry(nc, [opened(), *(app.registered() for app in apps)])
        small_database = await create_database(place.postgres_dsn)
        try:
            async with counting(place, database) as (large, dsn):
                async with counting(place, small_database) as (small, _):
                    filled = Filled()
                    said(f"  filling USAGE: {BATCHES:,} batches of {RECORDS}; and the tables of {MANY:,} applications")
                    await filled.publish(nc, _batches("few", apps, BATCHES))
                    await large.fill()
                    few = await interleaved(
                        {"of 1,000,000 apps": lambda: large.again(filled), "of 1,000": lambda: small.again(filled)}, REPETITIONS
                    )
                    await large.limit()
                    limited = await interleaved(
                        {"all limited": lambda: large.again(filled), "of 1,000, none": lambda: small.again(filled)}, REPETITIONS
                    )
                everyone, runs = _everyone(), cut(_everyone(), SPREAD_BATCHES * RECORDS)
                spread = await interleaved(
                    {"by all": lambda: large.spread(nc, _batches(new_id(), next(runs), SPREAD_BATCHES, apart=True))}, REPETITIONS
                )
                await large.quiet()
                reads = await _reads(nc, dsn, everyone)
        finally:
            await drop_database(place.postgres_dsn, small_database)
    (ours, reference), (under_limits, beside) = few.values(), limited.values()
    what = f"usage records counted, calls of {APPS:,} apps, {MANY:,} apps in the tables, one worker"
    name = f"the same messages with {APPS:,} apps in the tables"
    with_limits = f"usage records counted, calls of {APPS:,} apps, {MANY:,} apps in the tables, each with limits, one worker"
    every = f"usage records counted, calls of {MANY:,} apps in turn: each record three counters of its own"
    return [
        row("growth", what, "records/s", ours, reference, name, Aim(0.9)),
        row("growth", with_limits, "records/s", under_limits, beside, f"{name}, without limits", Aim(0.7)),
        row("growth", every, "records/s", spread["by all"]),
        *reads,
    ]


async def two_workers(place: Place) -> list[Row]:
    """One worker process, then two, on the same messages from 16 gates."""
    apps = issue(APPS)
    async with running_worker(place, apps) as worker:
        said(f"  filling USAGE: {BATCHES:,} batches of {RECORDS} in {PARTITIONS} partitions")
        await worker.fill(_batches("two", apps, BATCHES, PARTITIONS))

        async def by_two() -> float:
            other = ServiceProcess("services.metering", place.folder, metering_settings(place, worker.dsn))
            try:
                await other.ready()
                await until(worker.shared, "the workers to share the partitions")
                return await worker.counts(BATCHES * RECORDS)
            finally:
                other.stop()

        found = await interleaved({"two workers": by_two, "one worker": lambda: worker.counts(BATCHES * RECORDS)}, REPETITIONS)
    two, one = found.values()
    what = f"usage records counted by two workers, {PARTITIONS} partitions"
    note = "NATS, PostgreSQL and the workers share the cores"
    return [row("workers", what, "records/s", two, one, "one worker", note=note)]


async def _reads(nc: Client, dsn: ServiceDsn, apps: Sequence[Issued]) -> list[Row]:
    """GetUsage of one application after the other: as one who asks sees it, and what the handler takes of that."""
    chosen = Random(1).sample(apps, READS)
    queries = [GetUsage(account=ACCOUNT, client_id=app.client_id, service="csr") for app in chosen]
    asked, handled = [], []
    clock = SystemClock()
    pool = await open_pool(dsn.dsn, "metering")
    try:
        handlers = Handlers(load_catalog(Path(CATALOG)), Ends(subjects(PARTITIONS), lambda: nc, clock), clock)
        transactor = Transactor(pool, EventLog(CODEC, clock), Vault(SecretStr(new_vault_key())), project, clock)
        handlers.start(Started(pool, Directory(lambda: nc, clock), transactor))
        for query in queries:
            began = time.perf_counter()
            await ask(nc, "metering", query, Usage)
            between = time.perf_counter()
            await handlers.get_usage(query)
            asked.append((between - began) * 1000)
            handled.append((time.perf_counter() - between) * 1000)
    finally:
        await pool.close()
    asked, handled = sorted(asked[READS // 10 :]), sorted(handled[READS // 10 :])
    what = f"usage of one app read, current, {MANY:,} apps in the tables"
    figures = (
        ("asked through NATS, p50", asked, 0.5, None),
        ("asked through NATS, p99", asked, 0.99, None),
        ("in the handler, p50", handled, 0.5, None),
        ("in the handler, p99", handled, 0.99, Aim(most=5)),
    )
    return [
        Row(benchmark="growth", what=f"{what}: {how}", unit="ms", figure=percentile(found, share), aim=aim)
        for how, found, share, aim in figures
    ]


def _everyone() -> list[Issued]:
    """The applications that `fill` makes."""
    return [Issued(md5(str(n).encode(), usedforsecurity=False).hexdigest()[:20], "", "") for n in range(1, MANY + 1)]


def _batches(run: str, apps: Sequence[Issued], batches: int, gates: int = GATES, *, apart: bool = False) -> list[Outgoing]:
    """`batches` messages of so many gates, each with a partition of its own and, `apart`, applications of its own."""
    streams = []
    for partition in range(gates):
        name = next(name for name in map(f"{run}-{{}}".format, count()) if partition_of(name, PARTITIONS) == partition)
        streams.append(usage_batches(apps[partition::gates] if apart else apps, batches // gates, RECORDS, name, partition))
    return [message for together in zip(*streams, strict=True) for message in together]
