"""Receivers that misbehave, and workers that die or stand still at any step: everybody gets the one fate, nobody is forgotten."""

from __future__ import annotations

import asyncio
import functools
import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from services.alerts import worker as working
from services.alerts.channels.email import EmailChannel
from services.alerts.channels.webhook import WebhookChannel
from services.alerts.messages import Outgoing, Receipt
from services.alerts.worker import Worker
from shared.clock import FixedClock
from shared.errors import Unavailable
from shared.eventlog.log import Head
from shared.events.alerts import NotificationDelivered, NotificationFailed, Recipient
from shared.ids import new_webhook_secret
from tests.support.alerting import Alerts, crossing
from tests.support.crashes import Tripwire, TripwirePool, killed, until
from tests.support.receivers import DROP, HttpReceiver, Reply, SmtpReceiver

TODAY = datetime(2026, 11, 23, 15, tzinfo=UTC)


async def look(worker: Worker) -> None:
    await worker.look()
    await worker.drain()


async def only_fate(room: Alerts) -> NotificationDelivered | NotificationFailed:
    ((fate,),) = (await room.fates()).values()
    return fate


async def waiting(room: Alerts) -> tuple[int, datetime, str]:
    ((attempts, next_at, answer),) = await room.rows("SELECT attempts, next_at, answer FROM message")
    return attempts, next_at, answer


async def test_a_mailbox_that_is_full_is_tried_again_with_back_off_and_the_same_id(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim = await room.contact()
    await room.rule(kim)
    await room.hear(crossing(50, TODAY))
    clock.advance(0.3)
    inbox.answers["RCPT"].extend(["452 4.2.2 kim@example.com is over quota"] * 2)
    inbox.answers["DATA"].append(DROP)
    worker = room.worker({"email": mail})
    for tries, least_s, most_s in ((1, 1, 2), (2, 2, 4), (3, 4, 8)):
        await look(worker)
        attempts, next_at, answer = await waiting(room)
        wait_s = (next_at - clock.now()).total_seconds()
        assert attempts == tries
        assert least_s <= wait_s <= most_s
        assert "kim" not in answer
        assert "over quota" in answer or tries == 3
        await look(worker)
        assert (await waiting(room))[0] == tries, "not before its time"
        clock.advance(most_s)
    await look(worker)
    assert len(inbox.mails) == 2, "the one whose answer was lost came again"
    assert len({str(one.message["Message-ID"]) for one in inbox.mails}) == 1
    fate = await only_fate(room)
    assert isinstance(fate, NotificationDelivered)
    assert fate.attempts == 4


async def test_an_address_that_does_not_exist_is_given_up_at_once_and_the_answer_names_nobody(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim = await room.contact()
    await room.rule(kim)
    await room.hear(crossing(50, TODAY))
    clock.advance(0.3)
    inbox.answers["RCPT"].append("550 5.1.1 <kim@example.com>: no such user")
    await look(room.worker({"email": mail}))
    fate = await only_fate(room)
    assert isinstance(fate, NotificationFailed)
    assert (fate.reason, fate.attempts) == ("refused", 1)
    assert "550" in fate.answer
    assert "kim" not in repr(await room.events())
    assert await room.rows("SELECT FROM message") == []


async def test_a_webhook_that_asks_for_time_gets_it_but_not_past_the_deadline(
    room: Alerts, clock: FixedClock, hooks: HttpReceiver, web: WebhookChannel
) -> None:
    secret = new_webhook_secret()
    kim = await room.contact(webhook_url=f"{hooks.url}/alerts", webhook_secret=secret)
    await room.rule(Recipient(kim, "", ("webhook",)))
    await room.hear(crossing(50, TODAY))
    clock.advance(0.3)
    hooks.replies.append(Reply(429, {"Retry-After": "120"}))
    worker = room.worker({"webhook": web})
    await look(worker)
    assert ((await waiting(room))[1] - clock.now()).total_seconds() == 120
    hooks.default = Reply(503)
    for _ in range(200):
        clock.advance(900)
        room.breaker.worked(f"webhook:{hooks.url.removeprefix('http://')}")
        await look(worker)
        if not await room.rows("SELECT FROM message"):
            break
    fate = await only_fate(room)
    assert isinstance(fate, NotificationFailed)
    assert fate.reason == "deadline"
    assert "503" in fate.answer
    assert fate.attempts > 20
    assert len({request.headers["webhook-id"] for request in hooks.requests}) == 1


async def test_a_server_that_is_down_is_left_alone_and_messages_wait_without_using_up_tries(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    contacts = [await room.contact(f"Kim{number}") for number in range(12)]
    await room.rule(*contacts)
    await room.hear(crossing(50, TODAY))
    clock.advance(0.3)
    inbox.answers["EHLO"].extend([DROP] * 200)
    worker = room.worker({"email": mail}, at_once=1)
    for _ in range(12):
        await look(worker)
    connections = inbox.connections
    assert connections < 12, "the breaker has opened"
    assert worker._sender.resting() == 1
    tried = await room.rows("SELECT attempts FROM message ORDER BY attempts")
    assert [row[0] for row in tried] == [0] * 7 + [1] * 5
    inbox.answers["EHLO"].clear()
    for _ in range(40):
        clock.advance(2)
        await look(worker)
    assert await room.outcomes() == {"delivered": 12}
    assert worker._sender.resting() == 0


async def died_or_done(room: Alerts, wire: Tripwire) -> bool:
    return wire.tripped.is_set() or not await room.rows("SELECT FROM notification WHERE state = 'waiting'")


async def test_a_worker_that_dies_at_any_step_forgets_nothing_and_tells_twice_only_what_was_sent_and_not_recorded(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "DRAIN_S", 0.0)
    died = 0
    twice: set[tuple[int, bool]] = set()
    for step, after in ((step, after) for step in itertools.count(1) for after in (False, True)):
        app = f"{step:019d}{int(after)}"
        await room.rule(await room.contact(f"Kim{app}"), client_id=app)
        await room.hear(crossing(50, TODAY, client_id=app))
        clock.advance(0.3)
        before = len(inbox.mails)
        wire = Tripwire(step, after=after, hang=True)
        pool: Any = TripwirePool(room.pool, wire)
        dying = room.worker({"email": mail}, pool=pool)
        task = asyncio.create_task(dying.run())
        await until(functools.partial(died_or_done, room, wire), "its end")
        await killed(task)
        if (recording := dying._recorder._worker) is not None:
            await killed(recording)
        await room.expire_claims()
        async with room.working({"email": mail}):
            await room.settled()
        arrived = inbox.mails[before:]
        assert len({str(one.message["Message-ID"]) for one in arrived}) == 1
        if len(arrived) > 1:
            twice.add((step, after))
        if not wire.tripped.is_set():
            break
        died += 1
    assert died > 20
    assert twice, "there is the one window"
    assert len(twice) < died / 2, "between handing over and recording, and nowhere else"
    assert await room.outcomes() == {"delivered": died + 1}


class Sleeper:
    """A channel before which its process stands still until it is woken."""

    def __init__(self, channel: EmailChannel) -> None:
        self.channel = channel
        self.asleep, self.woken = asyncio.Event(), asyncio.Event()

    async def send(self, outgoing: Outgoing) -> Receipt:
        receipt = await self.channel.send(outgoing)
        self.asleep.set()
        await self.woken.wait()
        return receipt

    async def close(self) -> None:
        await self.channel.close()


async def test_on_a_log_that_is_behind_its_stream_nothing_is_sent(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    """After an older backup: what looks unsent there may have been sent, and could not be recorded."""
    await room.rule(await room.contact())
    await room.hear(crossing(50, TODAY))
    clock.advance(0.3)
    worker = room.worker({"email": mail})

    def behind(_: Head) -> None:
        raise Unavailable("the database was restored from an older copy than NATS")

    room.log.guard = behind
    with pytest.raises(Unavailable):
        await look(worker)
    assert (inbox.mails, list((await room.fates()).values())) == ([], [[]])
    room.log.guard = lambda _: None
    await look(worker)
    assert len(inbox.mails) == 1
    assert isinstance(await only_fate(room), NotificationDelivered)


async def test_a_claim_that_may_end_before_the_try_does_is_not_used(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim = await room.contact()
    await room.rule(kim)
    await room.hear(crossing(50, TODAY))
    clock.advance(0.3)
    stopped = room.worker({"email": mail})
    attempt = stopped._sender.attempt

    async def late(loaded: Any) -> Any:
        clock.advance(7)
        return await attempt(loaded)

    stopped._sender.attempt = late  # type: ignore[method-assign]
    await look(stopped)
    assert inbox.mails == []
    assert (await waiting(room))[0] == 0
    await look(room.worker({"email": mail}))
    assert len(inbox.mails) == 1
    assert await room.outcomes() == {"delivered": 1}


async def test_what_was_taken_is_recorded_once_though_its_claim_was_lost_meanwhile(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim = await room.contact()
    await room.rule(kim)
    await room.hear(crossing(50, TODAY))
    clock.advance(0.3)
    sleeper = Sleeper(mail)
    stopped, other = room.worker({"email": sleeper}, limit_s=60), room.worker({"email": mail})
    await stopped.look()
    await sleeper.asleep.wait()
    await room.expire_claims()
    await look(other)
    sleeper.woken.set()
    await stopped.drain()
    assert len(inbox.mails) == 2, "the one window"
    assert len({str(one.message["Message-ID"]) for one in inbox.mails}) == 1
    assert await room.outcomes() == {"delivered": 1}
