"""Crossings: each once, whatever the order of things, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from deploy.servers.roles import ServiceDsn
from shared.events.metering import Passed
from shared.postgres import Pool, open_pool
from shared.windows import civil, to_us
from tests.support.limiting import NOON, A, B, Limiting, N, in_order, record

DAY = civil("Asia/Seoul").day(NOON)
MONTH = civil("Asia/Seoul").month(NOON)
ALL = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]


@pytest.fixture
async def pool(schema: ServiceDsn) -> AsyncIterator[Pool]:
    opened = await open_pool(schema.dsn, "metering")
    yield opened
    await opened.close()


@pytest.fixture
async def limiting(pool: Pool) -> Limiting:
    return await Limiting(pool).begin()


async def test_usage_that_jumps_over_several_rungs_tells_each_of_them_in_order(limiting: Limiting) -> None:
    await limiting.set(daily=100, monthly=1000, monthly_thresholds=(5, 50))
    await limiting.use(9)
    await limiting.evaluate()
    assert await limiting.told() == []
    await limiting.use(46)
    await limiting.evaluate()
    assert await limiting.percents() == [10, 20, 30, 40, 50]
    [month] = [event for event in await limiting.crossings() if event.period == "monthly"]
    assert (month.percent, month.used, month.limit, month.limit_version) == (5, 55, 1000, 1)
    assert (month.window_start, month.window_end) == MONTH
    await limiting.use(445)
    await limiting.evaluate()
    assert await limiting.percents() == ALL
    assert await limiting.percents("monthly") == [5, 50]
    assert in_order(await limiting.told())
    assert await limiting.marks() == 0


async def test_a_scope_has_one_stream_for_what_is_told_and_one_for_what_is_decided(limiting: Limiting) -> None:
    await limiting.set(daily=10)
    await limiting.set_account(monthly=10)
    await limiting.use(1)
    await limiting.evaluate()
    streams = [event.stream for event in await limiting.recorded()]
    assert sorted(streams) == ["account-limit/acme/csr", "account-thresholds/acme/csr", f"limit/{A}/csr", f"thresholds/{A}/csr"]
    async with limiting.pool.acquire() as connection:
        assert await limiting.log.verify(connection) == 4


async def test_nothing_is_told_of_a_limit_of_zero_and_of_none(limiting: Limiting) -> None:
    await limiting.set(daily=0)
    await limiting.set_account(monthly=0)
    await limiting.use(5)
    await limiting.evaluate()
    assert await limiting.told() == []
    assert await limiting.marks() == 0


async def test_a_raised_limit_tells_only_the_rungs_above_usage(limiting: Limiting) -> None:
    await limiting.set(daily=100)
    await limiting.use(60)
    await limiting.evaluate()
    await limiting.set(daily=200)
    await limiting.evaluate()
    assert await limiting.percents() == [10, 20, 30, 40, 50, 60]
    await limiting.use(21)
    await limiting.evaluate()
    assert (await limiting.told())[6:] == [(A, "csr", "daily", DAY.start, 2, 40)]


async def test_a_lowered_limit_tells_what_is_passed_now_once(limiting: Limiting) -> None:
    await limiting.set(daily=100)
    await limiting.use(35)
    await limiting.evaluate()
    await limiting.set(daily=50)
    for _ in range(2):
        await limiting.evaluate()
        assert await limiting.percents() == [10, 20, 30, 40, 50, 60, 70]
    assert {event.limit_version for event in await limiting.crossings() if event.percent > 30} == {2}


async def test_a_new_version_begins_with_what_was_told_before(limiting: Limiting) -> None:
    await limiting.set(daily=100)
    await limiting.use(35)
    await limiting.evaluate()
    await limiting.set(daily=70, monthly=100)
    changed = (await limiting.events())[-1]
    assert changed.passed == (  # type: ignore[union-attr]
        Passed("daily", DAY.start, 30),
        Passed("monthly", MONTH.start, 0),
    )
    await limiting.set(daily=1000, monthly=2000)
    changed = (await limiting.events())[-1]
    assert changed.passed[0] == Passed("daily", DAY.start, 3)  # type: ignore[union-attr]


async def test_a_first_limit_tells_what_is_passed_already(limiting: Limiting) -> None:
    await limiting.use(35)
    await limiting.set(daily=100)
    await limiting.evaluate()
    assert await limiting.percents() == [10, 20, 30]


async def test_the_accounts_limit_is_over_all_of_its_applications(limiting: Limiting) -> None:
    await limiting.set_account(monthly=100)
    await limiting.use(25, A)
    await limiting.use(25, B)
    await limiting.use(1000, N)
    await limiting.evaluate()
    assert [event.percent for event in await limiting.crossings()] == [10, 20, 30, 40, 50]
    assert {(event.client_id, event.used) for event in await limiting.crossings()} == {("", 50)}


async def test_accounts_limits_wait_for_their_turn_applications_do_not(limiting: Limiting) -> None:
    await limiting.set(daily=100)
    await limiting.set_account(monthly=100)
    await limiting.use(10)
    await limiting.evaluate()
    await limiting.use(10)
    await limiting.evaluator.round()
    assert await limiting.percents() == [10, 20]
    assert await limiting.percents("monthly", "") == [10]
    await limiting.evaluate()
    assert await limiting.percents("monthly", "") == [10, 20]


async def test_late_records_do_not_fire_a_closed_window(limiting: Limiting) -> None:
    await limiting.set(daily=100, monthly=1000)
    yesterday = DAY.start - timedelta(hours=1)
    await limiting.use(100, at=yesterday)
    await limiting.evaluate()
    assert await limiting.percents() == []
    assert await limiting.percents("monthly") == [10]


async def test_what_was_counted_in_time_is_told_even_when_nobody_looked_before_the_end(limiting: Limiting) -> None:
    await limiting.set(daily=100)
    await limiting.use(50)
    limiting.clock.advance(24 * 3600)
    await limiting.use(50, at=NOON)
    await limiting.evaluate()
    assert await limiting.percents() == [10, 20, 30, 40, 50]
    assert {event.window_start for event in await limiting.crossings()} == {DAY.start}


async def test_a_limit_that_is_younger_than_a_windows_end_tells_nothing_of_it(limiting: Limiting) -> None:
    await limiting.set(daily=100)
    await limiting.use(50)
    limiting.clock.advance(24 * 3600)
    await limiting.set(daily=60)
    await limiting.evaluate()
    assert await limiting.percents() == []
    assert await limiting.marks() == 0


async def test_a_window_that_begins_within_minutes_is_looked_at_too(limiting: Limiting) -> None:
    last_minute = DAY.end - timedelta(minutes=1)
    limiting.clock.advance((last_minute - NOON).total_seconds())
    await limiting.use(50, at=DAY.end + timedelta(minutes=1))
    await limiting.set(daily=100)
    await limiting.evaluate()
    assert [(event.window_start, event.percent) for event in await limiting.crossings()] == [(DAY.end, p) for p in ALL[:5]]


async def test_counting_marks_a_window_only_when_it_comes_to_a_rung_that_was_not_told(limiting: Limiting) -> None:
    await limiting.set(daily=99, daily_thresholds=(50, 90))
    await limiting.evaluate()
    for units, told in ((49, []), (1, [50]), (39, [50]), (1, [50, 90]), (500, [50, 90])):
        before = await limiting.percents()
        await limiting.use(units)
        assert await limiting.marks() == (told != before)
        await limiting.evaluate()
        assert (await limiting.percents(), await limiting.marks()) == (told, 0)
    await limiting.set_account(monthly=10**6)
    await limiting.evaluate()
    await limiting.use(1)
    assert await limiting.marks() == 1, "other applications may bring the account there at the same time"


async def test_two_counts_at_once_that_come_to_a_rung_together(limiting: Limiting, pool: Pool) -> None:
    await limiting.set(daily=100, daily_thresholds=(50,))
    other = Limiting(pool)
    async with pool.acquire() as first:
        transaction = first.transaction()
        await transaction.start()
        await limiting.handle(first, [record(A, to_us(NOON), 30)])
        second = asyncio.create_task(other.use(30))
        await limiting.evaluate()
        assert not second.done(), "it waits for the counters"
        await transaction.commit()
    await second
    await limiting.evaluate()
    assert await limiting.percents() == [50]


async def test_two_evaluators_at_once_tell_everything_once(limiting: Limiting) -> None:
    await limiting.set(daily=200)
    await limiting.set_account(monthly=400)
    evaluators = [limiting.another_evaluator() for _ in range(4)]
    for _ in range(20):
        await limiting.use(10)
        limiting.clock.advance(1)
        await asyncio.gather(*(evaluator.round() for evaluator in evaluators))
    assert await limiting.percents() == ALL
    assert await limiting.percents("monthly", "") == ALL[:5]
    async with limiting.pool.acquire() as connection:
        await limiting.log.verify(connection)


async def test_more_windows_than_one_look_takes(limiting: Limiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.metering.evaluation.MARKS_MAX", 2)
    for client_id, account in ((A, "acme"), (B, "acme"), (N, "globex")):
        await limiting.set(client_id, account=account, daily=10, monthly=10)
        await limiting.use(10, client_id)
    await limiting.evaluate()
    assert len(await limiting.told()) == 60
    assert await limiting.marks() == 0


async def test_a_count_that_does_not_see_a_new_limit_is_looked_at_when_it_has_ended(limiting: Limiting) -> None:
    async with limiting.pool.acquire() as counting:
        transaction = counting.transaction()
        await transaction.start()
        await limiting.handle(counting, [record(A, to_us(limiting.clock.now()), 50)])
        await limiting.set_account(monthly=100)
        for _ in range(3):
            await limiting.evaluate()
        assert await limiting.told() == []
        assert await limiting.marks() == 1, "it stays, for the count is not over"
        await transaction.commit()
    await limiting.evaluate()
    assert await limiting.percents("monthly", "") == ALL[:5]
    await limiting.evaluate()
    assert await limiting.marks() == 0


async def test_also_a_count_that_began_between_the_limits_mark_and_its_commit(limiting: Limiting, pool: Pool) -> None:
    """The count's transaction is younger than the mark, and still does not see the limit."""
    async with pool.acquire() as deciding, pool.acquire() as counting:
        held = deciding.transaction()
        await held.start()
        await deciding.execute("INSERT INTO app_limit VALUES ($1, 'csr', 'acme', 1, 100, NULL, '{50}', '{50}', $2)", A, NOON)
        await deciding.execute("INSERT INTO limit_mark VALUES ('acme', $1, 'csr', 'd', $2)", A, DAY.start)
        async with pool.acquire() as other:
            await other.execute("INSERT INTO rollover VALUES ('UTC', $1)", NOON)  # takes a number of its own
        count = counting.transaction()
        await count.start()
        await limiting.handle(counting, [record(A, to_us(NOON), 50)])
        await held.commit()
        for _ in range(3):
            await limiting.evaluate()
        await count.commit()
    await limiting.evaluate()
    assert await limiting.percents() == [50]


async def test_limits_and_counts_at_once_never_miss_a_crossing(limiting: Limiting) -> None:
    async def counting() -> None:
        for _ in range(30):
            await limiting.use(1)
            await asyncio.sleep(0)

    async def limiting_more() -> None:
        for daily in range(60, 30, -1):
            await limiting.set(daily=daily)

    async def evaluating() -> None:
        evaluator = limiting.another_evaluator()
        for _ in range(40):
            await evaluator.round()
            await asyncio.sleep(0.002)

    await asyncio.gather(counting(), limiting_more(), evaluating())
    await limiting.evaluate()
    await limiting.evaluate()
    told = await limiting.told()
    assert in_order(told)
    async with limiting.pool.acquire() as connection:
        percent, version = await connection.fetchrow("SELECT percent, version FROM told ORDER BY version DESC LIMIT 1")
    assert (version, percent) == (30, 90), "30 of 31 units"


async def test_an_exhaustion_is_told_once_for_each_version(limiting: Limiting) -> None:
    async def refused(version: int, limit: int) -> None:
        async with limiting.pool.acquire() as connection:
            await connection.execute(
                "INSERT INTO exhausted_mark VALUES ('acme', $1, 'csr', 'm', $2, $3, $4, 10, $5) ON CONFLICT DO NOTHING",
                A, MONTH.start, MONTH.end, version, limit,
            )  # fmt: skip

    for version in (1, 1, 0, 2, 1, 0):
        await refused(version, 10 * version)
        await limiting.evaluate()
    assert [event.limit_version for event in await limiting.exhaustions()] == [1, 0, 2]
    first = (await limiting.exhaustions())[0]
    assert (first.account, first.client_id, first.period, first.used, first.limit) == ("acme", A, "monthly", 10, 10)
    assert (first.window_start, first.window_end) == MONTH
    async with limiting.pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM exhausted_mark") == 0


async def test_in_another_zone_days_are_other_days(limiting: Limiting) -> None:
    await limiting.set(N, account="globex", daily=10)
    await limiting.use(10, N)
    await limiting.evaluate()
    day = civil("America/New_York").day(NOON)
    assert {(event.window_start, event.window_end) for event in await limiting.crossings()} == {(day.start, day.end)}
