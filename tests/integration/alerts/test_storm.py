"""Alerts as processes of their own: storms, kill -9, SIGSTOP. Whoever is to be told is, and hears of it once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.servers.roles import ServiceDsn
from shared.clock import SystemClock
from shared.postgres import open_pool
from tests.support.alerting import Alerts, crossing
from tests.support.alerts_process import AlertsProcess
from tests.support.crashes import until
from tests.support.metering_process import LogFeed, RegistryFeed
from tests.support.receivers import SmtpReceiver

SMTP_TIMEOUT_S = 1.0


@pytest.fixture
async def living(schema: ServiceDsn) -> AsyncIterator[Alerts]:
    """The database of the processes, looked at from here."""
    pool = await open_pool(schema.dsn, "alerts")
    yield Alerts(pool, SystemClock())
    await pool.close()


@pytest.fixture
async def first(
    nats_url: str, schema: ServiceDsn, registry: RegistryFeed, meter: LogFeed, inbox: SmtpReceiver, tmp_path: Path
) -> AsyncIterator[AlertsProcess]:
    process = process_for(nats_url, schema, inbox, tmp_path, "one")
    yield process
    process.kill()


@pytest.fixture
async def second(
    first: AlertsProcess, nats_url: str, schema: ServiceDsn, inbox: SmtpReceiver, tmp_path: Path
) -> AsyncIterator[AlertsProcess]:
    process = process_for(nats_url, schema, inbox, tmp_path, "two")
    yield process
    process.kill()


def process_for(nats_url: str, schema: ServiceDsn, inbox: SmtpReceiver, folder: Path, name: str) -> AlertsProcess:
    return AlertsProcess(
        nats_url,
        schema,
        folder,
        name,
        TOLLBOOK_SMTP_HOST="127.0.0.1",
        TOLLBOOK_SMTP_PORT=str(inbox.port),
        TOLLBOOK_SMTP_SECURITY="none",
        TOLLBOOK_SMTP_TIMEOUT_S=str(SMTP_TIMEOUT_S),
        TOLLBOOK_MAIL_FROM="alerts@tollbook.example",
    )


def today() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)


def copies(inbox: SmtpReceiver) -> Counter[str]:
    """How often each message arrived."""
    return Counter(str(mail.message["Message-ID"]) for mail in inbox.mails)


async def test_ten_thousand_crossings_at_once_are_a_few_mails(
    living: Alerts, first: AlertsProcess, meter: LogFeed, inbox: SmtpReceiver
) -> None:
    kim = await living.contact()
    apps = [f"{number:020d}" for number in range(10)]
    for app in apps:
        await living.rule(kim, client_id=app)
    await first.start()
    start = today()
    await meter.flood([crossing(10, start, client_id=app, version=version) for version in range(1, 1001) for app in apps])

    async def all_told() -> bool:
        return await living.outcomes() == {"delivered": 10_000}

    await until(all_told, "everything to be told", 60)
    assert len(inbox.mails) <= 12
    assert set(copies(inbox).values()) == {1}
    metrics = await first.metrics()
    assert 'tollbook_alerts_notifications_total{method="email",outcome="delivered"} 10000.0' in metrics


async def test_kill_9_again_and_again_forgets_nobody_and_repeats_only_under_the_same_id(
    living: Alerts, first: AlertsProcess, meter: LogFeed, inbox: SmtpReceiver
) -> None:
    contacts = [await living.contact(f"Kim{number}") for number in range(120)]
    for number, contact in enumerate(contacts):
        await living.rule(contact, client_id=f"{number:020d}")
    inbox.delays["DATA"] = 0.03
    await first.start()
    start = today()
    await meter.flood([crossing(10, start, client_id=f"{number:020d}") for number in range(120)])
    for mails in (5, 40, 80):
        await inbox.arrived(mails)
        first.kill()
        await first.start()
    await until(lambda: _settled(living, 120), "everybody to be told", 40)
    assert await living.outcomes() == {"delivered": 120}
    assert len({mail.recipients for mail in inbox.mails}) == 120
    assert len(copies(inbox)) == 120, "what came twice has the same id"
    assert len(inbox.mails) - 120 <= 3 * 8, "no more than were under way"


async def test_a_process_that_stands_still_beyond_its_claims_sends_nothing_that_another_one_has(
    living: Alerts, first: AlertsProcess, second: AlertsProcess, meter: LogFeed, inbox: SmtpReceiver
) -> None:
    contacts = [await living.contact(f"Kim{number}") for number in range(60)]
    for number, contact in enumerate(contacts):
        await living.rule(contact, client_id=f"{number:020d}")
    inbox.delays["DATA"] = 0.05
    await first.start()
    await second.start()
    start = today()
    await meter.flood([crossing(10, start, client_id=f"{number:020d}") for number in range(60)])
    await inbox.arrived(20)
    assert first._process is not None
    os.kill(first._process.pid, signal.SIGSTOP)
    try:
        await until(lambda: _settled(living, 60), "the other one to do it all", 40)
    finally:
        os.kill(first._process.pid, signal.SIGCONT)
    await asyncio.sleep(0.5)
    assert await living.outcomes() == {"delivered": 60}
    assert len(copies(inbox)) == 60
    assert len(inbox.mails) - 60 <= 8, "no more than were under way when it was stopped"
    await until(lambda: _ready(first), "it to be ready again")


async def _settled(living: Alerts, count: int) -> bool:
    return (await living.rows("SELECT count(*) FROM notification WHERE state <> 'waiting'")) == [(count,)]


async def _ready(process: AlertsProcess) -> bool:
    return bool((await process.readiness())["ready"])
