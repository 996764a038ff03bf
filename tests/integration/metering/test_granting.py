"""Granting on a real PostgreSQL: what is counted and what is set aside never come above a limit together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random

import asyncpg
import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.metering.ends import Ends
from services.metering.guard import Guard
from shared.clock import FixedClock
from shared.commands.quota import Leased, Returned, Short, Undecided, Unlimited, Wish
from shared.errors import Unavailable
from shared.postgres import Pool, open_pool
from shared.streams.declare import ensure_stream, stream_state, usage_stream
from tests.support.quota_rows import (
    SERVICE,
    A,
    B,
    Wisher,
    above_limit,
    account_limit,
    count_units,
    granting_on,
    lease_rows,
    limit,
    open_accounts,
    recalls_heard,
)
from tests.support.spending import Crowd

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)


@pytest.fixture
async def pool(schema: ServiceDsn) -> AsyncIterator[Pool]:
    opened = await open_pool(schema.dsn, "metering", 20)
    yield opened
    await opened.close()


@pytest.fixture
async def connection(pool: Pool) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
    async with pool.acquire() as connection:
        await open_accounts(connection)
        yield connection


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def gate(pool: Pool, nc: Client, clock: FixedClock) -> Wisher:
    return Wisher(granting_on(pool, nc, clock), clock)


async def test_units_are_set_aside_extended_and_given_back(connection: asyncpg.pool.PoolConnectionProxy, gate: Wisher) -> None:
    assert await gate.wish() == Unlimited()
    await limit(connection, A, daily=100, monthly=1000)
    first = await gate.lease(wanted=10)
    assert (first.units, first.added, first.remaining, first.lease_s, first.margin_s) == (10, 10, 90, 10.0, 1.0)
    second = await gate.lease(wanted=30, lease=first.lease)
    assert (second.lease, second.units, second.added, second.remaining) == (first.lease, 40, 30, 60)
    await count_units(connection, A, NOW, 15, first.lease)
    assert await lease_rows(connection) == [(first.lease, 40, 15, None, None)]
    third, fourth = await gate.ask(
        gate.a_wish(wanted=1, lease=first.lease), gate.a_wish(client_id=B), returned=[Returned(first.lease, 20)]
    )
    assert isinstance(third, Leased)
    assert third.lease != first.lease, "a lease that was returned is not extended"
    assert third.remaining == 79, "15 are counted, 5 are on their way, 1 is set aside"
    assert fourth == Unlimited()
    await gate.ask(returned=[Returned(first.lease, 39)])
    assert (first.lease, 40, 15, 20, None) in await lease_rows(connection), "returning again changes nothing"


async def test_only_its_own_gate_returns_or_extends_a_lease(
    connection: asyncpg.pool.PoolConnectionProxy, gate: Wisher, pool: Pool, nc: Client, clock: FixedClock
) -> None:
    await limit(connection, A, daily=100)
    await limit(connection, B, daily=100)
    lease = (await gate.lease(wanted=10)).lease
    other = Wisher(granting_on(pool, nc, clock), clock, "gate-2", 1)
    assert (await other.lease(lease=lease)).lease != lease
    assert (await gate.lease(client_id=B, lease=lease)).lease != lease
    await other.ask(returned=[Returned(lease, 0)])
    clock.advance(86_400)
    assert (await gate.lease(lease=lease)).lease != lease, "a lease is of one day"
    assert (lease, 10, 0, None, None) in await lease_rows(connection)


async def test_a_lease_that_has_an_end_or_is_closed_is_not_extended(
    connection: asyncpg.pool.PoolConnectionProxy, gate: Wisher
) -> None:
    await limit(connection, A, daily=100)
    for change in ("end_sequence = 7", "closed_at = now()"):
        lease = (await gate.lease()).lease
        await connection.execute(f"UPDATE quota_lease SET {change} WHERE lease = $1", lease)
        assert (await gate.lease(lease=lease)).lease != lease


async def test_the_end_that_a_keeper_sets_between_reading_and_extending_is_respected(
    connection: asyncpg.pool.PoolConnectionProxy, gate: Wisher
) -> None:
    await limit(connection, A, daily=100)
    lease = (await gate.lease()).lease
    async with connection.transaction():
        await connection.execute("UPDATE quota_lease SET end_sequence = 7 WHERE lease = $1", lease)
        extending = asyncio.create_task(gate.lease(lease=lease))  # reads the row as it was, and waits to change it
        await asyncio.sleep(0.3)
        assert not extending.done()
    assert (await extending).lease != lease


async def test_near_the_end_shares_shrink_and_the_last_unit_is_granted(
    connection: asyncpg.pool.PoolConnectionProxy, pool: Pool, nc: Client, clock: FixedClock
) -> None:
    await limit(connection, A, monthly=40)
    gates = [Wisher(granting_on(pool, nc, clock), clock, f"gate-{n}") for n in range(3)]
    got = [(await gates[n % 3].lease(wanted=100)).added for n in range(13)]
    assert got == [20, 5, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert await above_limit(connection) == []


async def test_not_enough_is_recalled_or_marked_as_exhausted_once(
    connection: asyncpg.pool.PoolConnectionProxy, gate: Wisher, nc: Client, clock: FixedClock
) -> None:
    version = await limit(connection, A, daily=10)
    lease = (await gate.lease(needed=6)).lease
    async with recalls_heard(nc) as heard:
        for _ in range(3):
            answer = await gate.wish(needed=5)
            assert answer == Short("daily", 10, 0, datetime(2026, 11, 22, 15, tzinfo=UTC), 4, True)
        clock.advance(0.05)
        await gate.wish(needed=5)
        await nc.flush()
        await asyncio.sleep(0.1)
    assert heard == [{"account": "acme", "client_id": A, "service": SERVICE}] * 2
    assert await connection.fetchval("SELECT count(*) FROM exhausted_mark") == 0
    await count_units(connection, A, NOW, 6, lease)
    for needed in (5, 11):
        answer = await gate.wish(needed=needed)
        assert answer == Short("daily", 10, 6, datetime(2026, 11, 22, 15, tzinfo=UTC), 4, False)
    [mark] = await connection.fetch("SELECT * FROM exhausted_mark")
    assert (mark["client_id"], mark["period"], mark["version"], mark["used"], mark["quota"]) == (A, "d", version, 6, 10)
    await connection.execute("DELETE FROM exhausted_mark")
    await connection.execute(
        "INSERT INTO told VALUES ('acme', $1, 'csr', 'd', $2, $3, 60, true)", A, mark["window_start"], version
    )
    await gate.wish(needed=5)
    assert await connection.fetchval("SELECT count(*) FROM exhausted_mark") == 0, "it was told"


async def test_zero_blocks_and_the_test_quota_is_a_months_limit(
    connection: asyncpg.pool.PoolConnectionProxy, gate: Wisher
) -> None:
    await limit(connection, A, daily=0)
    assert isinstance(await gate.wish(), Short)
    await connection.execute("UPDATE app SET test_services = '{csr,clova-voice}' WHERE client_id = $1", B)
    assert (await gate.lease(client_id=B, wanted=5, needed=5)).remaining == 0
    answer = await gate.wish(client_id=B)
    assert isinstance(answer, Short)
    assert (answer.whose, answer.limit, answer.period) == ("test", 5, "monthly")
    assert await gate.wish(client_id=B, service="clova-voice") == Unlimited(), "the catalog has no test quota for it"


async def test_applications_of_one_account_share_its_limit(
    connection: asyncpg.pool.PoolConnectionProxy, pool: Pool, nc: Client, clock: FixedClock
) -> None:
    await account_limit(connection, 100)
    gates = [Wisher(granting_on(pool, nc, clock), clock, f"gate-{n}") for n in range(4)]
    await count_units(connection, A, NOW, 10)
    both = [gates[0].a_wish(A, 30, 30), gates[0].a_wish(B, 30, 30), gates[0].a_wish(A, 30, 30), gates[0].a_wish(B, 30, 30)]
    answers = await gates[0].ask(*both)
    assert [type(answer) for answer in answers] == [Leased, Leased, Leased, Short]
    await connection.execute("DELETE FROM quota_lease")
    answers = await asyncio.gather(*(gate.wish((A, B)[n % 2], 30, 30) for n, gate in enumerate(gates)))
    assert sorted(type(answer).__name__ for answer in answers) == ["Leased", "Leased", "Leased", "Short"]
    assert await above_limit(connection) == []


async def test_an_account_limit_that_comes_while_applications_are_known_without_one_holds_at_once(
    connection: asyncpg.pool.PoolConnectionProxy, pool: Pool, nc: Client, clock: FixedClock
) -> None:
    gates = [Wisher(granting_on(pool, nc, clock), clock, f"gate-{n}") for n in range(6)]
    for gate in gates:
        assert await gate.ask(gate.a_wish(A), gate.a_wish(B)) == (Unlimited(), Unlimited())
    await account_limit(connection, 10)
    answers = await asyncio.gather(*(gate.wish((A, B)[n % 2], 4, 4) for n, gate in enumerate(gates)))
    assert sum(answer.units for answer in answers if isinstance(answer, Leased)) == 8


async def test_what_cannot_be_decided_says_why(
    connection: asyncpg.pool.PoolConnectionProxy, gate: Wisher, clock: FixedClock
) -> None:
    await limit(connection, A, daily=10)
    far = Wish(A, SERVICE, 1, 1, NOW + timedelta(days=400_000))
    answers = await gate.ask(gate.a_wish("u" * 20), gate.a_wish("\0"), gate.a_wish(service="\0"), far, gate.a_wish())
    assert [type(answer) for answer in answers] == [Undecided] * 4 + [Leased]
    await connection.execute("UPDATE app SET services = '{}' WHERE client_id = $1", A)
    await connection.execute("UPDATE app SET deleted_at = now() WHERE client_id = $1", B)
    assert await gate.wish() == Undecided(f"the application {A} has not selected csr")
    assert await gate.wish(B) == Undecided(f"the application {B} was deleted")


async def test_nothing_is_granted_while_counters_may_be_too_low(
    connection: asyncpg.pool.PoolConnectionProxy, pool: Pool, nc: Client, clock: FixedClock
) -> None:
    await limit(connection, A, daily=10)
    guard = Guard(pool, Ends((), lambda: nc, clock), ("usage.records.0",))
    gate = Wisher(granting_on(pool, nc, clock, guard), clock)
    not_now = Undecided("counting is not up to date")
    assert await gate.wish() == not_now, "where USAGE ends is not known"
    assert await gate.wish(B) == Unlimited()
    guard.floor = {"usage.records.0": 7}
    assert await gate.wish() == not_now
    await connection.execute("INSERT INTO progress VALUES ('usage.records.0', 6, now(), 6)")
    assert await gate.wish() == not_now
    await connection.execute("UPDATE progress SET sequence = 9, told = 9")
    assert isinstance(await gate.wish(), Leased)
    await guard.look()
    assert guard.floor == {"usage.records.0": 9}
    await connection.execute("UPDATE progress SET sequence = 0, told = 0")  # counting again after another history of REGISTRY
    assert await gate.wish() == not_now
    await connection.execute("UPDATE progress SET sequence = 9, told = 10")
    assert await gate.wish() == not_now, "counting again has not come to where it was"


async def test_the_guard_marks_where_partitions_end_but_not_in_a_stream_without_what_was_counted(
    connection: asyncpg.pool.PoolConnectionProxy, pool: Pool, nc: Client, clock: FixedClock
) -> None:
    subjects = ("usage.records.0", "usage.records.1", "usage.cloudevents")
    guard = Guard(pool, Ends((), lambda: nc, clock), subjects)
    await guard.look()
    assert guard.floor is None, "there is no stream"
    await ensure_stream(nc, usage_stream())
    await nc.jetstream().publish("usage.cloudevents", b"anything")
    await connection.execute("INSERT INTO progress VALUES ('usage.records.1', 2, now(), 2)")
    await guard.look()
    state = await stream_state(nc, "USAGE")
    assert state is not None
    assert (guard.floor, state.last) == (None, 1), "NATS was restored from an older copy"
    await nc.jetstream().publish("usage.records.1", b"anything")
    for _ in range(3):
        await guard.look()
    assert guard.floor is not None
    assert guard.floor["usage.cloudevents"] == 1
    assert sorted(guard.floor.values()) == [1, 3, 4]


async def test_granting_waits_for_no_transaction_that_counts_other_leases(
    connection: asyncpg.pool.PoolConnectionProxy, gate: Wisher
) -> None:
    await limit(connection, A, daily=100)
    first = await gate.lease(wanted=10)
    async with connection.transaction():
        await connection.execute("UPDATE quota_lease SET counted = counted + 1 WHERE lease = $1", first.lease)
        other = await asyncio.wait_for(gate.lease(wanted=5), 5)
        extending = asyncio.create_task(gate.lease(wanted=5, lease=first.lease))
        await asyncio.sleep(0.1)
    assert (await extending).units == 15
    assert other.lease != first.lease


async def test_a_lost_database_is_told_as_unavailable(nc: Client, schema: ServiceDsn, clock: FixedClock) -> None:
    pool = await open_pool(schema.dsn, "metering", 2)
    gate = Wisher(granting_on(pool, nc, clock), clock)
    await pool.close()
    with pytest.raises(Unavailable):
        await gate.wish()


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_gates_do_at_once_no_limit_is_passed(
    connection: asyncpg.pool.PoolConnectionProxy, pool: Pool, nc: Client, seed: int
) -> None:
    """Several gates at several workers, across a midnight that does not exist (Santiago, 6 September 2026, 00:00 to 01:00)."""
    zone = "America/Santiago"
    await connection.execute("UPDATE account SET zone = $1", zone)
    crowd = Crowd(pool, nc, FixedClock(datetime(2026, 9, 6, 3, 59, 50, tzinfo=UTC)), zone, Random(seed))
    for _ in range(40):
        await crowd.step(connection)
    assert crowd.days_seen == 2
    assert crowd.granted > 0
    assert crowd.refused > 0
