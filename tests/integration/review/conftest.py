"""Review that runs, what the registry has told it, those who apply, and those who decide."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from tests.support.metering_process import RegistryFeed
from tests.support.review_process import Applicant, Calls, Reviewer, ReviewProcess, registered
from tests.support.servers import PostgresDatabase


@pytest.fixture
async def schema(postgres: PostgresDatabase) -> ServiceDsn:
    return await postgres.service_schema("review")


@pytest.fixture
async def registry(nc: Client) -> RegistryFeed:
    """The registry's log, with one application that tests CLOVA Studio."""
    feed = RegistryFeed(nc)
    await feed.open_account("acme", "Asia/Seoul")
    await feed.publish(registered())
    return feed


@pytest.fixture
async def calls(nc: Client) -> Calls:
    return await Calls(nc).answer()


@pytest.fixture
async def review(
    nats_url: str, schema: ServiceDsn, registry: RegistryFeed, calls: Calls, tmp_path: Path
) -> AsyncIterator[ReviewProcess]:
    process = ReviewProcess(nats_url, schema, tmp_path)
    try:
        await process.start()
        yield process
    finally:
        process.kill()


@pytest.fixture
def applicant(review: ReviewProcess, nc: Client) -> Applicant:
    return Applicant(nc)


@pytest.fixture
def reviewer(review: ReviewProcess, nc: Client) -> Reviewer:
    return Reviewer(nc)
