"""Limits when metering is away or undecided, when an acknowledgement is slow, and when the stream of limits is another one."""

from __future__ import annotations

import asyncio
import time

import pytest
from nats.aio.client import Client

from services.gate.leases import AGAIN_S
from shared.streams.declare import delete_stream, ensure_stream, log_stream, usage_stream
from tests.integration.gate.test_recording import stopped
from tests.support.gates import Gate, Registry, declare, running_gate, stored_batches, until
from tests.support.granting import Granting, Metering, counted_of
from tests.support.quotas import gate_metrics, known, limited, passes, statuses
from tests.support.servers import NatsProcess, connect_nats


@pytest.mark.parametrize("how", ["silent", "refuses", "gone"])
async def test_metering_is_away(
    gate: Gate, registry: Registry, metering: Metering, how: str, record_property: pytest.RecordProperty
) -> None:
    issued, free = await limited(gate, registry, metering, daily=1000), await registry.registers()
    await known(gate, 2)
    if how == "gone":
        await metering.stop()
    else:
        setattr(metering, how, True)
    began_s = time.monotonic()
    waiting = asyncio.create_task(gate.call(issued))
    assert (await gate.call(free)).status_code == 200
    refused = await waiting
    record_property("seconds_to_the_refusal", time.monotonic() - began_s)
    assert refused.status_code == 503
    assert refused.json()["error"]["details"] == "The quota cannot be decided now. Try again in a moment."
    assert refused.headers["retry-after"] == "1"
    readiness = (await gate.http.get("/readyz")).json()
    assert readiness["ready"]
    assert "metering does not lease quota" in readiness["parts"]["quota"]["detail"]
    at_once = await asyncio.gather(*(gate.call(issued) for _ in range(20)))
    assert statuses(at_once) == {503: 20}
    metering.silent = metering.refuses = False
    if how == "gone":
        await metering.start()
    await until(lambda: passes(gate, issued), "metering to answer")
    assert (await gate.http.get("/readyz")).json()["parts"]["quota"]["detail"] == ""
    assert (await gate.call(free)).status_code == 200


async def test_a_lease_lasts_while_metering_is_away(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await limited(gate, registry, metering, daily=100_000)
    for _ in range(20):
        await gate.call(issued)
    metering.silent = True
    assert (await gate.call(issued)).status_code == 200


async def test_what_is_not_decided_is_refused_after_a_moment(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await limited(gate, registry, metering, daily=100)
    metering.granting.undecided = "counting again"
    waiting = asyncio.create_task(gate.call(issued))
    await asyncio.sleep(2 * AGAIN_S)
    metering.granting.undecided = ""
    assert (await waiting).status_code == 200, "it was waited for"
    await metering.limits(issued.client_id, 90)
    metering.granting.undecided = "counting again"

    async def undecided() -> bool:
        return (await gate.call(issued)).status_code == 503

    await until(undecided, "the lease to end with the limit's change")


async def test_a_lease_that_ends_before_its_record_is_acknowledged(private_nats: NatsProcess) -> None:
    own_nc, other_nc = await connect_nats(private_nats.url), await connect_nats(private_nats.url)
    await declare(own_nc)
    registry, metering = Registry(own_nc), Metering(other_nc, Granting(lease_s=4, margin_s=0.5))
    await metering.start()
    async with running_gate(private_nats.url, commit_timeout_s=20) as gate:
        issued, free = await limited(gate, registry, metering, daily=1000), await registry.registers()
        await known(gate, 2)
        assert (await gate.call(issued, X_Tollbook_Quantity="50")).status_code == 200
        with stopped(private_nats):
            calls = [asyncio.create_task(gate.call(one)) for one in (free, issued, free, issued)]
            await asyncio.sleep(4)
        answers = await asyncio.gather(*calls)
        assert [answer.status_code for answer in answers] == [200, 503, 200, 503]
        assert "took longer than its units were set aside for" in answers[1].json()["error"]["details"]
        assert (await gate.call(issued)).status_code == 200, "with another lease"
        batches = await stored_batches(own_nc)
        places = [(batch.records[place].client_id, batch.retracted) for batch in batches for place in batch.voided or ()]
        assert places == [(issued.client_id, True)] * 2
        assert all(not batch.retracted or batch.voided for batch in batches)
        units = counted_of(batches)
        assert (units.pop(""), sum(units.values())) == (2, 51)
        counts = await gate_metrics(gate)
        assert counts['tollbook_gate_decisions_total{outcome="lease_ended"}'] == 2
        assert counts["tollbook_gate_voided_records_total"] == 2
    await metering.stop()
    await own_nc.close()
    await other_nc.close()


async def test_it_is_ready_once_it_knows_the_limits(nats_url: str, nc: Client) -> None:
    await ensure_stream(nc, log_stream("registry"))
    await ensure_stream(nc, usage_stream())
    registry, metering = Registry(nc), Metering(nc, Granting())
    issued = await registry.registers()
    async with running_gate(nats_url, await_ready=False) as gate:

        async def says_why() -> bool:
            return "does not exist" in (await gate.http.get("/readyz")).json()["parts"]["limits"]["detail"]

        await until(says_why, "a reason at /readyz")
        assert (await gate.call(issued)).status_code == 503
        await ensure_stream(nc, log_stream("metering"))
        await metering.limits(issued.client_id, 0)
        for _ in range(5):
            await metering.tells_a_crossing()
        await metering.start()
        await until(gate.ready, "the gate to be ready")
        assert (await gate.http.get("/readyz")).json()["parts"]["limits"] == {"ready": True, "detail": "", "lag": {"METERING": 0}}

    async with running_gate(nats_url) as second:
        assert (await second.call(issued)).status_code == 429, "known before the first call"
    await metering.stop()


async def test_another_history_of_limits_ends_the_process(gate: Gate, registry: Registry, metering: Metering, nc: Client) -> None:
    issued = await limited(gate, registry, metering, daily=0)
    await metering.tells_a_crossing()
    assert (await gate.call(issued)).status_code == 429
    await delete_stream(nc, "METERING")
    await ensure_stream(nc, log_stream("metering"))
    await metering.tells_a_crossing()
    await metering.limits("z" * 20, 5)
    await metering.limits("y" * 20, 5)
    await asyncio.wait_for(asyncio.shield(gate.serving), 20)
