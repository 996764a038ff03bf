"""Alerts that run, what the registry has told them, and an account that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from tests.support.alerts_process import AlertsProcess, Asker
from tests.support.metering_process import RegistryFeed
from tests.support.servers import PostgresDatabase


@pytest.fixture
async def schema(postgres: PostgresDatabase) -> ServiceDsn:
    return await postgres.service_schema("alerts")


@pytest.fixture
async def registry(nc: Client) -> RegistryFeed:
    feed = RegistryFeed(nc)
    await feed.open_account("acme", "Asia/Seoul")
    await feed.open_account("globex", "America/New_York")
    await feed.register("a" * 20)
    return feed


@pytest.fixture
async def alerts(nats_url: str, schema: ServiceDsn, registry: RegistryFeed, tmp_path: Path) -> AsyncIterator[AlertsProcess]:
    process = AlertsProcess(nats_url, schema, tmp_path)
    try:
        await process.start()
        yield process
    finally:
        process.kill()


@pytest.fixture
def acme(alerts: AlertsProcess, nc: Client, schema: ServiceDsn) -> Asker:
    return Asker(nc, schema)
