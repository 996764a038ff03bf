"""The same records in any cut into transactions, with evaluators that look, die or start anew between them, tell the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.servers.roles import ServiceDsn
from services.metering import quota
from services.metering.evaluation import Evaluator
from shared.events.metering import ThresholdCrossed
from shared.events.usage import UsageRecord
from shared.postgres import Pool, open_pool
from shared.windows import civil, to_us
from tests.support.crashes import Tripwire, TripwirePool
from tests.support.limiting import NOON, Limiting, in_order, record, told_of

DAY: Final = civil("Asia/Seoul").day(NOON)
YESTERDAY: Final = civil("Asia/Seoul").previous("day", DAY)
MONTH: Final = civil("Asia/Seoul").month(NOON)
RUNGS: Final = (7, 10, 33, 50, 99, 100)
DAILY, MONTHLY, ACCOUNT = 50, 120, 200
NUMBERS = count(1)

ONE = st.tuples(
    st.integers(1, 40),
    st.sampled_from(["first", "second"]),
    st.sampled_from(["now", "late"]),
    st.sampled_from(["go on", "commit", "look", "restart", "crash"]),
    st.integers(1, 8),
    st.booleans(),
)
"""Units, of which application, whether its day is over, what happens then; where a crash comes, and whether after the deed."""


@pytest.fixture
async def pool(schema: ServiceDsn) -> AsyncIterator[Pool]:
    opened = await open_pool(schema.dsn, "metering")
    yield opened
    await opened.close()


async def new_account(limiting: Limiting) -> tuple[str, dict[str, str]]:
    """An account with two applications, all limited: each example has its own, for a log cannot be emptied."""
    number = next(NUMBERS)
    account, apps = f"account-{number}", {name: f"{name[0]}{number:019d}" for name in ("first", "second")}
    async with limiting.pool.acquire() as connection:
        await connection.execute("INSERT INTO account VALUES ($1, 'Asia/Seoul')", account)
        for client_id in apps.values():
            await connection.execute(
                "INSERT INTO app (client_id, account, services, registered_at, position) VALUES ($1, $2, '{csr}', $3, $4)",
                client_id,
                account,
                NOON,
                100 + number,
            )
    await limiting.set(
        apps["first"],
        account=account,
        daily=DAILY,
        monthly=MONTHLY,
        daily_thresholds=RUNGS,
        monthly_thresholds=RUNGS,
    )
    await limiting.set_account(account, monthly=ACCOUNT, monthly_thresholds=RUNGS)
    return account, apps


async def look_and_die(limiting: Limiting, at: int, after: bool) -> None:
    """A round that loses its connection at one of its steps."""
    wire = Tripwire(at, after=after)
    tripping: Any = TripwirePool(limiting.pool, wire)
    evaluator = Evaluator(tripping, limiting.log, limiting.clock)
    try:
        await evaluator.round()
    except ConnectionResetError:
        assert wire.tripped.is_set()


async def play(limiting: Limiting, apps: dict[str, str], steps: list[tuple[int, str, str, str, int, bool]]) -> None:
    collected: list[UsageRecord] = []
    for units, name, when, then, at, after in steps:
        occurred = NOON if when == "now" else YESTERDAY.end - timedelta(hours=1)
        collected.append(record(apps[name], to_us(occurred), units))
        if then == "go on":
            continue
        await limiting.count(*collected)
        collected.clear()
        if then == "look":
            await limiting.evaluate()
        elif then == "restart":
            limiting.evaluator = limiting.another_evaluator()
        elif then == "crash":
            await look_and_die(limiting, at, after)
    if collected:
        await limiting.count(*collected)
    for _ in range(3):
        await limiting.evaluate()


def expected(account: str, apps: dict[str, str], steps: list[tuple[int, str, str, str, int, bool]]) -> set[tuple[Any, ...]]:
    """What is to be told in the end: the rungs that units have come to which were counted while their window was open."""
    today = sum(units for units, name, when, *_ in steps if name == "first" and when == "now")
    month = sum(units for units, name, *_ in steps if name == "first")
    whole = sum(units for units, *_ in steps)
    scopes = [
        (apps["first"], "daily", DAY.start, today, DAILY),
        (apps["first"], "monthly", MONTH.start, month, MONTHLY),
        ("", "monthly", MONTH.start, whole, ACCOUNT),
    ]
    return {
        (client_id, "csr", period, start, 1, percent)
        for client_id, period, start, units, limit in scopes
        for percent in quota.crossed(units, limit, RUNGS, 0)
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(ONE, min_size=1, max_size=12))
async def test_any_cut_with_any_restarts_tells_the_same(pool: Pool, steps: list[tuple[int, str, str, str, int, bool]]) -> None:
    limiting = Limiting(pool)
    account, apps = await new_account(limiting)
    await play(limiting, apps, steps)
    told = [
        told_of(event) for event in await limiting.events() if isinstance(event, ThresholdCrossed) and event.account == account
    ]
    assert in_order(told), told
    assert set(told) == expected(account, apps, steps)
    assert await limiting.marks() == 0
