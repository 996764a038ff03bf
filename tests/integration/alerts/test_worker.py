"""From crossings to messages: what goes together, when it is sent, and what is said of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from standardwebhooks import Webhook

from services.alerts.channels.email import EmailChannel
from services.alerts.channels.webhook import WebhookChannel
from services.alerts.contacts import contact_stream
from shared.clock import FixedClock
from shared.events.alerts import (
    ContactRemoved,
    ContactUnsubscribed,
    NotificationDelivered,
    NotificationRequested,
    Recipient,
    VerificationRequested,
    Verifying,
)
from shared.ids import new_id, new_webhook_secret
from tests.support.alerting import APP, Alerts, crossing, exhausted
from tests.support.receivers import HttpReceiver, SmtpReceiver

TODAY = datetime(2026, 11, 23, 15, tzinfo=UTC)
"""In Seoul."""


async def test_a_jump_over_several_rungs_is_one_mail_that_names_the_highest_and_lists_the_others(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim = await room.contact()
    await room.rule(kim, daily=70)
    await room.hear(*(crossing(percent, TODAY) for percent in (60, 70, 80, 90)))
    clock.advance(0.3)
    async with room.working({"email": mail}):
        await room.settled()
    (letter,) = inbox.mails
    assert letter.recipients == ("kim@example.com",)
    assert "90" in str(letter.message["Subject"])
    assert all(f"{percent}" in letter.part("plain") for percent in (70, 80, 90))
    assert await room.outcomes() == {"delivered": 3}
    fates = await room.fates()
    delivered = [one for fate in fates.values() for one in fate if isinstance(one, NotificationDelivered)]
    assert {(one.message_id, one.provider_id, one.attempts) for one in delivered} == {(delivered[0].message_id, "Q00001", 1)}
    assert delivered[0].message_id in str(letter.message["Message-ID"])


async def test_several_waiting_for_company_is_one_message_and_the_next_ones_wait_longer(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim = await room.contact()
    await room.rule(kim)
    worker = room.worker({"email": mail})
    for number, settle_s in enumerate((0.25, 0.5, 1.0, 2.0), 1):
        await room.hear(crossing(10, TODAY, version=number))
        clock.advance(settle_s * 0.9)
        await room.hear(crossing(20, TODAY, version=number))
        await worker.look()
        assert await room.rows("SELECT FROM message") == [], "it waits for company"
        clock.advance(settle_s * 0.2)
        await worker.look()
        await inbox.arrived(number)
        await worker.drain()
    assert await room.outcomes() == {"delivered": 8}


async def test_a_limit_that_is_used_up_is_told_within_two_seconds_and_in_quiet_hours_too(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim = await room.contact(quiet=("10:00", "18:00"))
    await room.rule(kim)
    worker = room.worker({"email": mail})
    for number in range(1, 5):
        await room.hear(crossing(90, TODAY, version=number), crossing(100, TODAY, version=number))
        clock.advance(2.0)
        await worker.look()
        await worker.drain()
    assert len(inbox.mails) == 4
    assert await room.outcomes() == {"delivered": 4}
    clock.advance(6 * 3600)
    await worker.look()
    await worker.drain()
    assert len(inbox.mails) == 5, "what is not urgent comes when the quiet hours are over, in one mail"
    assert await room.outcomes() == {"delivered": 8}


async def test_a_digest_is_one_mail_at_its_time(room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel) -> None:
    kim = await room.contact(digest_at="18:00")
    await room.rule(kim)
    for percent in (10, 20, 30):
        await room.hear(crossing(percent, TODAY))
        clock.advance(3600)
    worker = room.worker({"email": mail})
    await worker.look()
    await worker.drain()
    assert inbox.mails == []
    clock.advance(3 * 3600 + 1)
    await worker.look()
    await worker.drain()
    assert len(inbox.mails) == 1
    assert await room.outcomes() == {"delivered": 3}


async def test_one_contact_is_told_by_each_method_once_however_often_it_is_named(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel, hooks: HttpReceiver, web: WebhookChannel
) -> None:
    secret = new_webhook_secret()
    kim = await room.contact(email="kim@example.com", webhook_url=f"{hooks.url}/alerts", webhook_secret=secret)
    await room.rule(Recipient(kim, "", ("email", "webhook")), Recipient(kim, "", ("email",)))
    await room.hear(crossing(50, TODAY))
    clock.advance(0.3)
    async with room.working({"email": mail, "webhook": web}):
        await room.settled()
    assert len(inbox.mails) == 1
    (request,) = hooks.requests
    said = Webhook(secret).verify(request.body, dict(request.headers))
    assert said["data"]["items"][0]["about"]["percent"] == 50
    assert await room.outcomes() == {"delivered": 2}


async def test_whoever_is_gone_or_wants_nothing_is_sent_nothing_and_the_log_says_why(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    gone, tired = await room.contact("Gone"), await room.contact("Tired")
    caller = await room.contact("Caller", phone="+821012345678")
    await room.rule(gone, tired, Recipient(caller, "", ("sms",)))
    await room.hear(crossing(50, TODAY))
    await room.append(contact_stream(gone), 2, ContactRemoved(account="acme", contact_id=gone))
    await room.append(contact_stream(tired), 2, ContactUnsubscribed(account="acme", contact_id=tired, method="email"))
    clock.advance(0.3)
    async with room.working({"email": mail}):
        await room.settled()
    assert inbox.mails == []
    assert await room.outcomes() == {"contact_removed": 1, "unsubscribed": 1, "channel_not_set_up": 1}


def asked_for(contact_id: str, about: Verifying, clock: FixedClock) -> NotificationRequested:
    return NotificationRequested(
        request_id=new_id(),
        account="acme",
        client_id="",
        service="",
        app_name="",
        contact_id=contact_id,
        method="email",
        about=about,
        due_at=clock.now(),
        deadline=clock.now() + timedelta(minutes=10),
    )


async def test_a_code_goes_at_once_to_an_address_that_is_not_verified_and_only_while_it_can_be_entered(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim = await room.contact(verified=False)
    expires_at = clock.now() + timedelta(minutes=10)
    for version, code in enumerate(("424242", "535353"), 1):
        vault_id = f"code{version}"
        async with room.pool.acquire() as connection:
            await room.vault.put(connection, vault_id, code.encode())
        sent = VerificationRequested(account="acme", contact_id=kim, method="email", vault_id=vault_id, expires_at=expires_at)
        await room.append(contact_stream(kim), version, sent)
        request = asked_for(kim, Verifying(vault_id, expires_at), clock)
        await room.append(f"notification/{request.request_id}", 0, request)
    async with room.working({"email": mail}):
        await room.settled()
    (letter,) = inbox.mails
    assert "535353" in letter.part("plain"), "the code before is void"
    assert letter.message["List-Unsubscribe"] is None
    assert await room.outcomes() == {"delivered": 1, "expired": 1}
    assert all("535353" not in repr(event) for event in await room.events())


async def test_what_cannot_be_delivered_until_its_deadline_is_not_sent_after_it(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim = await room.contact()
    await room.rule(kim)
    await room.hear(crossing(50, TODAY))
    clock.advance(24 * 3600 + 1)
    await room.hear(crossing(60, TODAY + timedelta(days=1)))
    clock.advance(0.3)
    async with room.working({"email": mail}) as worker:
        await inbox.arrived(0)
        clock.advance(60)
        worker.wake()
        await room.settled()
    (letter,) = inbox.mails
    assert "60" in letter.part("plain")
    assert await room.outcomes() == {"deadline": 1, "delivered": 1}


async def test_two_workers_share_the_messages_and_nobody_is_told_twice(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    contacts = [await room.contact(f"Kim{number}") for number in range(40)]
    await room.rule(*contacts)
    await room.hear(*(crossing(percent, TODAY) for percent in (10, 20)), exhausted(TODAY), crossing(100, TODAY))
    inbox.delays["DATA"] = 0.02
    clock.advance(2)
    async with room.working({"email": mail}, at_once=4), room.working({"email": mail}, at_once=4):
        await room.settled()
    assert len(inbox.mails) == len({one.recipients for one in inbox.mails}) == 40
    assert await room.outcomes() == {"delivered": 120}
    assert {row[0] for row in await room.rows("SELECT client_id FROM notification")} == {APP}
