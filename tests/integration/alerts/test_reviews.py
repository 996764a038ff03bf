"""Reviews into requests and mails: the applicant's contacts and the reviewers', each once, and who can see what of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.alerts.asking import Asking, review_consumer
from services.alerts.channels.email import EmailChannel
from services.alerts.contacts import contact_stream
from services.alerts.delivery_queries import dashboard_values, deliveries_of
from services.alerts.following import follow_registry, write_rows
from services.alerts.serving import REVIEW_CONSUMER
from shared.clock import FixedClock, SystemClock
from shared.commands.notifications import Deliveries, ListDeliveries
from shared.events import registry as apps
from shared.events import review
from shared.events.alerts import ContactUnsubscribed, NotificationRequested
from shared.events.review import STREAM as REVIEW
from shared.streams.checkpoints import Source
from shared.streams.consumer import Consumer
from tests.support.alerting import APP, Alerts, message
from tests.support.alerts_process import AlertsProcess
from tests.support.crashes import killed
from tests.support.metering_process import LogFeed, RegistryFeed, eventually
from tests.support.receivers import SmtpReceiver
from tests.support.reviewing import SECRET, reviewing

REVIEWERS = "reviewers"
STORY = (
    reviewing(review.FormPublished),
    reviewing(review.ApplicationDrafted),
    reviewing(review.ApplicationSubmitted),
    reviewing(review.ReviewStarted),
    reviewing(review.ChangesRequested),
    reviewing(review.ApplicationRevised, revision=2),
    reviewing(review.ApplicationSubmitted, revision=2),
    reviewing(review.ReviewDueSoon, revision=2),
    reviewing(review.ReviewDecided, revision=2, decision="rejected"),
    reviewing(review.ApplicationSubmitted, revision=3),
    reviewing(review.ApplicationWithdrawn, revision=3),
    reviewing(review.ApplicationSubmitted, revision=4),
    reviewing(review.ReviewDecided, revision=4, decision="approved"),
    reviewing(review.ServiceAppSuspended),
    reviewing(review.SuspensionLifted),
    reviewing(review.ServiceAppSuspended),
)
TO_APPLICANT = (
    "review_submitted",
    "review_changes_requested",
    "review_submitted",
    "review_decided",
    "review_submitted",
    "review_submitted",
    "review_decided",
    "service_suspended",
    "service_resumed",
    "service_suspended",
)
TO_REVIEWERS = (
    "review_submitted",
    "review_submitted",
    "review_due_soon",
    "review_submitted",
    "review_withdrawn",
    "review_submitted",
    "service_suspended",
    "service_suspended",
)


@pytest.fixture
async def house(room: Alerts, clock: FixedClock) -> Alerts:
    """Alerts that knows who reviews, and what acme's application is called."""
    room.asking = Asking(room.log, clock, timedelta(hours=24), REVIEWERS)
    registered = apps.AppRegistered(
        account="acme",
        client_id=APP,
        name="Weather",
        services=(),
        environments=apps.Environments(),
        secret=apps.SecretIssued("s1", "00" * 32),
    )
    async with room.pool.acquire() as connection, connection.transaction():
        await follow_registry(write_rows)(connection, [message(apps.CODEC, registered, 1, clock.now())])
    return room


async def hear(room: Alerts, *events: review.ReviewEvent) -> None:
    """What a consumer does with them, each recorded a second after the one before."""
    now = room.clock.now()
    told = [message(review.CODEC, one, place, now + timedelta(seconds=place)) for place, one in enumerate(events)]
    async with room.pool.acquire() as connection, connection.transaction():
        await room.asking.of_review(connection, told)


async def requests(room: Alerts) -> list[NotificationRequested]:
    return [event for event in await room.events() if isinstance(event, NotificationRequested)]


async def kinds(room: Alerts, contact_id: str) -> tuple[str, ...]:
    """What the contact was told, in the order in which it was asked for."""
    return tuple(str(one.about.__struct_config__.tag) for one in await requests(room) if one.contact_id == contact_id)


async def deliveries(room: Alerts, account: str, **chosen: str) -> Deliveries:
    async with room.pool.acquire() as connection:
        return await deliveries_of(connection, room.vault, ListDeliveries(account=account, **chosen))


@asynccontextmanager
async def following(room: Alerts, nc: Client) -> AsyncIterator[Consumer]:
    consumer = review_consumer(room.pool, lambda: nc, room.asking, SystemClock(), lambda: None)
    await consumer.add(Source(REVIEW))
    task = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        await killed(task)


async def test_a_whole_review_is_told_once_to_each_also_when_it_is_delivered_or_followed_again(house: Alerts, nc: Client) -> None:
    kim, park = await house.contact("Kim"), await house.contact("Park", account=REVIEWERS)
    feed = LogFeed(nc, review.CODEC)
    await feed.publish(*STORY)
    async with following(house, nc) as consumer:
        await consumer.caught_up(REVIEW, len(STORY), 10)
    assert (await kinds(house, kim), await kinds(house, park)) == (TO_APPLICANT, TO_REVIEWERS)
    before = await house.events()
    await house.rows("UPDATE checkpoint SET sequence = 0, hash = '' WHERE consumer = $1", REVIEW_CONSUMER)
    async with following(house, nc) as consumer:
        await feed.publish(reviewing(review.ChangesRequested, revision=5))
        await consumer.caught_up(REVIEW, len(STORY) + 1, 10)
    again = await house.events()
    assert again[: len(before)] == before
    assert len(again) == len(before) + 1, "the new one is told, and nothing else"
    data = [review.CODEC.encode(one) for one in STORY]
    assert any(SECRET.encode() in one for one in data)
    assert SECRET not in repr(again)


async def test_who_a_rule_names_is_told_and_without_one_everybody_by_what_they_have_proved(house: Alerts) -> None:
    kim = await house.contact("Kim", email="kim@example.com", phone="+821012345678")
    lee = await house.contact("Lee")
    await house.contact("Choi", verified=False)
    gone = await house.contact("Gone", email="gone@example.com", phone="+821011111111")
    await house.append(contact_stream(gone), 3, ContactUnsubscribed(account="acme", contact_id=gone, method="email"))
    await house.contact("Stranger", account="globex")
    await hear(house, reviewing(review.ReviewDecided))
    everybody = {(kim, "email"), (kim, "sms"), (lee, "email"), (gone, "sms")}
    assert {(one.contact_id, one.method) for one in await requests(house)} == everybody
    await house.rule(lee)
    await hear(house, reviewing(review.ReviewDecided, revision=2))
    assert [(one.contact_id, one.method) for one in (await requests(house))[4:]] == [(lee, "email")]


async def test_reviewers_who_have_not_proved_an_address_or_unsubscribed_are_not_told(house: Alerts) -> None:
    park = await house.contact("Park", account=REVIEWERS, email="park@example.com", phone="+821022222222")
    await house.contact("New", account=REVIEWERS, verified=False)
    await house.append(contact_stream(park), 3, ContactUnsubscribed(account=REVIEWERS, contact_id=park, method="sms"))
    await hear(house, reviewing(review.ReviewDueSoon))
    assert [(one.contact_id, one.method) for one in await requests(house)] == [(park, "email")]


async def test_without_an_account_of_reviewers_only_applicants_are_told(room: Alerts) -> None:
    kim, park = await room.contact("Kim"), await room.contact("Park", account=REVIEWERS)
    await hear(room, *STORY)
    assert (await kinds(room, kim), await kinds(room, park)) == (TO_APPLICANT, ())


async def test_a_contact_of_an_account_that_applies_and_reviews_is_told_once(room: Alerts, clock: FixedClock) -> None:
    room.asking = Asking(room.log, clock, timedelta(hours=24), "acme")
    kim, lee = await room.contact("Kim"), await room.contact("Lee")
    await room.rule(kim)
    await hear(room, reviewing(review.ApplicationSubmitted), reviewing(review.ReviewDueSoon), reviewing(review.ReviewDecided))
    assert await kinds(room, kim) == ("review_submitted", "review_due_soon", "review_decided")
    assert await kinds(room, lee) == ("review_submitted", "review_due_soon")
    assert [(one.contact_id, one.client_id) for one in await requests(room)][:2] == [(kim, APP), (lee, "")]


async def test_what_reviewers_are_told_is_seen_by_their_account_only(house: Alerts) -> None:
    kim, park = await house.contact("Kim"), await house.contact("Park", account=REVIEWERS)
    await hear(house, *STORY)
    seen = {account: (await deliveries(house, account)).deliveries for account in ("acme", REVIEWERS, "globex")}
    assert {one.contact_id for one in seen["acme"]} == {kim}
    assert {one.client_id for one in seen["acme"]} == {APP}
    assert {one.contact_id for one in seen[REVIEWERS]} == {park}
    assert {one.client_id for one in seen[REVIEWERS]} == {None}
    assert {(one.app_name, one.service) for one in (*seen["acme"], *seen[REVIEWERS])} == {("Weather", "csr")}
    assert seen["globex"] == ()
    assert (await deliveries(house, REVIEWERS, client_id=APP)).deliveries == ()
    assert len((await deliveries(house, REVIEWERS, kind="review_due_soon")).deliveries) == 1
    marked = [key for (key,) in await house.rows("SELECT DISTINCT key FROM kv_dirty")]
    assert sorted(marked) == [f"acme.{APP}", f"{REVIEWERS}.account"]
    async with house.pool.acquire() as connection:
        values = await dashboard_values(connection, marked)
    assert all(park not in (value or b"").decode() for key, value in values.items() if key.startswith("acme."))


async def test_mails_say_what_happened_and_lead_to_the_page_of_whoever_reads_them(
    house: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    await house.contact("Kim")
    await house.contact("Park", account=REVIEWERS)
    await hear(house, reviewing(review.ServiceAppSuspended))
    clock.advance(2)
    async with house.working({"email": mail}):
        await house.settled()
    letters = {letter.recipients[0]: letter for letter in inbox.mails}
    assert set(letters) == {"kim@example.com", "park@example.com"}
    for address, page in (("kim@example.com", "service-apps"), ("park@example.com", "reviews")):
        text = letters[address].part("plain")
        assert "Application 'Weather' was suspended at CLOVA Speech Recognition (CSR)" in text
        assert f"https://console.example/{page}/{'e' * 32}" in text.splitlines()[4]
        assert SECRET not in text
        assert letters[address].message["Subject"] == (
            "[Tollbook] Suspended, calls refused: Weather (CLOVA Speech Recognition (CSR))"
        )


async def test_alerts_is_told_by_its_settings_who_reviews(
    nats_url: str, schema: ServiceDsn, registry: RegistryFeed, meter: LogFeed, tmp_path: Path, nc: Client, room: Alerts
) -> None:
    park = await room.contact("Park", account=REVIEWERS)
    process = AlertsProcess(nats_url, schema, tmp_path, TOLLBOOK_REVIEWERS_ACCOUNT=REVIEWERS)
    try:
        await process.start()
        await LogFeed(nc, review.CODEC).publish(reviewing(review.ReviewDueSoon))

        async def told() -> tuple[str, ...]:
            return await kinds(room, park)

        await eventually(told, ("review_due_soon",))
    finally:
        process.kill()
