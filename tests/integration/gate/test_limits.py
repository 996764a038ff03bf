"""Calls of applications with limits: a gate over a real NATS, and metering's rules in the test behind it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from shared.clock import SystemClock
from shared.events.registry import (
    AppDeleted,
    AppRegistered,
    Environments,
    SelectedService,
    ServiceActivated,
    ServiceResumed,
    ServiceSuspended,
)
from shared.ids import new_client_id, new_client_secret
from tests.support.gates import Gate, Issued, Registry, issue, running_gate, stored_batches, until
from tests.support.granting import Metering, counted_of
from tests.support.quotas import gate_metrics, known, limited, passes, statuses


async def test_calls_pass_up_to_the_limit_and_are_then_refused(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await limited(gate, registry, metering, daily=20, monthly=1000)
    remaining = []
    for _ in range(20):
        answer = await gate.call(issued)
        assert answer.status_code == 200, answer.text
        remaining.append(int(answer.headers["x-tollbook-remaining"]))
    assert remaining == sorted(remaining, reverse=True)
    assert (remaining[0], remaining[-1]) == (19, 0)
    for batch in await stored_batches(metering.nc):
        for record in batch.records:
            assert record.lease in metering.granting.rows
            metering.granting.count(record)
    refused = await gate.call(issued)
    error = refused.json()["error"]
    assert (refused.status_code, error["errorCode"], error["message"]) == (429, "400", "Quota Exceeded")
    assert (error["limit"], error["used"]) == (20, 20)
    assert "daily limit of 20" in error["details"]
    resets_at = datetime.fromisoformat(error["resets_at"])
    assert resets_at.utcoffset() == timedelta(hours=9)
    until_reset_s = (resets_at - datetime.now(UTC)).total_seconds()
    assert abs(int(refused.headers["retry-after"]) - until_reset_s) < 60
    assert refused.headers["x-tollbook-refusal"] == refused.text
    assert "x-tollbook-remaining" not in refused.headers
    counts = await gate_metrics(gate)
    assert counts['tollbook_gate_decisions_total{outcome="quota_exceeded"}'] == 1
    assert counts["tollbook_gate_lease_requests_total"] >= 2


async def test_many_at_once_get_just_what_there_is(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await limited(gate, registry, metering, daily=100)
    found = statuses(await asyncio.gather(*(gate.call(issued) for _ in range(150))))
    assert found == {200: 100, 429: 50}
    assert sum(counted_of(await stored_batches(metering.nc)).values()) == 100


async def test_quantities_are_admitted_whole_or_not_at_all(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await limited(gate, registry, metering, daily=None, monthly=100)
    assert (await gate.call(issued, X_Tollbook_Quantity="60")).headers["x-tollbook-remaining"] == "40"
    refused = await gate.call(issued, X_Tollbook_Quantity="41")
    assert refused.status_code == 429
    never = await gate.call(issued, X_Tollbook_Quantity="101")
    assert "more than the whole of the application's monthly limit of 100" in never.json()["error"]["details"]
    assert (await gate.call(issued, X_Tollbook_Quantity="40")).headers["x-tollbook-remaining"] == "0"
    assert sum(counted_of(await stored_batches(metering.nc)).values()) == 100


async def test_an_accounts_limit_holds_for_all_of_its_applications(gate: Gate, registry: Registry, metering: Metering) -> None:
    applications = [await registry.registers() for _ in range(3)]
    await metering.limits_account(9)
    await known(gate, 3)
    answers = [await gate.call(issued) for _ in range(4) for issued in applications]
    assert statuses(answers) == {200: 9, 429: 3}
    assert "the account's monthly limit of 9" in answers[-1].json()["error"]["details"]
    await metering.limits_account(None)
    await until(lambda: passes(gate, applications[0]), "the limit to be gone")


async def test_a_service_in_tier_test_has_the_catalogs_quota(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = Issued(new_client_id(), new_client_secret())
    await registry.says(
        AppRegistered(
            account="acme",
            client_id=issued.client_id,
            name="app",
            services=(SelectedService("clova-studio", "test"),),
            environments=Environments(),
            secret=issue(issued.client_id, issued.secret),
        )
    )
    metering.granting.tested[issued.client_id, "clova-studio"] = 2
    await known(gate)
    found = [await gate.call(issued, "clova-studio") for _ in range(3)]
    assert statuses(found) == {200: 2, 429: 1}
    assert "the test quota of 2 a month" in found[-1].json()["error"]["details"]
    await registry.says(ServiceActivated(account="acme", client_id=issued.client_id, service="clova-studio"))

    async def live() -> bool:
        answer = await gate.call(issued, "clova-studio")
        return answer.status_code == 200 and "x-tollbook-remaining" not in answer.headers

    await until(live, "the service to be live")


async def test_a_suspended_service_is_refused_whatever_is_leased(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await limited(gate, registry, metering, daily=100)
    assert (await gate.call(issued)).headers["x-tollbook-remaining"] == "99"
    about = {"account": "acme", "client_id": issued.client_id, "service": "csr", "review_id": "r1"}
    await registry.says(ServiceSuspended(**about))

    async def suspended() -> bool:
        return (await gate.call(issued)).status_code == 401

    async def given_back() -> bool:
        return all(row.stated is not None for row in metering.granting.rows.values())

    await until(suspended, "the suspension")
    await until(given_back, "the lease to be given back")
    asked, counted = len(metering.granting.requests), counted_of(await stored_batches(metering.nc))
    assert statuses([await gate.call(issued) for _ in range(3)]) == {401: 3}
    assert counted_of(await stored_batches(metering.nc)) == counted
    assert len(metering.granting.requests) == asked
    await registry.says(ServiceResumed(**about))
    await until(lambda: passes(gate, issued), "the suspension to be lifted")


async def test_without_a_limit_nothing_is_asked(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await registry.registers()
    await metering.limits("z" * 20, 1)
    await known(gate)
    answer = await gate.call(issued)
    assert answer.status_code == 200
    assert "x-tollbook-remaining" not in answer.headers
    await metering.stop()
    await asyncio.gather(*(gate.call(issued) for _ in range(50)))
    assert len(gate.passed) == 51
    assert metering.granting.requests == []
    assert {record.lease for batch in await stored_batches(metering.nc) for record in batch.records} == {""}


async def test_calls_that_wait_share_a_request(gate: Gate, registry: Registry, metering: Metering) -> None:
    applications = [await registry.registers() for _ in range(20)]
    for issued in applications:
        await metering.limits(issued.client_id, 10_000)
    await known(gate, 20)
    metering.hold.clear()
    calls = [asyncio.create_task(gate.call(issued)) for issued in applications for _ in range(3)]

    async def wait() -> bool:
        return (await gate_metrics(gate))["tollbook_gate_waiting_for_units"] == 60

    await until(wait, "all calls to wait")
    metering.hold.set()
    assert statuses(await asyncio.gather(*calls)) == {200: 60}
    assert len(metering.granting.requests) <= 5


async def test_units_that_others_hold_are_asked_back(nats_url: str, gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await limited(gate, registry, metering, daily=100)
    async with running_gate(nats_url) as second:
        await known(second)
        assert (await gate.call(issued)).status_code == 200
        found = await asyncio.gather(*(second.call(issued) for _ in range(50)), *(gate.call(issued) for _ in range(49)))
        assert statuses(found) == {200: 99}
        assert statuses([await one.call(issued) for one in (gate, second)]) == {429: 2}
    assert sum(counted_of(await stored_batches(metering.nc)).values()) == 100


async def test_a_recalled_lease_is_returned_at_once(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await limited(gate, registry, metering, daily=1000)
    for _ in range(10):
        await gate.call(issued)
    await metering.recalls("")

    async def returned() -> bool:
        return all(row.stated is not None for row in metering.granting.rows.values())

    await until(returned, "the lease to be returned")
    assert sum(row.stated or 0 for row in metering.granting.rows.values()) == 10
    assert (await gate.call(issued)).headers["x-tollbook-remaining"] == "989"


async def test_a_changed_limit_holds_at_once(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await limited(gate, registry, metering, daily=1_000_000)
    for _ in range(30):
        await gate.call(issued)
    [row] = metering.granting.rows.values()
    assert row.units > 30
    await metering.tells_a_crossing()
    await metering.limits(issued.client_id, 40)

    async def returned() -> bool:
        return row.stated is not None

    await until(returned, "the old lease to be returned")
    assert row.stated == 30
    assert statuses([await gate.call(issued) for _ in range(12)]) == {200: 10, 429: 2}
    await metering.limits(issued.client_id, 41)
    await until(lambda: passes(gate, issued), "the higher limit")
    await metering.limits(issued.client_id, 0)

    async def blocked() -> bool:
        answer = await gate.call(issued)
        return answer.status_code == 429 and "limit of 0" in answer.json()["error"]["details"]

    await until(blocked, "the limit of zero")
    await metering.limits(issued.client_id, None)
    await until(lambda: passes(gate, issued), "the limit to be gone")


async def test_a_deleted_applications_lease_is_returned(gate: Gate, registry: Registry, metering: Metering) -> None:
    issued = await limited(gate, registry, metering, daily=1000)
    await gate.call(issued)
    await registry.says(AppDeleted(account="acme", client_id=issued.client_id))

    async def returned() -> bool:
        return all(row.stated == 1 for row in metering.granting.rows.values())

    await until(returned, "the lease to be returned")
    assert (await gate.call(issued)).status_code == 401


async def test_stopping_returns_what_is_left(nats_url: str, registry: Registry, metering: Metering) -> None:
    async with running_gate(nats_url) as gate:
        issued = await limited(gate, registry, metering, daily=1000)
        for _ in range(5):
            await gate.call(issued)
        assert (await gate_metrics(gate))["tollbook_gate_leases_held"] == 1
        await gate.stop()
    assert [row.stated for row in metering.granting.rows.values()] == [5]


class MovableClock(SystemClock):
    """The machine's clock, with the civil time moved."""

    moved = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.moved


async def test_local_midnight_in_the_middle(nats_url: str, registry: Registry, metering: Metering) -> None:
    clock = MovableClock()
    async with running_gate(nats_url, clock=clock) as gate:
        issued = await limited(gate, registry, metering, daily=10)
        assert statuses([await gate.call(issued) for _ in range(12)])[200] == 10
        midnight = metering.granting.day(clock.now())[1]
        clock.moved = midnight - datetime.now(UTC)
        assert statuses([await gate.call(issued) for _ in range(12)])[200] == 10
        for batch in await stored_batches(metering.nc):
            for record in batch.records:
                metering.granting.count(record)  # fails for a record of another day than its lease's
        assert sorted(metering.granting.counted.values()) == [10, 10]


async def test_too_many_that_wait_are_told_so(nats_url: str, registry: Registry, metering: Metering) -> None:
    async with running_gate(nats_url, in_flight_max=5) as gate:
        issued, free = await limited(gate, registry, metering, daily=100), await registry.registers()
        await known(gate, 2)
        metering.hold.clear()
        calls = [asyncio.create_task(gate.call(issued)) for _ in range(5)]

        async def wait() -> bool:
            return (await gate_metrics(gate))["tollbook_gate_waiting_for_units"] == 5

        await until(wait, "the calls to wait")
        overloaded = await gate.call(issued)
        assert (overloaded.status_code, overloaded.json()["error"]["details"][:14]) == (503, "Too many calls")
        assert (await gate.call(free)).status_code == 200, "who has no limit is not kept waiting by those who have"
        metering.hold.set()
        assert statuses(await asyncio.gather(*calls)) == {200: 5}
