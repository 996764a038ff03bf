"""Limits asked for over NATS, of a worker that runs: the stream METERING, the buckets, schedules, rebuilding."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.errors import KeyNotFoundError

from deploy.servers.roles import ServiceDsn
from shared.commands.limits import (
    AccountLimitView,
    CancelSchedule,
    GetLimits,
    LimitChanges,
    LimitsView,
    ListLimitChanges,
    ScheduleCancelled,
    ScheduleLimits,
    SetAccountLimit,
)
from shared.errors import Conflict, NotFound
from shared.events.registry import ServiceActivated
from shared.events.usage import UsageRecord
from tests.support.limit_owner import Owner
from tests.support.metering_process import Meter, MeteringProcess, RegistryFeed, eventually, now_us, rows, usage, used

A, B, N = "a" * 20, "b" * 20, "n" * 20
FOLDED = ("app_limit", "account_limit", "limit_schedule", "told")


@pytest.fixture
def owner(nc: Client) -> Owner:
    return Owner(nc)


async def test_a_limit_is_in_the_stream_and_on_the_dashboards(
    nc: Client, worker: MeteringProcess, owner: Owner, meter: Meter
) -> None:
    view = await owner.set(daily=10, monthly=100, reason="to begin with")
    assert view == await owner.ask(GetLimits, LimitsView, client_id=A)
    await owner.ask(SetAccountLimit, AccountLimitView, monthly=1000)

    async def subjects() -> list[str]:
        return [subject for subject, _ in await owner.stream()]

    await eventually(subjects, ["metering.events.LimitChanged", "metering.events.AccountLimitChanged"])
    buckets = {name: await nc.jetstream().key_value(name) for name in ("limits", "usage")}

    async def value(bucket: str, key: str) -> dict[str, Any]:
        try:
            return dict(json.loads((await buckets[bucket].get(key)).value or b""))
        except KeyNotFoundError:
            return {}

    async def amounts() -> tuple[Any, ...]:
        own, account = await value("limits", f"acme.{A}.csr"), await value("limits", "acme.account.csr")
        shown = await value("usage", f"acme.{A}.csr")
        of_usage = [shown.get(period, {}).get("limit") for period in ("daily", "monthly")]
        return own.get("daily"), account.get("monthly"), *of_usage

    await eventually(amounts, (10, 1000, 10, 100))
    await meter.count(UsageRecord(A, "csr", now_us(), 5))
    await eventually(owner.told, [(A, 1, percent) for percent in (10, 20, 30, 40, 50)])
    answer = await usage(nc, A)
    assert (answer.used, answer.limit) == (5, 10)
    assert (await usage(nc, A, period="monthly")).limit == 100
    await owner.set(daily=20)
    await eventually(amounts, (20, 1000, 20, None))


async def test_of_an_application_that_was_registered_a_moment_ago(
    worker: MeteringProcess, registry: RegistryFeed, owner: Owner
) -> None:
    for number in range(5):
        client_id = f"{number:020d}"
        await registry.register(client_id)
        assert (await owner.set(client_id, daily=1)).version == 1
    with pytest.raises(NotFound):
        await owner.set("z" * 20, daily=1)
    with pytest.raises(NotFound):
        await owner.set(N, daily=1)


async def test_a_command_is_answered_again_even_when_the_application_is_gone(
    nc: Client, worker: MeteringProcess, registry: RegistryFeed, owner: Owner
) -> None:
    first = await owner.set(daily=1, command_id="once")
    await registry.delete(A)

    async def gone() -> bool:
        try:
            await owner.ask(GetLimits, LimitsView, client_id=A)
        except NotFound:
            return True
        return False

    await eventually(gone, True)
    assert await owner.set(daily=1, command_id="once") == first
    with pytest.raises(NotFound):
        await owner.set(daily=1)
    bucket = await nc.jetstream().key_value("limits")

    async def shown() -> bool:
        try:
            await bucket.get(f"acme.{A}.csr")
        except KeyNotFoundError:
            return False
        return True

    await eventually(shown, False)


async def test_a_test_tier_ends_with_its_review(
    nc: Client, worker: MeteringProcess, registry: RegistryFeed, owner: Owner
) -> None:
    await registry.register("t" * 20, services=("clova-studio",), tier="test")

    async def limit() -> int | None:
        return (await usage(nc, "t" * 20, "clova-studio", period="monthly")).limit

    await eventually(limit, 100_000)
    await owner.set("t" * 20, service="clova-studio", monthly=500)
    assert await limit() == 500
    await owner.set("t" * 20, service="clova-studio", monthly=500_000)
    assert await limit() == 100_000
    await registry.publish(ServiceActivated(account="acme", client_id="t" * 20, service="clova-studio"))
    await eventually(limit, 500_000)


async def test_a_change_whose_time_came_while_metering_was_away_takes_effect_then(worker: MeteringProcess, owner: Owner) -> None:
    at = datetime.now(UTC) + timedelta(seconds=3)
    first = await owner.ask(ScheduleLimits, LimitsView, client_id=A, daily=7, effective_at=at)
    second = await owner.ask(
        ScheduleLimits, LimitsView, client_id=A, daily=8, effective_at=at + timedelta(microseconds=1), actor="member:m1"
    )
    never = await owner.ask(ScheduleLimits, LimitsView, client_id=A, daily=9, effective_at=at + timedelta(days=1))
    ids = [one.schedule_id for one in never.scheduled]
    assert ids[:1] == [one.schedule_id for one in first.scheduled]
    assert ids[:2] == [one.schedule_id for one in second.scheduled]
    await owner.ask(CancelSchedule, ScheduleCancelled, client_id=A, schedule_id=ids[2])
    worker.kill()
    await worker.start()

    async def in_force() -> tuple[int, int | None, int]:
        view = await owner.ask(GetLimits, LimitsView, client_id=A)
        return view.version, view.daily, len(view.scheduled)

    await eventually(in_force, (2, 8, 0))
    changes = (await owner.ask(ListLimitChanges, LimitChanges, client_id=A)).changes
    assert [(one.version, one.new["daily"], one.schedule_id, one.changed_by) for one in changes] == [
        (2, 8, ids[1], "member:m1"),
        (1, 7, ids[0], "token:t1"),
    ]
    with pytest.raises(Conflict):
        await owner.ask(CancelSchedule, ScheduleCancelled, client_id=A, schedule_id=ids[0])


async def test_two_workers_and_a_kill_tell_every_crossing_once(
    nc: Client, nats_url: str, schema: ServiceDsn, worker: MeteringProcess, owner: Owner, meter: Meter, tmp_path: Path
) -> None:
    other = MeteringProcess(nats_url, schema, tmp_path, "two")
    try:
        await other.start()
        await owner.set(daily=200, daily_thresholds=tuple(range(5, 105, 5)))
        for number in range(200):
            await meter.count(UsageRecord(A, "csr", now_us(), 1))
            if number == 100:
                worker.kill()
        await eventually(owner.told, [(A, 1, percent) for percent in range(5, 105, 5)])
    finally:
        other.kill()


async def test_a_rebuild_gives_the_same_tables_and_tells_nothing_again(
    nc: Client, worker: MeteringProcess, owner: Owner, meter: Meter, schema: ServiceDsn
) -> None:
    await owner.set(daily=10)
    await owner.set(B, monthly=10, monthly_thresholds=(50,))
    await owner.ask(SetAccountLimit, AccountLimitView, monthly=10)
    await meter.count(UsageRecord(A, "csr", now_us(), 4), UsageRecord(B, "csr", now_us(), 1))
    await eventually(lambda: used(nc, B), 1)
    await owner.set(daily=8, reason="lower")
    await owner.ask(ScheduleLimits, LimitsView, client_id=A, daily=1, effective_at=datetime.now(UTC) + timedelta(days=1))

    async def settled() -> bool:
        return not await rows(schema, "SELECT 1 FROM limit_mark") and len(await owner.told()) >= 10

    await eventually(settled, True)
    told = await owner.told()
    before = {table: await rows(schema, f"SELECT t::text FROM {table} AS t ORDER BY 1") for table in FOLDED}
    done = worker.run("--rebuild")
    assert done.returncode == 0, done.stderr
    assert b"app_limit, account_limit, limit_schedule, told, dead_letter_settled built again from" in done.stdout
    await eventually(lambda: used(nc, A), 4)
    await eventually(lambda: used(nc, B), 1)
    await eventually(settled, True)
    after = {table: await rows(schema, f"SELECT t::text FROM {table} AS t ORDER BY 1") for table in FOLDED}
    assert after == before
    await meter.count(UsageRecord(A, "csr", now_us(), 1))
    await eventually(lambda: used(nc, A), 5)
    await eventually(settled, True)
    new = (await owner.told())[len(told) :]
    assert all(version == 2 and percent > 50 for client_id, version, percent in new if client_id == A)
    verified = worker.run("--verify")
    assert b"every one as it was written" in verified.stdout
