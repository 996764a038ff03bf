"""From crossings to mails: what is bundled, when it is sent, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from deploy.servers.roles import ServiceDsn
from services.alerts.channels.email import EmailChannel
from services.alerts.channels.mime import Sender
from services.alerts.channels.smtp_pool import SmtpServer
from services.alerts.channels.webhook import WebhookChannel
from services.alerts.channels.addresses import networks
from shared.clock import FixedClock, SystemClock
from shared.events.alerts import GroupChanged, Recipient
from shared.ids import new_webhook_secret
from shared.postgres import open_pool
from tests.support.alerting import APP, LIMIT_S, Alerts, crossing, exhausted
from tests.support.crashes import until
from tests.support.receivers import HttpReceiver, SmtpReceiver

NOON = datetime(2026, 11, 24, 3, tzinfo=UTC)
"""12:00 in Seoul."""
TODAY = datetime(2026, 11, 23, 15, tzinfo=UTC)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
async def room(schema: ServiceDsn, clock: FixedClock) -> AsyncIterator[Alerts]:
    pool = await open_pool(schema.dsn, "alerts")
    yield Alerts(pool, clock)
    await pool.close()


@pytest.fixture
async def inbox() -> AsyncIterator[SmtpReceiver]:
    async with SmtpReceiver() as receiver:
        yield receiver


@pytest.fixture
async def mail(inbox: SmtpReceiver) -> AsyncIterator[EmailChannel]:
    server = SmtpServer("127.0.0.1", inbox.port, "none", "", "", "tollbook.example")
    channel = EmailChannel(SystemClock(), LIMIT_S, server, Sender("Tollbook", "alerts@tollbook.example"), size=8)
    yield channel
    await channel.close()


async def test_a_jump_over_several_rungs_is_one_mail_that_names_the_highest_and_lists_the_others(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim = await room.contact()
    await room.rule(kim, daily=70)
    await room.hear(*(crossing(percent, TODAY) for percent in (60, 70, 80, 90)))
    async with room.working({"email": mail}) as worker:
        clock.advance(0.3)
        worker.wake()
        await room.settled()
    (letter,) = inbox.mails
    assert letter.recipients == ("kim@example.com",)
    assert "90" in str(letter.message["Subject"])
    assert all(f"{percent}" in letter.part("plain") for percent in (70, 80, 90))
    assert await room.outcomes() == {"delivered": 3}
