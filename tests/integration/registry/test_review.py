"""The registry follows REVIEW: what is decided there is decided here once, and shown; whatever happens to either of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.registry import AppView, EditApp, GetApp
from shared.events.review import CODEC
from shared.streams.declare import delete_stream, stream_state
from tests.integration.registry.test_lifecycle import kv_value
from tests.support.metering_process import LogFeed, eventually
from tests.support.registry_process import Customer, RegistryProcess
from tests.support.review_decisions import SERVICE, decided, lifts, suspends

STANDINGS = ("ServiceActivated", "ServiceSuspended", "ServiceResumed")


async def register(customer: Customer) -> str:
    return (await customer.register(services=["csr", SERVICE], environments={"ios": ["com.example.App"]})).client_id


async def standing(customer: Customer, client_id: str) -> tuple[str, bool]:
    """Tier and suspension of the reviewed service; the other one is live."""
    other, shown = (await customer.ask(GetApp, AppView, client_id=client_id)).services
    assert (other.tier, other.suspended) == ("live", False)
    return shown.tier, shown.suspended


async def rows(schema: ServiceDsn, query: str, *args: object) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(schema.owner_dsn, server_settings={"search_path": "registry"})
    try:
        return [tuple(row) for row in await connection.fetch(query, *args)]
    finally:
        await connection.close()


async def happened(schema: ServiceDsn, client_id: str) -> list[str]:
    """What the registry decided about the application because of reviews, in order."""
    query = "SELECT type FROM event WHERE stream = $1 AND type = ANY($2::text[]) ORDER BY position"
    return [type_ for (type_,) in await rows(schema, query, f"app/{client_id}", list(STANDINGS))]


async def up_to(schema: ServiceDsn, message: int) -> None:
    """Wait until the registry has followed REVIEW up to there."""

    async def followed() -> int:
        found = await rows(schema, "SELECT sequence FROM checkpoint WHERE stream = 'REVIEW'")
        return int(found[0][0]) if found else 0

    await eventually(followed, message)


async def test_what_is_decided_is_shown(customer: Customer, registry: RegistryProcess, nc: Client, schema: ServiceDsn) -> None:
    readiness = await registry.readiness()
    assert (readiness["ready"], readiness["parts"]["review"]["detail"]) == (True, "waiting for REVIEW")
    client_id = await register(customer)
    first = await customer.ask(GetApp, AppView, client_id=client_id)
    review = LogFeed(nc, CODEC)
    await review.publish(decided(client_id, "rejected"), decided(client_id), suspends(client_id))
    await eventually(lambda: standing(customer, client_id), ("live", True))
    shown = await customer.ask(GetApp, AppView, client_id=client_id)
    assert shown.edited_at > first.edited_at
    edited = await customer.ask(EditApp, AppView, client_id=client_id, name="other")
    assert edited.services == shown.services
    value = await kv_value(nc, f"acme.{client_id}", lambda value: value and value["name"] == "other")
    assert value is not None
    assert value["services"][1] == {"service": SERVICE, "tier": "live", "suspended": True}
    await review.publish(lifts(client_id))
    await eventually(lambda: standing(customer, client_id), ("live", False))
    await kv_value(nc, f"acme.{client_id}", lambda value: value and not value["services"][1]["suspended"])
    assert await happened(schema, client_id) == list(STANDINGS)
    (meta,) = await rows(schema, "SELECT meta::text FROM event WHERE type = 'ServiceActivated'")
    told = json.loads(meta[0])
    assert (told["actor"], told["command_id"][:9]) == ("service:registry", "review-2-")


async def test_a_rebuild_makes_the_same_rows(
    customer: Customer, registry: RegistryProcess, nc: Client, schema: ServiceDsn
) -> None:
    first, second, third = [await register(customer) for _ in range(3)]
    await LogFeed(nc, CODEC).publish(
        decided(first), suspends(first), decided(second), suspends(second), lifts(second), decided(third), suspends(third)
    )
    await eventually(lambda: standing(customer, third), ("live", True))
    await customer.ask(EditApp, AppView, client_id=first, name="other")
    await customer.ask(EditApp, AppView, client_id=third, services=["csr"])
    await customer.ask(EditApp, AppView, client_id=third, services=["csr", SERVICE])
    standings = [await standing(customer, client_id) for client_id in (first, second, third)]
    assert standings == [("live", True), ("live", False), ("test", False)]
    query = "SELECT client_id, services, edited_at, position FROM app ORDER BY registered"
    before = await rows(schema, query)
    assert "REVIEW" not in registry.printed("--rebuild")
    assert await rows(schema, query) == before


async def test_what_is_heard_again_is_decided_once(
    customer: Customer, registry: RegistryProcess, nc: Client, schema: ServiceDsn
) -> None:
    client_id = await register(customer)
    review = LogFeed(nc, CODEC)
    await review.publish(decided(client_id), suspends(client_id), lifts(client_id), suspends(client_id), lifts(client_id))
    await up_to(schema, 5)
    once = ["ServiceActivated", *("ServiceSuspended", "ServiceResumed") * 2]
    assert await happened(schema, client_id) == once
    registry.kill()
    await rows(schema, "UPDATE checkpoint SET sequence = 0, hash = '' WHERE stream = 'REVIEW'")
    await registry.start()
    await review.publish(decided(client_id))
    await up_to(schema, 6)
    assert await happened(schema, client_id) == once


async def test_two_registries_that_are_killed_decide_each_once(
    customer: Customer, registry: RegistryProcess, nats_url: str, nc: Client, schema: ServiceDsn, tmp_path: Path
) -> None:
    second = RegistryProcess(nats_url, schema, tmp_path, "second")
    client_ids = [await register(customer) for _ in range(20)]
    review = LogFeed(nc, CODEC)
    try:
        await second.start()
        for kind in (decided, suspends):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(review.flood([kind(client_id) for client_id in client_ids for _ in range(3)]))
                registry.kill()
            await registry.start()
        await up_to(schema, 120)
    finally:
        second.kill()
    for client_id in client_ids:
        assert await happened(schema, client_id) == ["ServiceActivated", "ServiceSuspended"]
        assert await standing(customer, client_id) == ("live", True)


async def test_decisions_wait_while_nothing_may_be_recorded(
    customer: Customer, registry: RegistryProcess, nc: Client, schema: ServiceDsn
) -> None:
    """As after the database was restored from an older backup: the log's stream is ahead of the log."""
    client_id = await register(customer)

    async def published() -> int:
        state = await stream_state(nc, "REGISTRY")
        return 0 if state is None else state.last

    await eventually(published, 3)
    await nc.jetstream().publish("registry.events.AppDeleted", b"{}")

    async def trouble(part: str) -> str:
        return str((await registry.readiness())["parts"][part]["detail"])

    async def refuses() -> bool:
        return "ends at 4" in await trouble("relay")

    await eventually(refuses, True)
    await LogFeed(nc, CODEC).publish(decided(client_id))

    async def waits() -> bool:
        return "Nothing was done. The stream REGISTRY ends at 4" in await trouble("review")

    await eventually(waits, True)
    assert await standing(customer, client_id) == ("test", False)
    await delete_stream(nc, "REGISTRY")
    await eventually(lambda: standing(customer, client_id), ("live", False))
    assert await happened(schema, client_id) == ["ServiceActivated"]


async def test_another_history_is_followed_from_its_beginning_after_a_rebuild(
    customer: Customer, registry: RegistryProcess, nc: Client, schema: ServiceDsn
) -> None:
    first, second = [await register(customer) for _ in range(2)]
    before = [decided(first), suspends(first), lifts(first)]
    await LogFeed(nc, CODEC).publish(*before, suspends(first), lifts(first))
    await up_to(schema, 5)
    decisions = ["ServiceActivated", *("ServiceSuspended", "ServiceResumed") * 2]
    await delete_stream(nc, "REVIEW")
    await LogFeed(nc, CODEC).publish(*before)
    other = LogFeed(nc, CODEC, history=1, after=3)
    await other.publish(decided(second))

    async def refuses() -> bool:
        return "restored from an older copy" in (await registry.readiness())["parts"]["review"]["detail"]

    await eventually(refuses, True)
    assert await standing(customer, second) == ("test", False)
    assert "REVIEW, with another history now, is followed from its beginning" in registry.printed("--rebuild")
    await eventually(lambda: standing(customer, second), ("live", False))
    assert await happened(schema, first) == decisions, "what is there still was not decided again"

    async def is_ready() -> bool:
        return bool((await registry.readiness())["ready"])

    await eventually(is_ready, True)
    await other.publish(suspends(first))
    await eventually(lambda: standing(customer, first), ("live", True))


async def test_what_cannot_be_read_stops_following_and_nothing_else(
    customer: Customer, registry: RegistryProcess, nc: Client
) -> None:
    client_id = await register(customer)
    review = LogFeed(nc, CODEC)
    await review.publish(decided(client_id))
    await review.send("SomethingNew", b"{}")
    await review.publish(suspends(client_id))

    async def stopped() -> bool:
        return "REVIEW message 2 (review.events.SomethingNew)" in (await registry.readiness())["parts"]["review"]["detail"]

    await eventually(stopped, True)
    assert await standing(customer, client_id) == ("live", False)
    assert await register(customer) != client_id
