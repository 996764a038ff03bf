"""Dashboards over NATS with an API token: they see their account's keys, then every change, and can do nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy

from deploy.servers.roles import ServiceDsn
from shared.ids import new_id
from tests.support.consoles import issue_token, make_console, revoke_token, running
from tests.support.dashboards import GuardedNats
from tests.support.servers import PostgresDatabase

BUCKETS = ("apps", "usage", "limits", "notifications", "reviews")


@dataclass
class Guarded:
    """A console that guards a NATS server, whose operator is `operator`."""

    server: GuardedNats
    dsn: ServiceDsn
    operator: Client
    own_account: bool


@dataclass
class Dashboard:
    """One connection with an API token."""

    nc: Client
    refusals: list[str] = field(default_factory=list)
    seen: list[tuple[str, bytes]] = field(default_factory=list)

    async def watch(self, bucket: str, account: str) -> None:
        """The keys of `account`: now, then each change. As README.md tells it for nats-py."""

        async def see(message: nats.aio.msg.Msg) -> None:
            self.seen.append((message.subject, message.data))

        await self.nc.jetstream(timeout=2).subscribe(
            f"$KV.{bucket}.{account}.>",
            stream=f"KV_{bucket}",
            cb=see,
            config=ConsumerConfig(name=new_id()),
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            ordered_consumer=True,
        )


@asynccontextmanager
async def dashboard(guarded: Guarded, token: str, account: str = "demo") -> AsyncIterator[Dashboard]:
    found = Dashboard(Client())

    async def refused(error: Exception) -> None:
        found.refusals.append(str(error).lower())

    try:
        await found.nc.connect(
            guarded.server.url, token=token, inbox_prefix=f"_INBOX_{account}", error_cb=refused, allow_reconnect=False
        )
        yield found
    finally:
        await found.nc.close()
        if found.nc._transport is not None:  # nats-py leaves it open when the server has refused the connection
            found.nc._transport.close()
            await asyncio.sleep(0)


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(0.05)


@pytest.fixture(params=["as the stack is", "in an account of their own"])
async def guarded(request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresDatabase) -> AsyncIterator[Guarded]:
    own_account = request.param == "in an account of their own"
    server = GuardedNats(tmp_path, own_account=own_account)
    server.start()
    async with AsyncExitStack() as stack:
        stack.callback(server.stop)
        operator = await server.connect("operator")
        stack.push_async_callback(operator.close)
        for bucket in BUCKETS:
            await operator.jetstream().create_key_value(bucket=bucket, history=1, direct=True)
        dsn = await postgres.service_schema("console")
        account = {"nats_dashboards_account": "DASHBOARDS", "nats_dashboards_api": "dashboards.api"} if own_account else {}
        console = make_console(
            server.url, dsn, nats_seed=server.seeds["console"], nats_callout_seed=server.callout_seed, **account
        )
        await stack.enter_async_context(running(console))
        found = Guarded(server, dsn, operator, own_account)
        if own_account:
            await eventually(lambda: mirrored(found))
        yield found


async def mirrored(guarded: Guarded) -> bool:
    found = [await stream_info(guarded, f"dashboards.api.STREAM.INFO.KV_{bucket}") for bucket in BUCKETS]
    return not any("error" in info for info in found)


async def stream_info(guarded: Guarded, subject: str) -> dict[str, object]:
    return dict(json.loads((await guarded.operator.request(subject, b"", timeout=5)).data))


async def put(guarded: Guarded, bucket: str, key: str, value: bytes) -> None:
    await guarded.operator.jetstream().publish(f"$KV.{bucket}.{key}", value)


async def test_a_token_sees_its_accounts_state_then_each_change(guarded: Guarded) -> None:
    await put(guarded, "usage", "demo.abc.csr", b"1")
    await put(guarded, "usage", "demo2.xyz.csr", b"theirs")
    async with dashboard(guarded, await issue_token(guarded.dsn)) as mine:
        await eventually(lambda: watched(guarded, mine))
        await eventually(lambda: mine.seen == [("$KV.usage.demo.abc.csr", b"1")])
        await put(guarded, "usage", "demo.abc.csr", b"2")
        await put(guarded, "usage", "demo2.xyz.csr", b"theirs again")
        await put(guarded, "apps", "demo.abc", b"{}")
        await mine.watch("apps", "demo")
        await eventually(
            lambda: (
                mine.seen[1:] == [("$KV.usage.demo.abc.csr", b"2"), ("$KV.apps.demo.abc", b"{}")]
                or mine.seen[1:] == [("$KV.apps.demo.abc", b"{}"), ("$KV.usage.demo.abc.csr", b"2")]
            )
        )
        got = await mine.nc.request("$JS.API.DIRECT.GET.KV_usage.$KV.usage.demo.abc.csr", b"", timeout=2)
        assert got.data == b"2"
        assert mine.refusals == []


async def watched(guarded: Guarded, mine: Dashboard) -> bool:
    """Watch once the mirror, if there is one, has what was put."""
    prefix = "dashboards.api" if guarded.own_account else "$JS.API"
    info = await stream_info(guarded, f"{prefix}.STREAM.INFO.KV_usage")
    if info["state"]["messages"] != 2:  # type: ignore[index]
        return False
    await mine.watch("usage", "demo")
    return True


FORBIDDEN = [
    "$JS.API.CONSUMER.CREATE.KV_usage",
    "$JS.API.CONSUMER.CREATE.KV_usage.x.$KV.usage.demo2.>",
    "$JS.API.CONSUMER.CREATE.KV_usage.x.$KV.usage.>",
    "$JS.API.CONSUMER.CREATE.KV_usage.x",
    "$JS.API.CONSUMER.DURABLE.CREATE.KV_usage.x",
    "$JS.API.CONSUMER.CREATE.REGISTRY.x.registry.events.>",
    "$JS.API.CONSUMER.MSG.NEXT.KV_usage.x",
    "$JS.API.CONSUMER.LIST.KV_usage",
    "$JS.API.CONSUMER.NAMES.KV_usage",
    "$JS.API.DIRECT.GET.KV_usage",
    "$JS.API.DIRECT.GET.KV_usage.$KV.usage.demo2.xyz.csr",
    "$JS.API.STREAM.MSG.GET.KV_usage",
    "$JS.API.STREAM.INFO.KV_usage",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.DELETE.KV_usage",
    "$JS.API.STREAM.PURGE.KV_usage",
    "$KV.usage.demo.abc.csr",
    "usage.records.1",
    "usage.cloudevents",
    "registry.commands.DeleteApp",
    "registry.events.AppDeleted",
    "dashboards.api.STREAM.DELETE.KV_usage",
    "tollbook.api.CONSUMER.CREATE.KV_usage",
    "$SYS.REQ.USER.AUTH",
]


async def test_a_token_can_do_nothing_else(guarded: Guarded) -> None:
    async with dashboard(guarded, await issue_token(guarded.dsn)) as mine:
        for subject in FORBIDDEN:
            await mine.nc.publish(subject, b"{}", reply="_INBOX_demo.x")
        for subject in (">", "_INBOX_demo2.>", "_INBOX.>", "_INBOX_console.>", "$KV.usage.demo.>", "$SYS.>"):
            await mine.nc.subscribe(subject)
        await mine.nc.flush()
        await eventually(lambda: len(mine.refusals) == len(FORBIDDEN) + 6)
        publishes = [refusal for refusal in mine.refusals if "permissions violation for publish" in refusal]
        assert len(publishes) == len(FORBIDDEN)


@pytest.mark.parametrize("body", [{"filter_subject": "$KV.usage.demo2.>"}, {"filter_subjects": ["$KV.usage.>"]}, {}])
async def test_a_filter_that_its_subject_does_not_name_is_refused(guarded: Guarded, body: dict[str, object]) -> None:
    async with dashboard(guarded, await issue_token(guarded.dsn)) as mine:
        config = {"name": "x", "deliver_subject": "_INBOX_demo.x", **body}
        request = json.dumps({"stream_name": "KV_usage", "config": config}).encode()
        answer = await mine.nc.request("$JS.API.CONSUMER.CREATE.KV_usage.x.$KV.usage.demo.>", request, timeout=5)
        assert json.loads(answer.data)["error"]["code"] == 400


async def test_in_an_account_of_their_own_no_answer_reaches_the_services_streams(guarded: Guarded) -> None:
    """nats-server does not check reply and deliver subjects: what the stack as it is does not hold, README.md says."""
    await guarded.operator.jetstream().add_stream(name="REGISTRY", subjects=["registry.events.>"])
    await put(guarded, "usage", "demo.abc.csr", b"1")
    async with dashboard(guarded, await issue_token(guarded.dsn)) as mine:
        await mine.nc.publish("$JS.API.INFO", b"", reply="registry.events.AppDeleted")
        config = {"name": "x", "filter_subject": "$KV.usage.demo.>", "deliver_subject": "registry.events.AppDeleted"}
        request = json.dumps({"stream_name": "KV_usage", "config": config}).encode()
        await mine.nc.request("$JS.API.CONSUMER.CREATE.KV_usage.x.$KV.usage.demo.>", request, timeout=5)
        await asyncio.sleep(1)
    stored = await guarded.operator.jetstream().stream_info("REGISTRY")
    assert (stored.state.messages == 0) is guarded.own_account


@pytest.mark.parametrize("roles", [("reviewer",), ("operator",)])
async def test_only_owners_and_members_have_dashboards(guarded: Guarded, roles: tuple[str, ...]) -> None:
    token = await issue_token(guarded.dsn, roles=roles)  # type: ignore[arg-type]
    with pytest.raises(nats.errors.Error):
        async with dashboard(guarded, token):
            pass


async def test_tokens_that_are_not_valid_are_refused(guarded: Guarded) -> None:
    revoked = await issue_token(guarded.dsn)
    await revoke_token(guarded.dsn, revoked)
    for token in (revoked, "tbk_nonsense", ""):
        with pytest.raises(nats.errors.Error):
            async with dashboard(guarded, token):
                pass


async def test_a_token_may_come_as_a_password(guarded: Guarded) -> None:
    token = await issue_token(guarded.dsn, roles=("member",))
    nc = await nats.connect(guarded.server.url, user="demo", password=token, inbox_prefix="_INBOX_demo")
    assert (await nc.request("$JS.API.INFO", b"", timeout=5)).data
    await nc.close()


async def test_a_connection_ends_with_its_token(guarded: Guarded) -> None:
    token = await issue_token(guarded.dsn, expires_at=datetime.now(UTC) + timedelta(seconds=2))
    async with dashboard(guarded, token) as mine:
        await eventually(lambda: mine.nc.is_closed)


async def test_a_bucket_that_was_made_anew_is_mirrored_anew(guarded: Guarded) -> None:
    if not guarded.own_account:
        return  # there is no mirror
    for value in (b"1", b"2", b"3"):
        await put(guarded, "usage", "demo.abc.csr", value)
    await guarded.operator.jetstream().delete_stream("KV_usage")
    await guarded.operator.jetstream().create_key_value(bucket="usage", history=1, direct=True)
    await put(guarded, "usage", "demo.abc.csr", b"new")
    async with dashboard(guarded, await issue_token(guarded.dsn)) as mine:

        async def shows_it() -> bool:
            got = await mine.nc.request("$JS.API.DIRECT.GET.KV_usage.$KV.usage.demo.abc.csr", b"", timeout=2)
            return got.data == b"new"

        await asyncio.wait_for(eventually_asked(shows_it), 40)


async def eventually_asked(condition: Callable[[], Awaitable[bool]]) -> None:
    while True:
        try:
            if await condition():
                return
        except nats.errors.Error:
            pass  # the mirror is away for a moment
        await asyncio.sleep(0.2)
