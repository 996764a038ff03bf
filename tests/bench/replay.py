"""The registry's own log: read, decoded and folded; and its read tables built again from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from deploy.servers.roles import ServiceDsn
from services.registry.domain import App, evolve_app
from services.registry.projection import TABLES, project
from shared.clock import SystemClock
from shared.eventlog.log import Entry, EventLog, Meta
from shared.eventlog.rebuild import rebuild
from shared.events.registry import CODEC, RegistryEvent
from shared.ids import new_id
from shared.postgres import Pool, open_pool
from tests.bench.examples import ACCOUNT, cut, issue, lives, opened
from tests.bench.measure import Aim, Row, interleaved, row, said
from tests.bench.peers import ask_peer
from tests.bench.place import Place
from tests.support.servers import PostgresDatabase, create_database, drop_database

APPS: Final = 20_000
WRITE: Final = 2_000
PEER_AGGREGATES: Final = 20_000


async def fill_log(pool: Pool, events: Sequence[tuple[str, RegistryEvent]]) -> int:
    """Append (stream, event) pairs as commands would have, thousands in a transaction; the position of the last one."""
    log = EventLog(CODEC, SystemClock())
    versions: dict[str, int] = {}
    position = 0
    for run in cut(events, WRITE):
        entries = []
        for stream, event in run:
            version = versions.get(stream, 0)
            versions[stream] = version + 1
            entries.append(Entry(stream, version, [event], Meta(new_id(), "token:bench", "")))
        async with pool.acquire() as connection, connection.transaction():
            recorded = log.prepare(await log.lock_head(connection), entries)
            await log.write(connection, recorded)
            position = recorded[-1].position
    return position


async def folded(pool: Pool, events: int) -> float:
    """Read the log from its first event, decode each, fold each application: events a second."""
    log = EventLog(CODEC, SystemClock())
    apps: dict[str, App | None] = {}
    began = time.perf_counter()
    seen = 0
    async with pool.acquire() as connection:
        async for page in log.replay(connection):
            for past in page:
                stream = past.stream
                if stream.startswith("app/"):
                    apps[stream] = evolve_app(apps.get(stream), past.event)
            seen += len(page)
    if seen != events:
        raise RuntimeError(f"{seen} events read, {events} written")
    return seen / (time.perf_counter() - began)


async def rebuilt(dsn: ServiceDsn, pool: Pool, events: int) -> float:
    """What `python -m services.registry --rebuild` does, into empty tables: events a second."""
    async with pool.acquire() as connection:
        for table in (*TABLES, "kv_dirty"):
            await connection.execute(f"DELETE FROM {table}")
    began = time.perf_counter()
    done = await rebuild(dsn.owner_dsn, "registry", EventLog(CODEC, SystemClock()), project, TABLES)
    if done != events:
        raise RuntimeError(f"{done} events projected, {events} written")
    return done / (time.perf_counter() - began)


def peer_environment(database: PostgresDatabase) -> dict[str, str]:
    """How pyeventsourcing finds its database, on the same server."""
    user, _, host = database.owner_dsn.removeprefix("postgresql://").partition("@")
    name, _, password = user.partition(":")
    address, _, dbname = host.partition("/")
    server, _, port = address.partition(":")
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": dbname,
        "POSTGRES_HOST": server,
        "POSTGRES_PORT": port,
        "POSTGRES_USER": name,
        "POSTGRES_PASSWORD": password,
        "POSTGRES_POOL_SIZE": "20",
    }


async def peer(database: PostgresDatabase, *task: object) -> Any:
    return ask_peer("event_sourced.py", *map(str, task), environment=peer_environment(database))


async def measure(place: Place) -> list[Row]:
    """Both ways of replaying, beside pyeventsourcing's reading."""
    async with place.cleared() as (_, database):
        peers_own = await create_database(place.postgres_dsn)
        dsn = await database.service_schema("registry")
        pool = await open_pool(dsn.dsn, "registry")
        try:
            events = [(f"account/{ACCOUNT}", opened()), *lives(issue(APPS))]
            said(f"  filling the logs: {len(events):,} events, and {2 * PEER_AGGREGATES:,} of pyeventsourcing's")
            last = await fill_log(pool, events)
            await peer(peers_own, "fill", PEER_AGGREGATES)

            async def read_by_peer() -> float:
                return float((await peer(peers_own, "read"))["per_second"])

            found = await interleaved(
                {
                    "read, decoded, folded": lambda: folded(pool, last),
                    "rebuilt": lambda: rebuilt(dsn, pool, last),
                    "pyeventsourcing": read_by_peer,
                }
            )
        finally:
            await pool.close()
            await drop_database(place.postgres_dsn, peers_own)
    fold, build, reference = found.values()
    name = "pyeventsourcing: select and decode"
    return [
        row("replay", "the registry's log read, decoded and folded", "events/s", fold, reference, name, Aim(5.0)),
        row("replay", "its read tables built again from the log", "events/s", build, reference, name, Aim(2.0)),
    ]
