"""Closing quota leases, on a real PostgreSQL and JetStream, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest
from nats.aio.client import Client
from prometheus_client import CollectorRegistry

from deploy.servers.roles import ServiceDsn
from services.metering import keeper as keeping
from services.metering.ends import Ends
from services.metering.keeper import Keeper
from services.metering.lapses import LapsedPlace, LeaseUse
from services.metering.lease_counts import count_leases, keep_lapsed, read_lapses
from services.metering.metrics import QuotaMetrics
from shared.clock import FixedClock
from shared.commands.quota import Returned
from shared.postgres import Pool, open_pool
from shared.streams.declare import ensure_stream, usage_stream
from shared.streams.message import Message
from shared.windows import civil, to_us
from tests.support.quota_rows import A, Wisher, count_units, granting_on, lease_rows, limit, open_accounts

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
PARTITION = "usage.records.0"
Connection = asyncpg.pool.PoolConnectionProxy


@pytest.fixture
async def pool(schema: ServiceDsn) -> AsyncIterator[Pool]:
    opened = await open_pool(schema.dsn, "metering")
    yield opened
    await opened.close()


@pytest.fixture
async def connection(pool: Pool, nc: Client) -> AsyncIterator[Connection]:
    stream = usage_stream(1)
    stream.subjects = ["usage.>"]
    await ensure_stream(nc, stream)
    async with pool.acquire() as connection:
        await open_accounts(connection)
        await limit(connection, A, daily=100)
        yield connection


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def gate(pool: Pool, nc: Client, clock: FixedClock) -> Wisher:
    return Wisher(granting_on(pool, nc, clock), clock)


class _Kept:
    """A keeper, and what a test does to it."""

    def __init__(self, pool: Pool, nc: Client, clock: FixedClock) -> None:
        self.registry = CollectorRegistry()
        self.ends = Ends((), lambda: nc, clock)
        self.keeper = Keeper(pool, self.ends, 10.0, 1.0, QuotaMetrics(self.registry), clock)
        self._clock = clock

    async def after(self, seconds: float) -> None:
        self._clock.advance(seconds)
        await self.keeper.look()

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"tollbook_metering_quota_{name}")


@pytest.fixture
def kept(pool: Pool, nc: Client, clock: FixedClock) -> _Kept:
    return _Kept(pool, nc, clock)


async def reach(connection: Connection, sequence: int) -> None:
    """What counting a message does to the progress."""
    await connection.execute(
        "INSERT INTO progress VALUES ($1, $2, now(), $2) ON CONFLICT (subject) DO UPDATE SET sequence = excluded.sequence",
        PARTITION, sequence,
    )  # fmt: skip


async def publish(nc: Client) -> int:
    return (await nc.jetstream().publish(PARTITION, b"anything")).seq


async def stored(nc: Client) -> int:
    """How many messages USAGE has."""
    return (await nc.jetstream().stream_info("USAGE")).state.messages


async def test_a_lease_is_closed_when_it_is_over_and_its_partition_is_counted_to_the_end_it_had_then(
    connection: Connection, gate: Wisher, nc: Client, kept: _Kept
) -> None:
    lease = (await gate.lease(wanted=40)).lease
    await publish(nc)
    await kept.after(0)
    await kept.after(10.9)
    assert await lease_rows(connection) == [(lease, 40, 0, None, None)]
    end = await publish(nc) + 1
    await kept.after(0.1)
    await publish(nc)
    assert await lease_rows(connection) == [(lease, 40, 0, None, end)]
    assert (kept.metric("leases_open"), kept.metric("units_set_aside")) == (1, 40)
    await reach(connection, end - 1)
    await kept.after(1)
    assert await lease_rows(connection) == [(lease, 40, 0, None, end)], "an end that was found first stays"
    await reach(connection, end)
    await kept.after(1)
    assert await lease_rows(connection) == []
    assert (await gate.lease()).remaining == 99
    assert kept.metric("leases_closed_total") == 1


async def test_an_extension_starts_the_time_anew_even_while_the_end_is_looked_up(
    connection: Connection, gate: Wisher, kept: _Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = (await gate.lease()).lease
    await kept.after(0)
    await kept.after(10)
    await gate.lease(lease=lease)
    await kept.after(1)
    await kept.after(10)
    assert await lease_rows(connection, "end_sequence, extensions") == [(None, 1)]
    look_up = kept.ends.end

    async def slowly(subject: str) -> int | None:
        found = await look_up(subject)
        await gate.lease(lease=lease)
        return found

    monkeypatch.setattr(kept.ends, "end", slowly)
    await kept.after(1)
    assert await lease_rows(connection, "end_sequence, extensions") == [(None, 2)]


async def test_a_returned_lease_is_closed_when_what_was_spent_is_counted(
    connection: Connection, gate: Wisher, kept: _Kept
) -> None:
    lease = (await gate.lease(wanted=40)).lease
    await gate.ask(returned=[Returned(lease, 7)])
    await count_units(connection, A, NOW, 5, lease)
    await kept.after(0)
    assert await lease_rows(connection) == [(lease, 40, 5, 7, None)]
    await count_units(connection, A, NOW, 2, lease)
    await kept.after(0)
    assert await lease_rows(connection) == []
    assert (await gate.lease()).remaining == 92
    await count_units(connection, A, NOW, -3, lease)  # taken back afterwards: only the counter goes down
    assert (await gate.lease()).remaining == 94
    assert await connection.fetchval("SELECT end_sequence FROM quota_lease WHERE lease = $1", lease) is None


async def test_what_was_spent_and_never_comes_is_given_up_when_the_lease_is_over(
    connection: Connection, gate: Wisher, kept: _Kept, nc: Client
) -> None:
    lease = (await gate.lease(wanted=40)).lease
    await gate.ask(returned=[Returned(lease, 7)])
    await count_units(connection, A, NOW, 5, lease)
    await count_units(connection, A, NOW, -1, lease)
    await kept.after(0)
    await kept.after(11)
    await reach(connection, 1)
    await kept.after(0)
    assert await lease_rows(connection) == []
    assert (await gate.lease()).remaining == 95


async def test_another_keeper_starts_its_own_timers_and_two_do_no_harm(
    connection: Connection, gate: Wisher, kept: _Kept, pool: Pool, nc: Client, clock: FixedClock
) -> None:
    await gate.lease()
    other = _Kept(pool, nc, clock)
    await kept.after(0)
    await kept.after(10)
    await other.after(0)
    await other.after(2)
    assert await lease_rows(connection, "end_sequence") == [(None,)]
    await kept.after(0)
    await other.after(0)
    assert await lease_rows(connection, "end_sequence") == [(1,)]
    await reach(connection, 1)
    await other.after(0)
    assert await lease_rows(connection) == []
    await gate.lease()
    await kept.after(0)
    clock.advance(20)
    await kept.keeper.begin()
    await kept.after(0)
    assert await lease_rows(connection, "end_sequence") == [(None,)]


async def test_an_end_costs_one_message_for_each_partition_and_then_none(
    connection: Connection, gate: Wisher, pool: Pool, kept: _Kept, nc: Client, clock: FixedClock
) -> None:
    neighbour = Wisher(granting_on(pool, nc, clock), clock, "gate-2", partition=1)
    for one in (gate, gate, neighbour):
        await one.lease()
    for _ in range(4):
        await kept.after(2)
    assert await stored(nc) == 0, "no lease is over"
    for _ in range(4):
        await kept.after(2)
    assert await stored(nc) == 2
    await gate.lease()
    await kept.after(0)
    await kept.after(11)
    assert await stored(nc) == 3
    for _ in range(10):
        await kept.after(60)
    assert await stored(nc) == 3, "counting stalls, which no message mends"
    await reach(connection, 3)
    await connection.execute("INSERT INTO progress VALUES ('usage.records.1', 3, now(), 3)")
    for _ in range(10):
        await kept.after(60)
    assert await lease_rows(connection) == []
    assert await stored(nc) == 3


async def test_a_stream_that_is_not_there_closes_nothing_and_one_that_was_made_again_does(
    connection: Connection, gate: Wisher, kept: _Kept, nc: Client
) -> None:
    await gate.lease()
    await kept.after(0)
    for _ in range(5):
        end = await publish(nc)
    await reach(connection, end - 2)
    await kept.after(11)
    assert await lease_rows(connection, "end_sequence") == [(end + 1,)]
    await nc.jetstream().delete_stream("USAGE")
    await kept.after(1)
    assert await lease_rows(connection, "end_sequence") == [(end + 1,)]
    stream = usage_stream(1, first_seq=end - 1)
    stream.subjects = ["usage.>"]
    await ensure_stream(nc, stream)
    for _ in range(3):
        await kept.after(1)
    assert await lease_rows(connection, "end_sequence") == [(end - 1,)]
    await reach(connection, end - 1)
    await kept.after(1)
    assert await lease_rows(connection) == []
    assert await stored(nc) == 1


async def test_an_end_that_was_found_stays_whoever_says_that_there_is_less(
    connection: Connection, gate: Wisher, kept: _Kept, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that was cut off says so; the marker then goes to it as well, or to the one that has been chosen."""
    await gate.lease()
    await kept.after(0)
    await kept.after(11)

    async def old(subject: str) -> int | None:
        return 0

    async def unacknowledged(subject: str) -> int | None:
        return None

    monkeypatch.setattr(kept.ends, "newest", old)
    await kept.after(1)
    assert await lease_rows(connection, "end_sequence") == [(1,)]
    assert await stored(nc) == 2
    monkeypatch.setattr(kept.ends, "end", unacknowledged)
    await kept.after(1)
    assert await lease_rows(connection, "end_sequence") == [(1,)]


async def test_counting_sees_a_lease_that_was_closed_since_it_was_looked_at(
    connection: Connection, gate: Wisher, kept: _Kept, nc: Client
) -> None:
    lease = (await gate.lease(wanted=40)).lease
    day_start_us = to_us(civil("Asia/Seoul").day(NOW).start)
    use = LeaseUse(lease, gate.publisher, PARTITION, A, "csr", day_start_us)
    messages = [Message("USAGE", PARTITION, sequence, {}, b"", NOW) for sequence in (3, 4)]
    assert not (await read_lapses(connection, [use], messages)).any()
    assert await count_leases(connection, {use: 4, use._replace(client_id="b" * 20): 7, use._replace(day_start_us=0): 9}) == {}
    await reach(connection, 2)
    await connection.execute("UPDATE quota_lease SET end_sequence = 2, closed_at = now()")
    assert await count_leases(connection, {use: 4}) == {(lease, PARTITION): 2}
    lapses = await read_lapses(connection, [use], messages)
    assert lapses == ({(lease, gate.publisher, PARTITION): 2}, {PARTITION: 2}, frozenset())
    place = LapsedPlace(PARTITION, 4, 1)
    await keep_lapsed(connection, [place, place])
    await connection.execute("UPDATE progress SET sequence = 4, told = 4")
    assert await read_lapses(connection, [use], messages) == ({}, {PARTITION: 4}, {place})
    assert not (await read_lapses(connection, [use], messages[:1])).any()
    assert await connection.fetchval("SELECT counted FROM quota_lease") == 8


async def test_very_many_leases_have_their_turn_in_several_rounds(
    connection: Connection, gate: Wisher, kept: _Kept, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LEASES_MAX", 3)
    await limit(connection, A, daily=100_000)
    for _ in range(8):
        await gate.lease()
    for _ in range(3):
        await kept.after(0)
    assert kept.metric("leases_open") == 8
    for _ in range(4):
        await kept.after(11)
    await reach(connection, await stored(nc))
    for _ in range(3):
        await kept.after(0)
    assert await lease_rows(connection) == []


async def test_closed_leases_are_forgotten_after_a_day(connection: Connection, gate: Wisher, kept: _Kept) -> None:
    await gate.ask(returned=[Returned((await gate.lease()).lease, 0)])
    await kept.after(0)
    await kept.after(86_399)
    assert await connection.fetchval("SELECT count(*) FROM quota_lease") == 1
    await kept.after(61)
    assert await connection.fetchval("SELECT count(*) FROM quota_lease") == 0
