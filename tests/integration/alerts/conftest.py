"""Alerts that run, what the registry has told them, and an account that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.alerts.channels.addresses import networks
from services.alerts.channels.email import EmailChannel
from services.alerts.channels.mime import Sender
from services.alerts.channels.smtp_pool import SmtpServer
from services.alerts.channels.webhook import WebhookChannel
from shared.clock import FixedClock, SystemClock
from shared.events import metering
from shared.postgres import open_pool
from shared.streams.declare import ensure_stream, log_stream
from tests.support.alerting import LIMIT_S, Alerts
from tests.support.alerts_process import AlertsProcess, Asker
from tests.support.metering_process import LogFeed, RegistryFeed
from tests.support.receivers import HttpReceiver, SmtpReceiver
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
async def meter(nc: Client) -> LogFeed:
    """Metering's log, with nothing in it."""
    await ensure_stream(nc, log_stream("metering"))
    return LogFeed(nc, metering.CODEC)


@pytest.fixture
async def alerts(
    nats_url: str, schema: ServiceDsn, registry: RegistryFeed, meter: LogFeed, tmp_path: Path
) -> AsyncIterator[AlertsProcess]:
    process = AlertsProcess(nats_url, schema, tmp_path)
    try:
        await process.start()
        yield process
    finally:
        process.kill()


@pytest.fixture
def acme(alerts: AlertsProcess, nc: Client, schema: ServiceDsn) -> Asker:
    return Asker(nc, schema)


# -- without a process


@pytest.fixture
def clock() -> FixedClock:
    """It is 12:00 in Seoul."""
    return FixedClock(datetime(2026, 11, 24, 3, tzinfo=UTC))


@pytest.fixture
async def room(schema: ServiceDsn, clock: FixedClock) -> AsyncIterator[Alerts]:
    """What of alerts is about sending, in the test's own process and time."""
    pool = await open_pool(schema.dsn, "alerts")
    yield Alerts(pool, clock)
    await pool.close()


@pytest.fixture
async def inbox() -> AsyncIterator[SmtpReceiver]:
    async with SmtpReceiver() as receiver:
        yield receiver


@pytest.fixture
async def mail(inbox: SmtpReceiver) -> AsyncIterator[EmailChannel]:
    """To `inbox`."""
    server = SmtpServer("127.0.0.1", inbox.port, "none", "", "", "tollbook.example")
    channel = EmailChannel(SystemClock(), LIMIT_S, server, Sender("Tollbook", "alerts@tollbook.example"), size=8)
    yield channel
    await channel.close()


@pytest.fixture
async def hooks() -> AsyncIterator[HttpReceiver]:
    async with HttpReceiver() as receiver:
        yield receiver


@pytest.fixture
async def web() -> AsyncIterator[WebhookChannel]:
    """To any webhook here."""
    channel = WebhookChannel(SystemClock(), LIMIT_S, networks("127.0.0.0/8"))
    yield channel
    await channel.close()
