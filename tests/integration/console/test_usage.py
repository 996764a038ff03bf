"""What was used, as the console shows it, with the real metering behind."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import nats
import pytest

from shared.events.usage import MSGPACK, RECORDS_SUBJECT, UsageBatch, UsageRecord, partition_of
from tests.integration.console.conftest import House
from tests.support.consoles import client, issue_token, make_metering, running
from tests.support.servers import PostgresDatabase

PARTITIONS = 2


@pytest.fixture
async def metered(house: House, postgres: PostgresDatabase) -> AsyncIterator[House]:
    dsn = await postgres.service_schema("metering")
    async with running(make_metering(house.nats_url, dsn)):
        yield house


async def publish_calls(house: House, issued: dict[str, str], calls: int, publisher: str = "test") -> None:
    """Usage as a gate publishes it: `calls` calls of one unit."""
    nc = await nats.connect(house.nats_url)
    try:
        now_us = int(datetime.now(UTC).timestamp() * 1_000_000)
        record = UsageRecord(issued["client_id"], "clova-voice", now_us, 1, issued["secret_id"])
        batch = UsageBatch(publisher=publisher, seq=1, records=[record] * calls)
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


async def wait_used(house: House, issued: dict[str, str], used: int) -> None:
    async with asyncio.timeout(20):
        while True:
            answer = await house.api.get(f"/v1/apps/{issued['client_id']}/usage?service=clova-voice")
            if answer.status_code == 200 and answer.json()["used"] == used:
                return
            await asyncio.sleep(0.1)


async def test_history_as_json_and_as_csv(metered: House) -> None:
    formula, plain = await metered.register('=1+1, "x"'), await metered.register()
    await publish_calls(metered, formula, 2, "one")
    await publish_calls(metered, plain, 3, "two")
    await wait_used(metered, formula, 2)
    await wait_used(metered, plain, 3)
    path = f"/v1/apps/{formula['client_id']}/usage/history"
    shown = (await metered.api.get(path)).json()
    [series] = shown["series"]
    assert (shown["zone"], shown["interval"], shown["next_cursor"], len(series["history"])) == ("Asia/Seoul", "day", None, 31)
    assert (series["client_id"], series["name"], series["service"]) == (formula["client_id"], '=1+1, "x"', "clova-voice")
    assert (series["history"][-1]["used"], series["history"][-1]["calls"], series["history"][-1]["late"]) == (2, 2, 0)
    assert shown["position"] > 0
    [total] = (await metered.api.get("/v1/usage/history?interval=month")).json()["series"]
    assert (total["client_id"], total["name"], len(total["history"]), total["history"][-1]["used"]) == (None, None, 12, 5)

    today = series["history"][-1]["window_start"]
    answer = await metered.api.get(path, params={"from": today, "format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert datetime.fromisoformat(answer.headers["x-tollbook-as-of"])
    assert int(answer.headers["x-tollbook-position"]) > 0
    header, row, end = answer.text.split("\r\n")
    assert (header, end) == ("client_id,name,service,window_start,window_end,used,calls,late,corrected", "")
    start = datetime.fromisoformat(today).astimezone(ZoneInfo("Asia/Seoul"))
    until = start + timedelta(days=1)
    name = '"\'=1+1, ""x"""'
    assert row == f"{formula['client_id']},{name},clova-voice,{start.isoformat()},{until.isoformat()},2,2,0,0"

    found = []
    cursor: str | None = ""
    while cursor is not None:
        asked = {"group_by": "app", "limit": "1", "from": today} | ({"cursor": cursor} if cursor else {})
        page = await metered.api.get("/v1/usage/history", params=asked, headers={"Accept": "text/csv"})
        found += [(row["client_id"], row["used"]) for row in csv.DictReader(io.StringIO(page.text, newline=""))]
        cursor = page.headers.get("x-tollbook-next-cursor")
    assert sorted(found) == sorted([(formula["client_id"], "2"), (plain["client_id"], "3")])


async def test_history_of_what_is_not_there_or_too_much(metered: House) -> None:
    issued = await metered.register()
    await wait_used(metered, issued, 0)
    path = f"/v1/apps/{issued['client_id']}/usage/history"
    for query, fields in (
        ("service=nonsense", {"service"}),
        ("from=2026-02-02&to=2026-02-01", {"from"}),
        ("interval=hour&from=2020-01-01", {"from"}),
        ("interval=week&format=xml&x=1", {"interval", "format", "x"}),
    ):
        for where in (path, "/v1/usage/history"):
            answer = await metered.api.get(f"{where}?{query}")
            assert answer.status_code == 422, answer.text
            assert {field["field"] for field in answer.json()["fields"]} == fields
            assert all(field["hint"] or field["field"] in ("interval", "format") for field in answer.json()["fields"])
    alone = await metered.api.get(f"/v1/usage/history?cursor={issued['client_id']}")
    assert (alone.status_code, [field["field"] for field in alone.json()["fields"]]) == (422, ["cursor"])
    assert (await metered.api.get(f"/v1/apps/{'a' * 20}/usage/history")).status_code == 404
    async with client(metered.url, await metered.open_account("other")) as api:
        assert (await api.get(path)).status_code == 404
        async with asyncio.timeout(20):
            while (answer := await api.get("/v1/usage/history")).status_code == 503:  # noqa: ASYNC110 - a server is asked
                await asyncio.sleep(0.1)
        assert answer.json()["series"] == []
    async with client(metered.url, await issue_token(metered.dsn, roles=("reviewer",))) as reviewer:
        assert (await reviewer.get("/v1/usage/history")).status_code == 403
