"""What was used, as the console shows it, with the real metering behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
import nats
import pytest

from shared.events.usage import MSGPACK, RECORDS_SUBJECT, UsageBatch, UsageRecord, partition_of
from tests.integration.console.conftest import House
from tests.support.consoles import client, make_metering, running
from tests.support.servers import PostgresDatabase

PARTITIONS = 2


@pytest.fixture
async def metered(house: House, postgres: PostgresDatabase) -> AsyncIterator[House]:
    dsn = await postgres.service_schema("metering")
    async with running(make_metering(house.nats_url, dsn)):
        yield house


async def publish_calls(house: House, issued: dict[str, str], calls: int) -> None:
    """Usage as a gate publishes it: `calls` calls of one unit."""
    nc = await nats.connect(house.nats_url)
    try:
        now_us = int(datetime.now(UTC).timestamp() * 1_000_000)
        record = UsageRecord(issued["client_id"], "clova-voice", now_us, 1, issued["secret_id"])
        batch = UsageBatch(publisher="test", seq=1, records=[record] * calls)
        subject = f"{RECORDS_SUBJECT}.{partition_of(issued['client_id'], PARTITIONS)}"
        await nc.jetstream().publish(subject, msgspec.msgpack.encode(batch), headers={"Content-Type": MSGPACK})
    finally:
        await nc.close()


async def test_calls_show_in_usage_list_and_authentication(metered: House) -> None:
    issued = await metered.register()
    path = f"/v1/apps/{issued['client_id']}"
    await publish_calls(metered, issued, 3)
    async with asyncio.timeout(20):
        while True:
            answer = await metered.api.get(f"{path}/usage?service=clova-voice&period=monthly")
            assert answer.status_code in (200, 503), answer.text  # 503: metering has not heard of the app yet
            if answer.status_code == 200 and answer.json()["used"] == 3:
                break
            await asyncio.sleep(0.1)
    usage = answer.json()
    assert (usage["calls"], usage["limit"], usage["zone"], usage["history"][-1]["used"]) == (3, None, "Asia/Seoul", 3)

    listed = (await metered.api.get("/v1/apps")).json()
    (at_service,) = listed["apps"][0]["usage"]
    assert (at_service["daily"]["used"], at_service["monthly"]["used"], listed["warnings"]) == (3, 3, [])

    shown = (await metered.api.get(f"{path}/authentication")).json()
    assert shown["secrets"][0]["last_used_at"] is not None
    assert shown["warnings"] == []


async def test_usage_of_what_is_not_there(metered: House) -> None:
    issued = await metered.register()
    path = f"/v1/apps/{issued['client_id']}/usage"
    async with asyncio.timeout(20):
        while (await metered.api.get(f"{path}?service=clova-voice")).status_code == 503:  # noqa: ASYNC110 - a server is asked
            await asyncio.sleep(0.1)
    assert (await metered.api.get(f"{path}?service=nonsense")).status_code == 422
    backwards = await metered.api.get(f"{path}?service=clova-voice&from=2026-02-02&to=2026-02-01")
    assert backwards.status_code == 422
    assert {field["field"] for field in backwards.json()["fields"]} <= {"from", "to"}
    assert (await metered.api.get(f"/v1/apps/{'a' * 20}/usage?service=clova-voice")).status_code == 404
    async with client(metered.url, await metered.open_account("other")) as api:
        assert (await api.get(f"{path}?service=clova-voice")).status_code == 404
