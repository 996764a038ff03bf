"""Usage into PostgreSQL, exactly once, by one metering worker: batches as gates send them, single CloudEvents as others do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.metering.rebuild import count_again
from services.metering.retention import Policy
from shared.events.usage import CLOUDEVENTS_SUBJECT, CODEC, partition_of
from shared.events.usage import STREAM as USAGE
from shared.streams.publish import Outgoing, publish_batch, split_batches
from tests.bench.examples import Issued, issue, opened, publish_registry, usage_batches, usage_events
from tests.bench.measure import Aim, Measured, Row, interleaved, row, said
from tests.bench.place import WAIT_S, Place, ServiceProcess
from tests.bench.pulling import decoder, fetched, pulled_and_decoded
from tests.support.metering_process import VAULT_KEY
from tests.support.servers import PostgresDatabase

APPS: Final = 1_000
RECORDS: Final = 500
BATCHES: Final = 6_000
EVENTS: Final = 30_000
GATES: Final = 4
GATE_NAMES: Final = tuple(f"gate-{number}" for number in range(GATES))
NO_LEASES: Final[Mapping[str, Mapping[str, str]]] = {}
PARTITIONS: Final = 16
POLL_S: Final = 0.005
CATALOG: Final = "deploy/catalog.yaml"
_SHARED: Final = """
    SELECT coalesce(min(sources) > 1 AND count(*) = 2, false)
    FROM (SELECT count(*) AS sources FROM lease WHERE worker IS NOT NULL GROUP BY worker) AS w
"""
_COUNTED: Final = "SELECT coalesce(sum(calls), 0)::bigint FROM counter WHERE period = 'd'"
_MOVED: Final = "SELECT sum(sequence) FROM progress"


class Worker:
    """A metering worker that runs, and what it has counted."""

    def __init__(self, place: Place, dsn: ServiceDsn, nc: Client, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.nc = nc
        self._place = place
        self.dsn = dsn
        self._connection = connection

    async def fill(self, messages: Iterable[Outgoing]) -> None:
        """Publish them to USAGE."""
        for batch in split_batches(messages):
            await publish_batch(self.nc, batch, expected_last_sequence=None, timeout_s=WAIT_S)

    async def counted(self) -> int:
        return int(await self._connection.fetchval(_COUNTED))

    async def shared(self) -> bool:
        """Whether two workers follow the sources between them."""
        return bool(await self._connection.fetchval(_SHARED))

    async def counts(self, total: int) -> float:
        """Have it count the whole stream again: calls a second, from its first commit to its last. Every call exactly once."""
        await count_again(self.dsn.owner_dsn, self._place.nats_url, None, Policy())
        first, began = await self._when_above(0)
        last, ended = await self._when_above(total - 1)
        if last != total:
            raise RuntimeError(f"{last} counted, {total} published")
        return (total - first) / (ended - began)

    async def _when_above(self, count: int) -> tuple[int, float]:
        """Looks at the sum after each commit, and no oftener: every few milliseconds, that takes half a core from the worker."""
        deadline = time.perf_counter() + 2 * WAIT_S
        moved, found = None, 0
        while True:
            if (now := await self._connection.fetchval(_MOVED)) != moved:
                moved, found = now, await self.counted()
                if found > count:
                    return found, time.perf_counter()
            if time.perf_counter() > deadline:
                raise RuntimeError(f"the worker has counted {found} and not more than {count} within {2 * WAIT_S:.0f} s")
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def running_worker(place: Place, apps: list[Issued], **settings: object) -> AsyncIterator[Worker]:
    """A metering worker as a process of its own, alone, that knows the applications. `settings` besides those of all."""
    async with place.cleared() as (nc, database):
        dsn = await database.service_schema("metering")
        await publish_registry(nc, [opened(), *(app.registered() for app in apps)])
        process = ServiceProcess("services.metering", place.folder, {**metering_settings(place, dsn), **settings})
        try:
            await process.ready()
            connection = await connect(database, "metering")
            try:
                yield Worker(place, dsn, nc, connection)
            finally:
                await connection.close()
        finally:
            process.stop()


def metering_settings(place: Place, dsn: ServiceDsn) -> dict[str, object]:
    return {
        "NATS_URL": place.nats_url,
        "POSTGRES_DSN": dsn.dsn,
        "CATALOG": CATALOG,
        "VAULT_KEY": VAULT_KEY,
        "PARTITIONS": PARTITIONS,
        "WORKER": "bench",
    }


async def connect(database: PostgresDatabase, schema: str) -> asyncpg.Connection[asyncpg.Record]:
    """As a superuser, in that schema."""
    return await asyncpg.connect(database.owner_dsn, server_settings={"search_path": schema})


async def batches(place: Place) -> list[Row]:
    """Batches of 500 records over 1,000 applications, from 4 gates."""
    apps = issue(APPS)
    total = BATCHES * RECORDS
    async with running_worker(place, apps) as worker:
        said(f"  filling USAGE: {BATCHES:,} batches of {RECORDS}")
        await worker.fill(from_gates(apps, BATCHES))
        found = await interleaved(
            {
                "counted into PostgreSQL": lambda: worker.counts(total),
                "pulled and decoded only": lambda: pulled_and_decoded(worker.nc, USAGE, BATCHES),
            }
        )
    ours, reference = found.values()
    what = f"usage records counted, in batches of {RECORDS} over {APPS:,} apps, one worker"
    return [
        row("ingest", what, "records/s", ours, reference, "the same pulled and decoded, no database", Aim(0.75, least=1_000_000))
    ]


def from_gates(apps: list[Issued], batches: int, leases: Mapping[str, Mapping[str, str]] = NO_LEASES) -> Iterator[Outgoing]:
    """So many batches of all GATES in turn; `leases` as each gate holds them: gate, application, lease."""
    streams = [
        usage_batches(apps, batches // GATES, RECORDS, gate, partition_of(gate, PARTITIONS), leases.get(gate))
        for gate in GATE_NAMES
    ]
    return (message for together in zip(*streams, strict=True) for message in together)


async def singles(place: Place) -> list[Row]:
    """Single CloudEvents from a filled stream."""
    apps = issue(APPS)
    async with running_worker(place, apps) as worker:
        said(f"  filling USAGE: {EVENTS:,} CloudEvents")
        await worker.fill(usage_events(apps, EVENTS))
        decode = decoder(CODEC)
        found: dict[str, Measured] = await interleaved(
            {
                "counted into PostgreSQL": lambda: worker.counts(EVENTS),
                "nats-py fetch(1000)": lambda: fetched(worker.nc, USAGE, CLOUDEVENTS_SUBJECT, EVENTS, decode),
            }
        )
    ours, reference = found.values()
    what = "single CloudEvents counted from a filled stream, one worker"
    return [row("singles", what, "events/s", ours, reference, "nats-py `fetch(1000)` and decode, no database", Aim(1.0))]
