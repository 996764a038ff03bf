"""Dashboards on the running stack: an API token, over TCP and over WebSocket, sees its account's keys and nobody else's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy

from shared.ids import new_id
from tests.support.stack import Customer, StackProcess

WITHIN_S = 1.0


@pytest.fixture(params=["nats_url", "nats_websocket_url"])
async def dashboard(request: pytest.FixtureRequest, stack: StackProcess) -> AsyncIterator[Client]:
    """Connected with the owner's token, over TCP or WebSocket."""
    errors: list[Exception] = []

    async def quiet(error: Exception) -> None:
        errors.append(error)

    ready = stack.ready
    client = await nats.connect(
        ready[request.param],
        token=ready["owner_token"],
        inbox_prefix=f"_INBOX_{ready['account']}",
        error_cb=quiet,
        allow_reconnect=False,
    )
    yield client
    await client.close()


class Watch:
    """The newest value of each key of a bucket."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any] | None] = {}

    async def see(self, message: Any) -> None:
        key = message.subject.split(".", 2)[2]
        deleted = (message.headers or {}).get("KV-Operation") in ("DEL", "PURGE")
        self.values[key] = None if deleted else json.loads(message.data)

    async def begin(self, client: Client, bucket: str, keys: str) -> Watch:
        """As services/console/README.md shows it."""
        await client.jetstream().subscribe(
            f"$KV.{bucket}.{keys}",
            stream=f"KV_{bucket}",
            cb=self.see,
            ordered_consumer=True,
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            config=ConsumerConfig(name=new_id()),
        )
        return self

    async def until(self, key: str, condition: Any) -> None:
        deadline = asyncio.get_running_loop().time() + WITHIN_S
        while not (key in self.values and condition(self.values[key])):
            assert asyncio.get_running_loop().time() < deadline, f"{key}: {self.values.get(key)}"
            await asyncio.sleep(0.02)


async def test_a_dashboard_gets_the_state_now_then_each_change(dashboard: Client, owner: Customer, stack: StackProcess) -> None:
    account = stack.ready["account"]
    client_id, secret = await owner.register("Watched")
    assert (await owner.call(client_id, secret)).status_code == 200
    await owner.wait_used(client_id, 1, WITHIN_S)
    usage = await Watch().begin(dashboard, "usage", f"{account}.>")
    apps = await Watch().begin(dashboard, "apps", f"{account}.>")
    key = f"{account}.{client_id}"
    await usage.until(f"{key}.csr", lambda value: value["daily"]["used"] == 1)
    await apps.until(key, lambda value: value["name"] == "Watched")
    for _ in range(4):
        assert (await owner.call(client_id, secret)).status_code == 200
    await usage.until(f"{key}.csr", lambda value: (value["daily"]["used"], value["monthly"]["used"]) == (5, 5))
    await owner.http.patch(f"/v1/apps/{client_id}", json={"name": "Renamed"})
    await apps.until(key, lambda value: value["name"] == "Renamed")
    await owner.http.delete(f"/v1/apps/{client_id}")
    await apps.until(key, lambda value: value is None)


@pytest.mark.parametrize("keys", [">", "other.>", "*.*.csr"])
async def test_a_dashboard_sees_no_other_account(dashboard: Client, keys: str) -> None:
    with pytest.raises((nats.errors.Error, TimeoutError)):
        async with asyncio.timeout(2):
            await Watch().begin(dashboard, "usage", keys)


@pytest.mark.parametrize("token", ["", "tbk_nobody_nothing", None])
async def test_nobody_connects_without_a_token_that_is_known(stack: StackProcess, token: str | None) -> None:
    async def quiet(error: Exception) -> None:
        pass

    client = Client()
    try:
        with pytest.raises((nats.errors.Error, TimeoutError, OSError)):
            await client.connect(stack.ready["nats_url"], token=token, error_cb=quiet, allow_reconnect=False, connect_timeout=5)
    finally:
        await client.close()
