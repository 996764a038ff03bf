"""The stack's NATS configuration on a real server: each user can do its work and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from deploy.permissions import PERMISSIONS
from deploy.secrets import new_account_seed, new_user_seed, public_key
from deploy.servers import nats as nats_server
from deploy.servers.nats_config import NatsUser, stack_config
from deploy.servers.program import free_port
from deploy.stack import BUCKETS
from tests.support.servers import ServerProcess, round_trip


@dataclass
class Guarded:
    """A server with the stack's permissions."""

    url: str
    websocket_url: str
    seeds: dict[str, str]
    violations: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def user(self, name: str) -> AsyncIterator[Client]:
        async def note(error: Exception) -> None:
            self.violations.append(str(error))

        nc = await nats.connect(self.url, nkeys_seed_str=self.seeds[name], inbox_prefix=f"_INBOX_{name}", error_cb=note)
        try:
            yield nc
        finally:
            await nc.close()

    async def may_publish(self, name: str, subject: str) -> bool:
        """Whether the server lets the user publish there."""
        self.violations.clear()
        async with self.user(name) as nc:
            await nc.publish(subject, b"")
            await round_trip(nc)
        return not any("permissions violation for publish" in text for text in self.violations)

    async def may_subscribe(self, name: str, subject: str) -> bool:
        self.violations.clear()
        async with self.user(name) as nc:
            await nc.subscribe(subject, cb=ignore)
            await round_trip(nc)
        return not any("permissions violation for subscription" in text for text in self.violations)


async def ignore(message: Msg) -> None:
    pass


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("nats")
    port, websocket_port = free_port(), free_port()
    seeds = {name: new_user_seed() for name in PERMISSIONS}
    users = {name: NatsUser(public_key(seed), PERMISSIONS[name]) for name, seed in seeds.items()}
    config = folder / "nats.conf"
    config.write_text(
        stack_config(port, websocket_port, folder / "js", users, public_key(new_account_seed()), BUCKETS),
        "utf-8",
    )
    server = ServerProcess(nats_server.program(config), lambda: nats_server.answers(port), Path(folder / "log"))
    server.start()
    yield Guarded(f"nats://127.0.0.1:{port}", f"ws://127.0.0.1:{websocket_port}", seeds)
    server.stop()


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("gate", "registry.events.AppRegistered"),
        ("gate", "registry.commands.RegisterApp"),
        ("gate", "usage.cloudevents"),
        ("gate", "$KV.apps.demo.x"),
        ("gate", "$JS.API.STREAM.CREATE.USAGE"),
        ("gate", "$JS.API.STREAM.PURGE.REGISTRY"),
        ("gate", "$JS.API.STREAM.DELETE.REGISTRY"),
        ("gate", "metering.events.LimitChanged"),
        ("gate", "metering.commands.SetLimits"),
        ("gate", "metering.recall"),
        ("gate", "$JS.API.STREAM.DELETE.METERING"),
        ("registry", "metering.events.LimitChanged"),
        ("registry", "review.events.ReviewDecided"),
        ("registry", "review.commands.DecideReview"),
        ("registry", "$JS.API.STREAM.PURGE.REVIEW"),
        ("review", "registry.events.ServiceActivated"),
        ("review", "registry.commands.EditApp"),
        ("review", "metering.queries.GetUsage"),
        ("review", "metering.commands.SetLimits"),
        ("review", "usage.records.1"),
        ("review", "$KV.apps.demo.x"),
        ("review", "$JS.API.STREAM.DELETE.REGISTRY"),
        ("review", "$JS.API.CONSUMER.CREATE.USAGE.name.filter"),
        ("alerts", "review.events.ReviewDecided"),
        ("alerts", "$JS.API.STREAM.PURGE.REVIEW"),
        ("console", "review.events.ReviewDecided"),
        ("console", "$KV.reviews.demo.x"),
        ("metering", "alerts.events.NotificationRuleChanged"),
        ("metering", "alerts.commands.SetRule"),
        ("metering", "$JS.API.STREAM.DELETE.ALERTS"),
        ("metering", "$KV.notifications.demo.x"),
        ("alerts", "metering.events.ThresholdCrossed"),
        ("alerts", "registry.commands.DeleteApp"),
        ("alerts", "metering.queries.GetUsage"),
        ("alerts", "usage.records.1"),
        ("alerts", "$JS.API.STREAM.PURGE.METERING"),
        ("alerts", "$JS.API.CONSUMER.CREATE.USAGE.name.filter"),
        ("alerts", "$KV.limits.demo.x"),
        ("gate", "$JS.API.CONSUMER.CREATE.ALERTS.name.filter"),
        ("console", "alerts.events.ContactRemoved"),
        ("console", "$KV.notifications.demo.x"),
        ("registry", "$KV.limits.demo.x"),
        ("console", "metering.events.LimitChanged"),
        ("metering", "registry.events.AppRegistered"),
        ("metering", "$KV.apps.demo.x"),
        ("metering", "$JS.API.STREAM.DELETE.REGISTRY"),
        ("metering", "registry.commands.RegisterApp"),
        ("metering", "usage.records.1.more"),
        ("console", "deadletter.usage"),
        ("console", "$JS.API.STREAM.MSG.GET.DEADLETTER"),
        ("publisher", "deadletter.usage"),
        ("registry", "usage.records.1"),
        ("registry", "$KV.usage.demo.x"),
        ("registry", "$JS.API.STREAM.DELETE.USAGE"),
        ("console", "registry.events.AppRegistered"),
        ("console", "usage.records.1"),
        ("console", "$KV.apps.demo.x"),
        ("publisher", "registry.commands.RegisterApp"),
        ("publisher", "registry.events.AppRegistered"),
        ("publisher", "$JS.API.STREAM.INFO.USAGE"),
        ("follower", "registry.events.AppRegistered"),
        ("follower", "registry.commands.RegisterApp"),
        ("follower", "registry.queries.GetAuthentication"),
        ("follower", "usage.records.1"),
        ("follower", "usage.cloudevents"),
        ("follower", "deadletter.usage"),
        ("follower", "$KV.apps.demo.x"),
        ("follower", "$JS.API.STREAM.CREATE.REGISTRY"),
        ("follower", "$JS.API.STREAM.UPDATE.REGISTRY"),
        ("follower", "$JS.API.STREAM.PURGE.USAGE"),
        ("follower", "$JS.API.STREAM.DELETE.USAGE"),
        ("follower", "$JS.API.STREAM.MSG.DELETE.USAGE"),
        ("follower", "$JS.API.STREAM.MSG.GET.KV_apps"),
        ("follower", "$JS.API.CONSUMER.CREATE.DEADLETTER"),
    ],
)
async def test_what_a_user_has_no_business_with_is_refused(guarded: Guarded, user: str, subject: str) -> None:
    assert not await guarded.may_publish(user, subject)


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("registry", "registry.events.AppRegistered"),
        ("registry", "$KV.apps.demo.x"),
        ("gate", "usage.records.15"),
        ("gate", "$JS.API.CONSUMER.CREATE.REGISTRY.name.filter"),
        ("gate", "$JS.API.CONSUMER.CREATE.METERING.name.filter"),
        ("gate", "metering.commands.LeaseQuota"),
        ("metering", "deadletter.usage"),
        ("metering", "usage.records.3"),
        ("metering", "usage.cloudevents"),
        ("metering", "$JS.API.CONSUMER.CREATE.DEADLETTER.name.deadletter.usage"),
        ("metering", "$JS.API.STREAM.MSG.GET.DEADLETTER"),
        ("console", "metering.commands.RetryDeadLetter"),
        ("metering", "$JS.API.CONSUMER.CREATE.ALERTS.name.alerts.events.NotificationRuleChanged"),
        ("alerts", "alerts.events.NotificationRequested"),
        ("alerts", "$KV.notifications.demo.x"),
        ("alerts", "$JS.API.STREAM.CREATE.ALERTS"),
        ("alerts", "$JS.API.STREAM.CREATE.KV_notifications"),
        ("alerts", "$JS.API.CONSUMER.CREATE.METERING.name.filter"),
        ("alerts", "$JS.API.CONSUMER.CREATE.REGISTRY.name.filter"),
        ("alerts", "$JS.API.CONSUMER.CREATE.REVIEW.name.filter"),
        ("registry", "$JS.API.CONSUMER.CREATE.REVIEW.name.filter"),
        ("review", "review.events.ReviewDecided"),
        ("review", "$KV.reviews.demo.x"),
        ("review", "$JS.API.STREAM.CREATE.REVIEW"),
        ("review", "$JS.API.STREAM.CREATE.KV_reviews"),
        ("review", "$JS.API.CONSUMER.CREATE.REGISTRY.name.filter"),
        ("review", "metering.queries.GetFirstCall"),
        ("console", "review.commands.DecideReview"),
        ("console", "$JS.API.CONSUMER.CREATE.KV_reviews.name.filter"),
        ("follower", "$JS.API.CONSUMER.CREATE.REVIEW"),
        ("console", "alerts.commands.AddContact"),
        ("console", "$JS.API.CONSUMER.CREATE.KV_notifications.name.filter"),
        ("metering", "metering.events.LimitChanged"),
        ("metering", "metering.recall"),
        ("metering", "$KV.limits.demo.account.csr"),
        ("console", "metering.commands.SetLimits"),
        ("console", "registry.commands.RegisterApp"),
        ("console", "metering.queries.GetUsage"),
        ("publisher", "usage.cloudevents"),
        ("publisher", "usage.records.3"),
        ("follower", "$JS.API.STREAM.INFO.REGISTRY"),
        ("follower", "$JS.API.CONSUMER.CREATE.ALERTS"),
        ("follower", "$JS.API.CONSUMER.MSG.NEXT.METERING.mine"),
        ("operator", "registry.events.AppRegistered"),
    ],
)
async def test_what_a_user_works_with_is_allowed(guarded: Guarded, user: str, subject: str) -> None:
    assert await guarded.may_publish(user, subject)


@pytest.mark.parametrize("user", [name for name in PERMISSIONS if name != "operator"])
async def test_nobody_hears_the_replies_of_another(guarded: Guarded, user: str) -> None:
    assert await guarded.may_subscribe(user, f"_INBOX_{user}.x")
    for other in PERMISSIONS:
        if other != user:
            assert not await guarded.may_subscribe(user, f"_INBOX_{other}.x")
    assert not await guarded.may_subscribe(user, ">")
    assert not await guarded.may_subscribe(user, "_INBOX.>")


async def test_only_the_console_is_asked_who_a_stranger_is(guarded: Guarded) -> None:
    for user in PERMISSIONS:
        assert await guarded.may_subscribe(user, "$SYS.REQ.USER.AUTH") == (user in ("console", "operator"))


async def test_a_command_gets_its_reply_through_the_permissions(guarded: Guarded) -> None:
    async def answer(message: Msg) -> None:
        await message.respond(b"done")

    async with guarded.user("registry") as registry, guarded.user("console") as console:
        await registry.subscribe("registry.commands.RegisterApp", queue="registry", cb=answer)
        await round_trip(registry)
        assert (await console.request("registry.commands.RegisterApp", b"{}", timeout=5)).data == b"done"


async def test_each_owner_declares_its_streams_and_the_gate_reads_the_registrys(guarded: Guarded) -> None:
    async with guarded.user("registry") as registry, guarded.user("gate") as gate, guarded.user("metering") as metering:
        await registry.jetstream().add_stream(name="REGISTRY", subjects=["registry.events.>"])
        await registry.jetstream().publish("registry.events.AppRegistered", b"1")
        await metering.jetstream().add_stream(name="USAGE", subjects=["usage.>"])
        await gate.jetstream().publish("usage.records.1", b"2")
        heard = await gate.jetstream().subscribe("registry.events.>", stream="REGISTRY", ordered_consumer=True)
        assert (await heard.next_msg(timeout=5)).data == b"1"
        await heard.unsubscribe()


@pytest.mark.parametrize(("stream", "subject"), [("REGISTRY", "registry.events.X"), ("USAGE", "usage.cloudevents")])
async def test_a_follower_reads_each_stream_from_its_first_message(guarded: Guarded, stream: str, subject: str) -> None:
    async with guarded.user("operator") as operator, guarded.user("follower") as follower:
        if stream in await names(operator):
            await operator.jetstream().delete_stream(stream)
        await operator.jetstream().add_stream(name=stream, subjects=[subject.replace("X", ">")])
        for data in (b"1", b"2"):
            await operator.jetstream().publish(subject, data)
        ordered = await follower.jetstream().subscribe(">", stream=stream, ordered_consumer=True)
        assert [(await ordered.next_msg(timeout=5)).data for _ in range(2)] == [b"1", b"2"]
        await ordered.unsubscribe()
        pulling = await follower.jetstream().pull_subscribe(">", stream=stream, durable="mine")
        for message in await pulling.fetch(2, timeout=5):
            await message.ack_sync()
        assert (await pulling.consumer_info()).ack_floor.stream_seq == 2
        await operator.jetstream().delete_stream(stream)


async def names(nc: Client) -> list[str]:
    return [info.config.name or "" for info in await nc.jetstream().streams_info()]


@pytest.mark.parametrize("options", ["{}", '{"auth_token": "guessed"}', '{"user": "registry", "pass": "guessed"}'])
async def test_a_stranger_is_refused(guarded: Guarded, options: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(guarded.url.rpartition(":")[2]))
    try:
        assert (await reader.readline()).startswith(b"INFO ")
        writer.write(f"CONNECT {options}\r\nPING\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 20)  # to the end: the server hangs up
        assert b"-ERR 'Authorization Violation'" in answer or b"-ERR 'Authentication Timeout'" in answer
        assert b"PONG" not in answer
    finally:
        writer.close()
        await writer.wait_closed()
