"""How the gate comes to know the applications, and what it does when it cannot."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest
from nats.aio.client import Client

from shared.events.registry import AccountOpened, AppDeleted, TermsAccepted
from shared.events.usage import UsageBatch
from shared.streams.declare import delete_stream, ensure_stream, log_stream, set_due, usage_stream
from tests.support.gates import Gate, Registry, declare, running_gate, until


async def test_it_is_rebuilt_from_the_stream_at_every_start(nats_url: str, registry: Registry) -> None:
    await registry.says(AccountOpened(account="acme", zone="Asia/Seoul"))
    await registry.says(TermsAccepted(account="acme", terms_version="1", accepted_by="member:1"))
    applications = [await registry.registers() for _ in range(30)]
    await registry.says(AppDeleted(account="acme", client_id=applications[0].client_id))
    for _ in range(2):
        async with running_gate(nats_url) as gate:
            assert (await gate.call(applications[0])).status_code == 401
            assert (await gate.call(applications[-1])).status_code == 200
            part = (await gate.http.get("/readyz")).json()["parts"]["registry"]
            assert part == {"ready": True, "detail": "", "lag": {"REGISTRY": 0}}


async def test_without_the_registrys_stream_it_is_not_ready_and_says_so(nats_url: str, nc: Client) -> None:
    await ensure_stream(nc, usage_stream())
    await ensure_stream(nc, log_stream("metering"))
    async with running_gate(nats_url, await_ready=False) as gate:
        registry = Registry(nc)
        response = await gate.http.get("/authorize/csr")
        assert (response.status_code, response.json()["error"]["errorCode"]) == (503, "500")
        assert (await gate.http.get("/authorize/none")).status_code == 404

        async def says_why() -> bool:
            return "does not exist" in (await gate.http.get("/readyz")).json()["parts"]["registry"]["detail"]

        await until(says_why, "a reason at /readyz")
        assert (await gate.http.get("/readyz")).status_code == 503
        assert (await gate.http.get("/healthz")).status_code == 200
        await ensure_stream(nc, log_stream("registry"))
        issued = await registry.registers()
        await until(gate.ready, "the gate to be ready")

        async def passes() -> bool:
            return (await gate.call(issued)).status_code == 200

        await until(passes, "the application to be known")


async def test_a_stream_that_is_lost_and_written_again(gate: Gate, registry: Registry, nc: Client) -> None:
    issued = await registry.registers()
    said = await read_all(nc)
    await passing(gate, registry, issued.client_id)
    await delete_stream(nc, "REGISTRY")
    await asyncio.sleep(0.2)
    assert (await gate.call(issued)).status_code == 200
    await ensure_stream(nc, log_stream("registry"))
    for subject, headers, data in said:
        await nc.request(subject, data, headers=headers, timeout=5)
    later = await registry.registers()
    await until(lambda: _passes(gate, later), "the gate to go on")
    assert (await gate.call(issued)).status_code == 200
    await until(gate.ready, "the gate to be ready")


async def test_a_stream_that_is_being_written_again_is_not_taken_for_the_whole(nats_url: str, nc: Client) -> None:
    await declare(nc)
    await delete_stream(nc, "REGISTRY")
    await ensure_stream(nc, log_stream("registry", due=3))
    registry = Registry(nc)
    await registry.registers()
    await registry.registers()
    async with running_gate(nats_url, await_ready=False) as gate:

        async def has_read_what_there_is() -> bool:
            part = (await gate.http.get("/readyz")).json()["parts"]["registry"]
            return bool(part["detail"] == "at event 2 of 3")

        await until(has_read_what_there_is, "the gate to read what there is")
        last = await registry.registers()
        await until(gate.ready, "the gate to be ready")
        assert (await gate.call(last)).status_code == 200


async def test_a_gate_hears_that_it_waits_for_what_will_not_come(nats_url: str, nc: Client) -> None:
    await declare(nc)
    await delete_stream(nc, "REGISTRY")
    await ensure_stream(nc, log_stream("registry", due=3))
    issued = await Registry(nc).registers()
    async with running_gate(nats_url, await_ready=False) as gate:
        await set_due(nc, "REGISTRY", 1)
        await until(gate.ready, "the gate to be ready")
        assert (await gate.call(issued)).status_code == 200


async def test_a_stream_with_another_history_ends_the_process(gate: Gate, registry: Registry, nc: Client) -> None:
    for _ in range(2):
        issued = await registry.registers()
    await until(lambda: _passes(gate, issued), "the application to be known")
    await delete_stream(nc, "REGISTRY")
    await declare(nc)
    other = Registry(nc)
    for _ in range(3):
        later = await other.registers()
    await asyncio.wait_for(asyncio.shield(gate.serving), 20)
    async with running_gate(gate.settings.nats_url) as next_start:
        assert (await next_start.call(issued)).status_code == 401
        assert (await next_start.call(later)).status_code == 200


async def passing(gate: Gate, registry: Registry, client_id: str) -> None:
    async def known() -> bool:
        part = (await gate.http.get("/readyz")).json()["parts"]["registry"]
        metrics = (await gate.http.get("/metrics")).text
        return part["lag"] == {"REGISTRY": 0} and "tollbook_gate_applications 1.0" in metrics

    await until(known, f"{client_id} to be known")


async def _passes(gate: Gate, issued: object) -> bool:
    return (await gate.call(issued)).status_code == 200  # type: ignore[arg-type]


async def read_all(nc: Client) -> list[tuple[str, dict[str, str], bytes]]:
    subscription = await nc.jetstream().subscribe("registry.events.>", ordered_consumer=True)
    info = await nc.jetstream().stream_info("REGISTRY")
    messages = [await subscription.next_msg(timeout=5) for _ in range(info.state.messages)]
    await subscription.unsubscribe()
    return [(message.subject, dict(message.headers or {}), message.data) for message in messages]


@pytest.mark.parametrize("poison", ["type", "schema", "data", "contradiction"])
async def test_an_event_that_it_cannot_read_stops_it(gate: Gate, registry: Registry, nc: Client, poison: str) -> None:
    issued = await registry.registers()
    await until(lambda: _passes(gate, issued), "the application to be known")
    event = TermsAccepted(account="acme", terms_version="1", accepted_by="member:1")
    match poison:
        case "type":
            await registry.says(event, "TermsForgotten")
        case "schema":
            await registry.says(event, schema=2)
        case "data":
            await registry.says(event, "AppRegistered")
        case _:
            await registry.says(AppDeleted(account="acme", client_id="z" * 20))

    async def refuses() -> bool:
        return (await gate.call(issued)).status_code == 503

    await until(refuses, "the gate to refuse")
    readiness = await gate.http.get("/readyz")
    assert readiness.status_code == 503
    assert "message 2 of REGISTRY cannot be applied" in readiness.json()["parts"]["registry"]["detail"]
    await registry.says(event)
    await asyncio.sleep(0.3)
    assert await refuses()
    async with running_gate(gate.settings.nats_url, await_ready=False) as second:
        assert (await second.call(issued)).status_code == 503


async def test_no_secret_is_ever_in_a_log_line(
    gate: Gate, registry: Registry, nc: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    issued = await registry.registers()
    await until(lambda: _passes(gate, issued), "the application to be known")
    secret = issued.secret
    query = f"/x?X-NCP-APIGW-API-KEY-ID={issued.client_id}&X-NCP-APIGW-API-KEY={secret}"
    for headers in ({"X-Forwarded-Uri": query}, {"X-NCP-APIGW-API-KEY": secret}, issued.headers | {"X-Filler": "x" * 70_000}):
        response = await gate.http.get("/authorize/csr", headers=headers)
        assert secret not in response.text + str(response.headers)
    await gate.http.get("/authorize/csr" + query[2:])
    await delete_stream(nc, "USAGE")
    assert (await gate.call(issued)).status_code == 503
    monkeypatch.setattr("services.gate.edge.read_call", _break)
    await ensure_stream(nc, usage_stream())
    await until(gate.ready, "the gate to recover")
    broken = await gate.call(issued)
    assert (broken.status_code, broken.json()["error"]["errorCode"]) == (500, "900")
    clients = ("httpx", "httpcore")
    logged = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith(clients))
    assert "ValueError while deciding" in logged
    assert secret not in logged
    assert secret not in broken.text


def _break(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    raise ValueError(f"cannot read {headers}")


async def test_metrics_and_asyncapi(gate: Gate, registry: Registry) -> None:
    issued = await registry.registers()
    await until(lambda: _passes(gate, issued), "the application to be known")
    await gate.http.get("/authorize/csr")
    metrics = (await gate.http.get("/metrics")).text
    assert 'tollbook_gate_decisions_total{outcome="passed"}' in metrics
    assert 'tollbook_gate_decisions_total{outcome="credentials_missing"} 1.0' in metrics
    assert "tollbook_gate_in_flight 0.0" in metrics
    assert "tollbook_gate_commit_seconds_count" in metrics
    described = (await gate.http.get("/asyncapi.json")).json()
    assert "usage.records.{partition}" in {channel["address"] for channel in described["channels"].values()}
    assert UsageBatch.__struct_fields__[0] in str(described["components"]["schemas"])


async def test_the_time_from_event_to_refusal(gate: Gate, registry: Registry, record_property: pytest.RecordProperty) -> None:
    issued = await registry.registers()
    await until(lambda: _passes(gate, issued), "the application to be known")
    await registry.says(AppDeleted(account="acme", client_id=issued.client_id))
    began = datetime.now(UTC)

    async def refused() -> bool:
        return (await gate.call(issued)).status_code == 401

    await until(refused, "the refusal")
    record_property("seconds_from_event_to_refusal", (datetime.now(UTC) - began).total_seconds())
