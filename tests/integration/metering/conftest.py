"""A metering worker that runs, an account with two applications, and a publisher."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from tests.support.metering_process import Meter, MeteringProcess, RegistryFeed
from tests.support.servers import PostgresDatabase


@pytest.fixture
async def schema(postgres: PostgresDatabase) -> ServiceDsn:
    return await postgres.service_schema("metering")


@pytest.fixture
async def registry(nc: Client) -> RegistryFeed:
    feed = RegistryFeed(nc)
    await feed.open_account("acme", "Asia/Seoul")
    await feed.open_account("globex", "America/New_York")
    await feed.register("a" * 20)
    await feed.register("b" * 20, services=("csr", "clova-voice"))
    await feed.register("n" * 20, account="globex")
    return feed


@pytest.fixture
async def worker(nats_url: str, schema: ServiceDsn, registry: RegistryFeed, tmp_path: Path) -> AsyncIterator[MeteringProcess]:
    process = MeteringProcess(nats_url, schema, tmp_path)
    try:
        await process.start()
        yield process
    finally:
        process.kill()


@pytest.fixture
def meter(nc: Client) -> Meter:
    return Meter(nc)
