"""Limits as commands and queries decide them, on a real PostgreSQL and without the process around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from deploy.servers.roles import ServiceDsn
from services.metering.limit_queries import limits_keys, limits_values
from services.metering.limits_of import limits_of
from services.metering.queries import dashboard_values
from shared.commands.limits import (
    AccountLimitView,
    CancelSchedule,
    GetAccountLimit,
    GetLimits,
    LimitsView,
    ListLimitChanges,
    ScheduleAccountLimit,
    ScheduleCancelled,
    ScheduleLimits,
)
from shared.errors import CommandReused, Conflict, InvalidInput, NotFound
from shared.events.metering import RUNGS, LimitChanged
from shared.ids import new_id
from shared.postgres import Pool, open_pool
from tests.support.limiting import CATALOG, NOON, A, B, Limiting, N


@pytest.fixture
async def pool(schema: ServiceDsn) -> AsyncIterator[Pool]:
    opened = await open_pool(schema.dsn, "metering")
    yield opened
    await opened.close()


@pytest.fixture
async def limiting(pool: Pool) -> Limiting:
    return await Limiting(pool).begin()


async def get(limiting: Limiting, client_id: str = A, service: str = "csr", account: str = "acme") -> LimitsView:
    return await limiting.handlers.get_limits(GetLimits(account=account, client_id=client_id, service=service))


async def get_account(limiting: Limiting, service: str = "csr", account: str = "acme") -> AccountLimitView:
    return await limiting.handlers.get_account_limit(GetAccountLimit(account=account, service=service))


async def schedule(limiting: Limiting, in_s: float, actor: str = "member:m1", **fields: Any) -> LimitsView:
    return await limiting.handlers.schedule_limits(
        ScheduleLimits(
            command_id=new_id(),
            actor=actor,
            account="acme",
            client_id=A,
            service="csr",
            effective_at=limiting.clock.now() + timedelta(seconds=in_s),
            **fields,
        )
    )


async def cancel(limiting: Limiting, schedule_id: str, **fields: Any) -> ScheduleCancelled:
    given = {"client_id": A, "account": "acme", **fields}
    return await limiting.handlers.cancel_schedule(
        CancelSchedule(command_id=new_id(), actor="token:t2", service="csr", schedule_id=schedule_id, **given)
    )


async def test_set_changed_and_removed(limiting: Limiting) -> None:
    assert (await get(limiting)).version == 0
    first = await limiting.set(daily=100, monthly=1000)
    assert first == await get(limiting)
    limiting.clock.advance(60)
    second = await limiting.set(daily=200, daily_thresholds=(90, 50), expected_version=1)
    assert (second.version, second.daily, second.monthly, second.daily_thresholds) == (2, 200, None, (50, 90))
    assert second.changed_at == NOON + timedelta(seconds=60)
    assert second == await get(limiting)
    assert await limiting.set(daily=200, daily_thresholds=(50, 90)) == second, "the same amounts again"
    removed = await limiting.set()
    assert (removed.version, removed.daily, removed.daily_thresholds) == (3, None, RUNGS)
    assert removed == await get(limiting)
    assert [event.version for event in await limiting.events() if isinstance(event, LimitChanged)] == [1, 2, 3]


async def test_a_wish_on_an_older_version_is_a_conflict(limiting: Limiting) -> None:
    await limiting.set(daily=100)
    with pytest.raises(Conflict, match="at version 1, not 0"):
        await limiting.set(daily=50, expected_version=0)
    results = await asyncio.gather(
        *(limiting.set(daily=daily, expected_version=1) for daily in (1, 2, 3)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "Conflict", "LimitsView"]


async def test_a_command_id_gives_the_first_reply_again(limiting: Limiting) -> None:
    first = await limiting.set(daily=100, command_id="once")
    await limiting.set(daily=200)
    assert await limiting.set(daily=100, command_id="once") == first
    with pytest.raises(CommandReused):
        await limiting.set(daily=101, command_id="once")
    assert (await get(limiting)).daily == 200


async def test_others_applications_services_and_accounts(limiting: Limiting) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await limiting.set(A, "clova-voice", daily=1)
    assert [problem.field for problem in refusal.value.fields] == ["service"]
    with pytest.raises(InvalidInput, match="rules named"):
        await get(limiting, A, "no-such")
    with pytest.raises(InvalidInput):
        await limiting.set_account(service="no-such", monthly=1)
    with pytest.raises(InvalidInput):
        await get_account(limiting, "no-such")
    assert await limiting.recorded() == []


async def test_an_account_has_a_limit_of_its_own(limiting: Limiting) -> None:
    assert (await get_account(limiting)).version == 0
    view = await limiting.set_account(monthly=500, monthly_thresholds=(80,))
    assert (view.version, view.monthly, view.monthly_thresholds) == (1, 500, (80,))
    assert await get_account(limiting) == view
    assert (await get_account(limiting, account="globex")).version == 0
    assert (await get(limiting)).version == 0


async def test_the_history_says_who_when_from_what_to_what_and_why(limiting: Limiting) -> None:
    for number in range(1, 6):
        await limiting.set(daily=number, actor=f"token:t{number}", reason=f"for {number}")
        limiting.clock.advance(60)
    page = await limiting.handlers.list_changes(ListLimitChanges(account="acme", client_id=A, service="csr", limit=2))
    assert [change.version for change in page.changes] == [5, 4]
    assert page.next_before == 4
    newest = page.changes[0]
    assert (newest.changed_by, newest.reason, newest.changed_at) == ("token:t5", "for 5", NOON + timedelta(seconds=240))
    assert newest.new == {"daily": 5, "monthly": None, "daily_thresholds": list(RUNGS), "monthly_thresholds": list(RUNGS)}
    assert newest.old == {**newest.new, "daily": 4}
    rest = await limiting.handlers.list_changes(
        ListLimitChanges(account="acme", client_id=A, service="csr", limit=20, before=page.next_before)
    )
    assert [change.version for change in rest.changes] == [3, 2, 1]
    assert (rest.next_before, rest.changes[-1].old) == (None, None)
    exactly = await limiting.handlers.list_changes(ListLimitChanges(account="acme", client_id=A, service="csr", limit=5))
    assert exactly.next_before is None


async def test_the_history_of_an_account_and_of_nothing(limiting: Limiting) -> None:
    await limiting.set_account(monthly=5)
    page = await limiting.handlers.list_changes(ListLimitChanges(account="acme", service="csr"))
    assert page.changes[0].new == {"monthly": 5, "monthly_thresholds": list(RUNGS)}
    assert (await limiting.handlers.list_changes(ListLimitChanges(account="globex", service="csr"))).changes == ()
    assert (await limiting.handlers.list_changes(ListLimitChanges(account="acme", client_id=A, service="csr"))).changes == ()
    with pytest.raises(InvalidInput):
        await limiting.handlers.list_changes(ListLimitChanges(account="acme", service="no-such"))


async def test_a_scheduled_change_takes_effect_at_its_time_once(limiting: Limiting) -> None:
    await limiting.set(daily=100)
    await schedule(limiting, 60, daily=50, reason="the night")
    assert [view.daily for view in (await get(limiting)).scheduled] == [50]
    assert await limiting.due() == 0
    limiting.clock.advance(60)
    assert sum(await asyncio.gather(limiting.due(), limiting.due(), limiting.due())) == 1
    now = await get(limiting)
    assert (now.version, now.daily, now.scheduled, now.changed_at) == (2, 50, (), NOON + timedelta(seconds=60))
    [change, _] = (await limiting.handlers.list_changes(ListLimitChanges(account="acme", client_id=A, service="csr"))).changes
    assert (change.changed_by, change.reason) == ("member:m1", "the night")
    assert change.schedule_id is not None
    assert await limiting.due() == 0


async def test_changes_that_are_overdue_take_effect_in_the_order_of_their_time(limiting: Limiting) -> None:
    for in_s, daily in ((300, 3), (100, 1), (200, 2), (100, 11)):
        await schedule(limiting, in_s, daily=daily)
    await limiting.handlers.schedule_account_limit(
        ScheduleAccountLimit(
            command_id="c", actor="token:t1", account="acme", service="csr", monthly=9, effective_at=NOON + timedelta(seconds=150)
        )
    )
    limiting.clock.advance(10_000)
    assert await limiting.due() == 5
    changed = [event for event in await limiting.events() if isinstance(event, LimitChanged)]
    assert [event.daily for event in changed if event.daily not in (1, 11)] == [2, 3]
    assert {event.daily for event in changed[:2]} == {1, 11}
    assert [event.version for event in changed] == [1, 2, 3, 4]
    assert (await get_account(limiting)).monthly == 9


async def test_a_scheduled_change_tells_what_it_passes(limiting: Limiting) -> None:
    await limiting.set(daily=100)
    await limiting.use(30)
    await limiting.evaluate()
    await schedule(limiting, 60, daily=50)
    limiting.clock.advance(60)
    await limiting.due()
    await limiting.evaluate()
    assert await limiting.percents() == [10, 20, 30, 40, 50, 60]


async def test_a_scheduled_change_can_be_cancelled_until_it_takes_effect(limiting: Limiting) -> None:
    view = await schedule(limiting, 60, daily=50)
    await schedule(limiting, 90, daily=60)
    wanted = view.scheduled[0].schedule_id
    with pytest.raises(NotFound):
        await cancel(limiting, wanted, client_id=None)
    with pytest.raises(NotFound):
        await cancel(limiting, wanted, account="globex")
    for _ in range(2):
        assert (await cancel(limiting, wanted)).schedule_id == wanted
    [left] = (await get(limiting)).scheduled
    limiting.clock.advance(100)
    assert await limiting.due() == 1
    assert (await get(limiting)).daily == 60
    with pytest.raises(Conflict, match="has taken effect"):
        await cancel(limiting, left.schedule_id)


async def test_the_limits_of_many_scopes_in_one_query(limiting: Limiting) -> None:
    await limiting.set(daily=10, monthly=200_000)
    await limiting.set(A, "clova-studio", monthly=200_000)
    await limiting.set_account(monthly=300)
    async with limiting.pool.acquire() as connection:
        found = await limits_of(connection, [(A, "csr"), (A, "clova-studio"), (B, "csr"), (N, "csr"), ("z" * 20, "csr")])
    assert set(found) == {(A, "csr"), (A, "clova-studio"), (B, "csr"), (N, "csr")}
    first = found[A, "csr"]
    assert (first.account, first.zone, first.test) == ("acme", "Asia/Seoul", False)
    assert (first.version, first.daily, first.monthly) == (1, 10, 200_000)
    assert (first.account_version, first.account_monthly) == (1, 300)
    studio = found[A, "clova-studio"]
    assert (studio.test, studio.effective("monthly", 100_000), studio.effective("daily", 100_000)) == (True, 100_000, None)
    assert (found[B, "csr"].version, found[B, "csr"].account_monthly) == (0, 300)
    assert (found[N, "csr"].account_version, found[N, "csr"].zone) == (0, "America/New_York")


async def test_the_test_quota_is_shown_until_the_review(limiting: Limiting) -> None:
    assert (await get(limiting, A, "clova-studio")).test_quota == 100_000
    assert (await get(limiting)).test_quota is None
    async with limiting.pool.acquire() as connection:
        await connection.execute("UPDATE app SET test_services = '{}'")
    assert (await get(limiting, A, "clova-studio")).test_quota is None


async def test_what_dashboards_see(limiting: Limiting) -> None:
    await limiting.set(daily=10)
    await limiting.set_account(monthly=300)
    await schedule(limiting, 60, daily=50)
    async with limiting.pool.acquire() as connection:
        keys = await limits_keys(connection)
        values = await limits_values(CATALOG)(connection, [*keys, f"acme.{B}.csr"])
        used = await dashboard_values(CATALOG, limiting.clock)(connection, [f"acme.{A}.csr", f"acme.{A}.clova-studio"])
    assert keys == sorted([f"acme.{A}.csr", "acme.account.csr"])
    assert values[f"acme.{B}.csr"] is None
    own = msgspec.json.decode(values[f"acme.{A}.csr"] or b"")
    assert (own["client_id"], own["service"], own["unit"], own["daily"], own["version"]) == (A, "csr", "second15", 10, 1)
    assert (own["position"], own["scheduled"][0]["daily"]) == (3, 50)
    account = msgspec.json.decode(values["acme.account.csr"] or b"")
    assert (account["monthly"], account["monthly_thresholds"], account["version"]) == (300, list(RUNGS), 1)
    usage = {key: msgspec.json.decode(value or b"") for key, value in used.items()}
    assert usage[f"acme.{A}.csr"]["daily"]["limit"] == 10
    assert usage[f"acme.{A}.csr"]["monthly"]["limit"] is None
    assert usage[f"acme.{A}.clova-studio"]["monthly"]["limit"] == 100_000


async def test_the_log_verifies_and_reasons_and_actors_are_in_it(limiting: Limiting) -> None:
    await limiting.set(daily=10, actor="member:m7", reason="why not")
    await limiting.use(5)
    await limiting.evaluate()
    events = await limiting.recorded()
    assert {msgspec.json.decode(event.meta)["actor"] for event in events} == {"member:m7", "service:metering"}
    async with limiting.pool.acquire() as connection:
        assert await limiting.log.verify(connection) == len(events)
