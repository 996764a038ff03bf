"""From a review's decision to the calls that it is about: registry, metering and gate as processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from nats.aio.client import Client

from shared.clock import SystemClock
from shared.commands.metering import FirstCall, GetFirstCall
from shared.commands.requester import ask
from shared.events.review import CODEC
from tests.support.gate_process import GateProcess
from tests.support.gates import until
from tests.support.metering_process import LogFeed, MeteringProcess, eventually, usage
from tests.support.registry_process import Customer, RegistryProcess
from tests.support.review_decisions import SERVICE, decided, lifts, suspends
from tests.support.servers import PostgresDatabase

TEST_QUOTA: Final = 100_000
PASSED: Final = (200, "", "")
SUSPENDED: Final = (401, "210", "The service app is suspended.")


@pytest.fixture
async def metering(
    nats_url: str, postgres: PostgresDatabase, customer: Customer, tmp_path: Path
) -> AsyncIterator[MeteringProcess]:
    process = MeteringProcess(nats_url, await postgres.service_schema("metering"), tmp_path)
    try:
        await process.start()
        yield process
    finally:
        process.kill()


@pytest.fixture
async def gate(nats_url: str, metering: MeteringProcess, tmp_path: Path) -> AsyncIterator[GateProcess]:
    process = GateProcess(nats_url, tmp_path)
    try:
        await process.start()
        yield process
    finally:
        process.kill()


def answer(response: httpx.Response) -> tuple[int, str, str]:
    if response.status_code == 200:
        return PASSED
    error = response.json()["error"]
    return response.status_code, error["errorCode"], error["details"]


async def test_a_decision_reaches_the_calls(
    customer: Customer, registry: RegistryProcess, gate: GateProcess, metering: MeteringProcess, nc: Client
) -> None:
    issued = await customer.register(services=[SERVICE])
    headers = {"X-NCP-APIGW-API-KEY-ID": issued.client_id, "X-NCP-APIGW-API-KEY": issued.client_secret}
    clock, review = SystemClock(), LogFeed(nc, CODEC)

    async with httpx.AsyncClient(base_url=gate.url, headers=headers, timeout=20, trust_env=False) as http:

        async def call(quantity: int = 1) -> httpx.Response:
            return await http.get(f"/authorize/{SERVICE}", headers={"X-Tollbook-Quantity": str(quantity)})

        async def comes(wanted: tuple[int, str, str], what: str) -> None:
            since = clock.monotonic()

            async def is_there() -> bool:
                return answer(await call()) == wanted

            await until(is_there, what)
            print(f"{what}: {(clock.monotonic() - since) * 1000:.0f} ms")

        assert answer(await call(TEST_QUOTA)) == PASSED
        code, number, details = answer(await call())
        assert (code, number) == (429, "400")
        assert f"the test quota of {TEST_QUOTA} a month" in details
        assert (await usage(nc, issued.client_id, SERVICE, period="monthly")).limit == TEST_QUOTA

        async def followed() -> str:
            return str((await registry.readiness())["parts"]["review"]["detail"])

        async def called() -> bool:
            query = GetFirstCall(account="acme", client_id=issued.client_id, service=SERVICE)
            return (await ask(nc, "metering", query, FirstCall, timeout_s=10)).called

        await eventually(called, True)
        await review.publish(decided(issued.client_id, "rejected"))
        await eventually(followed, "")
        await review.publish(decided(issued.client_id))
        await comes(PASSED, "activated")
        live = await call()
        assert live.headers["x-tollbook-tier"] == "live"
        assert "x-tollbook-remaining" not in live.headers

        async def unlimited() -> bool:
            return (await usage(nc, issued.client_id, SERVICE, period="monthly")).limit is None

        await eventually(unlimited, True)
        await review.publish(suspends(issued.client_id))
        await comes(SUSPENDED, "suspended")
        gate.kill()
        await gate.start()
        assert answer(await call()) == SUSPENDED
        await review.publish(lifts(issued.client_id))
        await comes(PASSED, "resumed")
