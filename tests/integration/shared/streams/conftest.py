"""A schema with the event log and the tables of shared/streams, and a place where a consumer writes what it saw."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from nats.aio.client import Client

from shared.clock import SystemClock
from shared.eventlog.log import EventLog
from shared.postgres import Pool, open_pool
from shared.streams.declare import ensure_stream, log_stream, usage_stream
from tests.support.crashes import killed
from tests.support.ledger import CODEC, EVENT_LOG_MIGRATIONS, ROOT, LedgerEvent
from tests.support.servers import PostgresDatabase
from tests.support.stage import Stage

SEEN = """
    SET search_path = ledger;
    CREATE TABLE seen (n bigint GENERATED ALWAYS AS IDENTITY, stream text, subject text, sequence bigint, data text);
    CREATE TABLE item (key text PRIMARY KEY, value text NOT NULL);
    GRANT ALL ON seen, item TO ledger;
"""


@pytest.fixture
async def pool(postgres: PostgresDatabase) -> AsyncIterator[Pool]:
    dsn = await postgres.service_schema("ledger", [EVENT_LOG_MIGRATIONS, ROOT / "shared" / "streams" / "migrations"])
    owner = await asyncpg.connect(dsn.owner_dsn)
    await owner.execute(SEEN)
    await owner.close()
    opened = await open_pool(dsn.dsn, "ledger", 8)
    yield opened
    await opened.close()


@pytest.fixture
def log() -> EventLog[LedgerEvent]:
    return EventLog(CODEC, SystemClock())


@pytest.fixture
async def stage(pool: Pool, nc: Client) -> AsyncIterator[Stage]:
    await ensure_stream(nc, log_stream("ledger"))
    await ensure_stream(nc, usage_stream())
    stage = Stage(pool, nc)
    yield stage
    for task in stage.tasks:
        await killed(task)
