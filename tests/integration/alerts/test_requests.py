"""Crossings into requests: who is asked to be told, once, whatever is heard of again."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from nats.aio.client import Client

from services.alerts.asking import metering_consumer
from services.alerts.following import follow_registry, write_rows
from services.alerts.groups import group_stream
from services.alerts.outbox import make_messages
from services.alerts.serving import METERING_CONSUMER
from shared.clock import FixedClock, SystemClock
from shared.events import registry as apps
from shared.events import review
from shared.events.alerts import (
    Crossed,
    Deleted,
    GroupChanged,
    NotificationRequested,
    Recipient,
    RecipientsChanged,
    Reissued,
    Reviewed,
)
from shared.events.metering import STREAM as METERING
from shared.streams.checkpoints import Source
from shared.streams.consumer import Consumer
from tests.support.alerting import APP, Alerts, crossing, exhausted, message, messages
from tests.support.alerts_process import AlertsProcess
from tests.support.crashes import killed, until
from tests.support.metering_process import LogFeed
from tests.support.reviewing import reviewing

TODAY = datetime(2026, 11, 23, 15, tzinfo=UTC)


async def requests(room: Alerts) -> list[NotificationRequested]:
    return [event for event in await room.events() if isinstance(event, NotificationRequested)]


def percents(found: list[NotificationRequested]) -> list[int]:
    return [one.about.percent for one in found if isinstance(one.about, Crossed)]


@asynccontextmanager
async def following(room: Alerts, nc: Client) -> AsyncIterator[Consumer]:
    consumer = metering_consumer(room.pool, lambda: nc, room.asking, SystemClock(), lambda: None)
    await consumer.add(Source(METERING))
    task = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        await killed(task)


async def test_what_is_redelivered_or_followed_again_from_the_beginning_asks_for_nothing_more(
    room: Alerts, nc: Client, meter: LogFeed
) -> None:
    kim = await room.contact()
    await room.rule(kim, daily=70, custom=(85,))
    told = [crossing(percent, TODAY) for percent in (60, 70, 80, 85, 90, 100)]
    async with following(room, nc) as consumer:
        await meter.publish(*told, exhausted(TODAY))
        await consumer.caught_up(METERING, 7, 10)
    first = await room.events()
    assert percents(await requests(room)) == [70, 80, 85, 90, 100]
    await room.rows("UPDATE checkpoint SET sequence = 0, hash = '' WHERE consumer = $1", METERING_CONSUMER)
    async with following(room, nc) as consumer:
        await meter.publish(crossing(70, TODAY, version=2))
        await consumer.caught_up(METERING, 8, 10)
    await room.hear(*told)
    async with room.pool.acquire() as connection, connection.transaction():
        await room.asking.of_metering(connection, messages(*told, *told))
    again = await room.events()
    assert again[: len(first)] == first
    assert len(again) == len(first) + 1, "the new version of the limit is told, and nothing else"


async def test_the_end_of_a_limit_is_told_once_whichever_is_heard_first(room: Alerts) -> None:
    kim = await room.contact()
    await room.rule(kim, daily=100)
    await room.rule(kim, client_id="b" * 20, daily=None, custom=(50,))
    await room.hear(crossing(100, TODAY), exhausted(TODAY))
    await room.hear(exhausted(TODAY, version=2))
    await room.hear(crossing(100, TODAY, version=2))
    await room.hear(crossing(100, TODAY, client_id="b" * 20))
    await room.hear(exhausted(TODAY, client_id="b" * 20))
    found = await requests(room)
    assert [(one.client_id, one.about.exhausted) for one in found if isinstance(one.about, Crossed)] == [
        (APP, True),
        (APP, True),
        ("b" * 20, True),
    ]


async def test_contacts_and_members_of_groups_are_asked_for_once_each_and_only_where_they_can_be_told(room: Alerts) -> None:
    kim = await room.contact("Kim", email="kim@example.com", phone="+821012345678")
    lee, unverified = await room.contact("Lee"), await room.contact("Choi", verified=False)
    stranger = await room.contact("Stranger", account="globex")
    for group_id in ("g1", "g2"):
        group = GroupChanged(account="acme", group_id=group_id, name=group_id, contacts=(kim, lee, unverified, stranger))
        await room.append(group_stream(group_id), 0, group)
    await room.rule(
        Recipient(kim, "", ("email", "sms")),
        Recipient("", "g1", ("email",)),
        Recipient("", "g2", ("email", "webhook")),
        Recipient("", "gone", ("email",)),
        unverified,
    )
    await room.rule(lee, client_id="", daily=50)
    await room.hear(crossing(50, TODAY), crossing(50, TODAY, client_id=""), crossing(60, TODAY, client_id="c" * 20))
    found = {(one.client_id, one.contact_id, one.method) for one in await requests(room)}
    assert found == {(APP, kim, "email"), (APP, kim, "sms"), (APP, lee, "email"), ("", lee, "email")}


async def test_what_ended_long_ago_is_not_told(room: Alerts, clock: FixedClock) -> None:
    await room.rule(await room.contact())
    ended = clock.now() - timedelta(days=1)
    await room.hear(
        crossing(50, ended - timedelta(days=1, seconds=1)), crossing(60, ended - timedelta(days=1) + timedelta(hours=1))
    )
    assert percents(await requests(room)) == [60]


async def test_new_secrets_deletions_and_reviews_are_told_to_whom_the_rules_name_if_they_are_of_today(
    room: Alerts, clock: FixedClock
) -> None:
    kim, lee = await room.contact("Kim"), await room.contact("Lee")
    await room.rule(kim, lee)
    await room.rule(kim, service="clova-voice")
    now, old = clock.now(), clock.now() - timedelta(days=1, seconds=1)
    secret = apps.SecretIssued("s2", "00" * 32)
    registered = apps.AppRegistered(
        account="acme", client_id=APP, name="Weather", services=(), environments=apps.Environments(), secret=secret
    )
    reissued = apps.SecretReissued(account="acme", client_id=APP, secret=secret, previous_valid_until=None)
    older = apps.SecretReissued(account="acme", client_id=APP, secret=apps.SecretIssued("s1", ""), previous_valid_until=None)
    deleted = apps.AppDeleted(account="acme", client_id=APP)
    said = [(registered, old), (older, old), (reissued, now), (deleted, now)]
    follow = follow_registry(write_rows, room.asking.of_registry)
    decided = reviewing(review.ReviewDecided, review_id="r1", service="clova-voice", decision="approved")
    elsewhere = reviewing(review.ReviewDecided, review_id="r2", service="other", decision="rejected")
    async with room.pool.acquire() as connection, connection.transaction():
        await follow(connection, [message(apps.CODEC, event, place, at) for place, (event, at) in enumerate(said, 1)])
        reviewed = [message(review.CODEC, event, place, now) for place, event in enumerate((decided, elsewhere), 1)]
        await room.asking.of_review(connection, reviewed)
    found = await requests(room)
    assert {(type(one.about), one.service, one.contact_id) for one in found} == {
        *((Reissued, "", contact) for contact in (kim, lee)),
        *((Deleted, "", contact) for contact in (kim, lee)),
        (Reviewed, "clova-voice", kim),
        *((Reviewed, "other", contact) for contact in (kim, lee)),
    }
    assert len(found) == 7
    assert {one.app_name for one in found} == {"Weather"}


async def test_a_message_that_cannot_be_read_stops_the_consumer_and_what_came_before_is_asked_for(
    room: Alerts, nc: Client, meter: LogFeed
) -> None:
    await room.rule(await room.contact())
    await meter.publish(crossing(50, TODAY))
    await meter.send("ThresholdCrossed", b"{}")
    async with following(room, nc) as consumer:
        await until(lambda: "stopped" in consumer.readiness().detail, "the consumer to stop")
    assert percents(await requests(room)) == [50]


async def test_a_rebuild_sends_nothing_and_leaves_messages_and_rows_as_they_were(
    room: Alerts, clock: FixedClock, alerts: AlertsProcess, nc: Client
) -> None:
    assert alerts.stop() == 0
    kim = await room.contact(digest_at="18:00")
    await room.rule(kim)
    await room.hear(crossing(50, TODAY), crossing(60, TODAY))
    clock.advance(7 * 3600)
    async with room.pool.acquire() as connection:
        await make_messages(connection, clock.now())
    tables = ("notification", "message", "message_item", "contact", "contact_method", "rule", "recipient")

    async def everything() -> dict[str, list[Any]]:
        return {table: await room.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables}

    before = await everything()
    assert len(before["message_item"]) == 2
    done: subprocess.CompletedProcess[bytes] = await asyncio.to_thread(alerts.run, "--rebuild")
    assert done.returncode == 0, done.stderr.decode()
    assert await everything() == before


async def test_recipients_of_a_scope_that_changed_are_those_of_now(room: Alerts) -> None:
    kim, lee = await room.contact("Kim"), await room.contact("Lee")
    await room.rule(kim)
    changed = RecipientsChanged(
        account="acme", client_id=APP, service="csr", version=2, recipients=(Recipient(lee, "", ("email",)),)
    )
    await room.append(f"rule/acme/{APP}/csr", 2, changed)
    await room.hear(crossing(50, TODAY))
    assert [one.contact_id for one in await requests(room)] == [lee]
