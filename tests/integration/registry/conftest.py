"""A registry that runs, and a customer with an open account."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from tests.support.registry_process import Customer, RegistryProcess
from tests.support.servers import PostgresDatabase


@pytest.fixture
async def schema(postgres: PostgresDatabase) -> ServiceDsn:
    return await postgres.service_schema("registry")


@pytest.fixture
async def registry(nats_url: str, schema: ServiceDsn, tmp_path: Path) -> AsyncIterator[RegistryProcess]:
    process = RegistryProcess(nats_url, schema, tmp_path)
    try:
        await process.start()
        yield process
    finally:
        process.kill()


@pytest.fixture
async def customer(registry: RegistryProcess, nc: Client) -> Customer:
    return await Customer(nc).opened()
