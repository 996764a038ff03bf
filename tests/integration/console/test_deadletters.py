"""Dead letters over REST: for operators only."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import msgspec
import nats
import pytest

from shared.events.usage import MSGPACK, UsageBatch, UsageRecord
from shared.ids import new_id
from tests.integration.console.conftest import House
from tests.support.consoles import client, issue_token, make_metering, running
from tests.support.metering_process import now_us
from tests.support.servers import PostgresDatabase

PATHS = [("GET", ""), ("GET", "/counts"), ("GET", "/1"), ("POST", "/1/retry"), ("POST", "/1/discard")]


@pytest.fixture
async def metered(house: House, postgres: PostgresDatabase) -> AsyncIterator[House]:
    dsn = await postgres.service_schema("metering")
    async with running(make_metering(house.nats_url, dsn)):
        yield house


async def publish(house: House, *records: UsageRecord) -> None:
    nc = await nats.connect(house.nats_url)
    try:
        batch = UsageBatch(publisher=new_id(), seq=1, records=list(records))
        data = msgspec.msgpack.encode(batch)
        await nc.jetstream().publish("usage.records.0", data, headers={"Content-Type": MSGPACK})
    finally:
        await nc.close()


async def test_only_operators_may(metered: House) -> None:
    for method, path in PATHS:
        answer = await metered.api.request(method, f"/v1/deadletters{path}", json={"note": "x"} if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path


async def test_an_operator_lists_shows_retries_and_discards(metered: House) -> None:
    await publish(metered, UsageRecord("c" * 20, "csr", now_us(), 3), UsageRecord("d" * 20, "csr", now_us(), 4))
    async with client(metered.url, await issue_token(metered.dsn, "house", ("operator",))) as api:
        async with asyncio.timeout(20):
            while len((await api.get("/v1/deadletters")).json().get("letters", ())) < 2:  # noqa: ASYNC110 - a server is asked
                await asyncio.sleep(0.1)
        page = (await api.get("/v1/deadletters", params={"limit": 1, "why": "unknown_application", "state": "open"})).json()
        assert (page["letters"][0]["client_id"], page["next_cursor"]) == ("d" * 20, "2")
        page = (await api.get("/v1/deadletters", params={"limit": 1, "cursor": page["next_cursor"]})).json()
        assert (page["letters"][0]["client_id"], page["next_cursor"]) == ("c" * 20, None)
        one = (await api.get("/v1/deadletters/1")).json()
        assert msgspec.msgpack.decode(base64.b64decode(one["data"]))[0] == "c" * 20
        counts = (await api.get("/v1/deadletters/counts")).json()["counts"]
        assert counts == [{"why": "unknown_application", "open": 2, "retried": 0, "discarded": 0}]

        key = {"Idempotency-Key": "once"}
        for _ in range(2):
            answer = await api.post("/v1/deadletters/1/retry", json={"note": "registered now"}, headers=key)
            assert (answer.status_code, answer.json()["state"]) == (200, "retried")
        answer = await api.post("/v1/deadletters/1/retry", json={"note": "again"})
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        answer = await api.post("/v1/deadletters/2/discard", json={"note": "a test"})
        assert (answer.status_code, answer.json()["note"]) == (200, "a test")
        assert (await api.get("/v1/deadletters/99")).status_code == 404
        for path, body in [("/2/discard", {}), ("/2/discard", {"note": " "}), ("/2/retry", {"note": "x", "letter": 1})]:
            assert (await api.post(f"/v1/deadletters{path}", json=body)).status_code == 422, path
        for asked in ({"state": "gone"}, {"from": "yesterday"}, {"cursor": "0"}, {"limit": "0"}, {"who": "x"}):
            assert (await api.get("/v1/deadletters", params=asked)).status_code == 422, asked
        for letter in ("0", "x", "9" * 30):
            assert (await api.get(f"/v1/deadletters/{letter}")).status_code == 422, letter


async def test_a_correction_shows_over_rest(metered: House) -> None:
    issued = await metered.register()
    path = f"/v1/apps/{issued['client_id']}/corrections"
    async with asyncio.timeout(20):
        while (answer := await metered.api.get(path)).status_code == 503:  # noqa: ASYNC110 - a server is asked
            await asyncio.sleep(0.1)
    assert answer.json() == {"corrections": [], "next_cursor": None}
    assert (await metered.api.get(path, params={"from": "2026-01-01", "to": "x"})).status_code == 422
    assert (await metered.api.get(f"/v1/apps/{'a' * 20}/corrections")).status_code == 404
