"""Shelves of counters on a real PostgreSQL: made before they are needed, dropped when they are old, nothing lost by either."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.metering import retention
from services.metering.app import PROGRAM
from services.metering.growth import App, Count, CounterKey, Group, Growth, Source
from services.metering.retention import Policy, Retention
from services.metering.shelves import Shelf, Shelves, kept_since, make_shelves, shelf_of
from shared.clock import SystemClock
from shared.errors import Unavailable
from shared.events.usage import UsageRecord
from shared.postgres import Connection, Pool, migrate, open_pool, read_migrations
from shared.windows import SLOT_US, civil, from_us, to_us
from tests.support.metering_process import Meter, MeteringProcess, eventually, now_us, rows, used
from tests.support.servers import PostgresDatabase

A, B = "a" * 20, "b" * 20
APPS = {A: App("acme", civil("Asia/Seoul")), B: App("globex", civil("America/New_York"))}
LONG_AGO = datetime(2019, 12, 1, tzinfo=UTC)
COLUMNS = "client_id, service, period, window_start, calls, units, late_units, after_close_units"
ALL = f"SELECT {COLUMNS} FROM counter ORDER BY 1, 2, 3, 4"
SUMS = "SELECT period, sum(calls)::int, sum(units)::int FROM counter GROUP BY period ORDER BY period"


@pytest.fixture
async def pool(schema: ServiceDsn) -> AsyncIterator[Pool]:
    opened = await open_pool(schema.dsn, "metering")
    yield opened
    await opened.close()


@pytest.fixture
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    async with pool.acquire() as found:
        yield found


def growth(*times: datetime) -> dict[CounterKey, Count]:
    """What one call of three units at each of these times lets grow, for each application."""
    grown = Growth(APPS)
    for at in times:
        minute = to_us(at) // SLOT_US
        for client_id in APPS:
            grown.add(Group(client_id, "csr", "", "", minute, Source(minute, "", "")), 1, 3, to_us(at))
    return grown.counters


def each_six_hours(first: datetime, days: int) -> list[datetime]:
    return [first + timedelta(hours=6 * step) for step in range(days * 4)]


async def shelves_of(schema: ServiceDsn, period: str) -> list[str]:
    query = "SELECT right(relname, 7) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'counter\\_' || $1 || '\\_%' ORDER BY 1"
    return [row[0] for row in await rows(schema, query, period)]


async def counted_now(connection: Connection) -> None:
    """As if USAGE were counted up to now, and the registry had made the applications."""
    await connection.execute("INSERT INTO account VALUES ('acme', 'Asia/Seoul')")
    await connection.execute(
        "INSERT INTO app (client_id, account, services, registered_at, position)"
        " SELECT unnest($1::text[]), 'acme', '{}', now(), 1", list(APPS),
    )  # fmt: skip
    await connection.execute("INSERT INTO progress VALUES ('usage.records.0', 9, now(), 9)")


async def keep(retention: Retention, connection: Connection) -> None:
    while await retention.step(connection):
        pass


async def test_counters_of_before_are_moved_and_counting_goes_on(postgres: PostgresDatabase) -> None:
    dsn = await postgres.service_schema("metering", [])
    migrations = read_migrations(*PROGRAM.migrations)
    new = next(place for place, one in enumerate(migrations) if one.name.startswith("metering/0004"))
    await migrate(dsn.owner_dsn, "metering", "metering", migrations[:new])
    connection = await asyncpg.connect(dsn.dsn, server_settings={"search_path": "metering"})
    try:
        counters = growth(datetime(2024, 2, 29, 23, 59, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
        for key, count in counters.items():
            values = (*key[:3], from_us(key.window_start_us), count.calls, count.units, count.late_units, 1)
            await connection.execute(f"INSERT INTO counter ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", *values)
        before = await rows(dsn, ALL)
        assert len(before) == len(counters)
        await migrate(dsn.owner_dsn, "metering", "metering", migrations)
        assert await rows(dsn, ALL) == before
        await Shelves().add_counts(connection, counters)  # adds to what there was
        assert [row[5] for row in await rows(dsn, ALL)] == [2 * row[5] for row in before]
    finally:
        await connection.close()


async def test_a_record_never_fails_for_a_missing_shelf(schema: ServiceDsn, connection: Connection) -> None:
    turn = datetime(2031, 1, 1, tzinfo=UTC)
    times = [turn - timedelta(microseconds=1), turn, turn - timedelta(days=35), turn - timedelta(days=3000)]
    shelves = Shelves()
    failing = connection.transaction()
    await failing.start()
    await shelves.add_counts(connection, growth(*times))
    await failing.rollback()  # and with it the shelves that it made
    with pytest.raises(Unavailable):
        await shelves.add_counts(connection, growth(*times))
    await shelves.add_counts(connection, growth(*times))
    await shelves.add_counts(connection, growth(*times))
    assert await rows(schema, SUMS) == [(period, 16, 48) for period in "dhm"]
    assert {"2030_11", "2030_12", "2031_01"} <= set(await shelves_of(schema, "h"))


async def test_two_workers_make_the_same_shelf_at_once(pool: Pool, schema: ServiceDsn, connection: Connection) -> None:
    async with pool.acquire() as other:
        begun = other.transaction()
        await begun.start()
        await make_shelves(other, [shelf_of("h", LONG_AGO)])
        await connection.execute("SET lock_timeout = '50ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await make_shelves(connection, [shelf_of("h", LONG_AGO)])
        await begun.commit()
    await make_shelves(connection, [shelf_of("h", LONG_AGO)])
    assert (await shelves_of(schema, "h")).count("2019_12") == 1


async def test_the_service_itself_may_change_no_table_and_drop_nothing_recent(connection: Connection) -> None:
    await make_shelves(connection, [shelf_of("h", LONG_AGO)])
    for statement in (
        "DROP TABLE counter_h_2019_12",
        "CREATE TABLE t (n int)",
        "TRUNCATE counter",
        "UPDATE kept SET since = now()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    last_month = shelf_of("h", datetime.now(UTC).replace(day=1) - timedelta(days=1))
    with pytest.raises(asyncpg.RaiseError, match="may be dropped"):
        await connection.execute("SELECT drop_shelf($1, $2)", *last_month)


async def test_old_hours_go_and_then_old_days_and_what_they_counted_stays(
    schema: ServiceDsn, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await counted_now(connection)
    writing = Shelves()
    counters = growth(*each_six_hours(LONG_AGO, 95), datetime.now(UTC))
    await writing.add_counts(connection, counters)
    before = {row[0]: row for row in await rows(schema, SUMS)}
    now = datetime.now(UTC)
    months = (now.year - 2020) * 12 + now.month - 1
    # Kept are hours from February 2020, and days from January.
    await keep(Retention(Policy(months - 1, months), SystemClock()), connection)
    assert (await shelves_of(schema, "h"))[0] == "2020_02"
    assert (await shelves_of(schema, "d"))[0] == "2020_01"
    kept = await kept_since(connection)
    assert kept == (datetime(2020, 2, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))
    since = {"h": to_us(kept.hours), "d": to_us(kept.days), "m": 0}
    there = {row[:3]: row[3] for row in await rows(schema, "SELECT client_id, period, window_start, calls FROM counter")}
    assert there == {
        (key.client_id, key.period, from_us(key.window_start_us)): count.calls
        for key, count in counters.items()
        if key.window_start_us >= since[key.period]
    }
    assert "the hours of 2019-12 were dropped" in caplog.text
    assert "all of them in the days" in caplog.text

    late = growth(LONG_AGO, datetime(2020, 2, 2, tzinfo=UTC))
    with pytest.raises(Unavailable):
        await writing.add_counts(connection, late)  # it remembers the shelf
    await writing.add_counts(connection, late)
    await writing.add_counts(connection, late)
    assert (await shelves_of(schema, "h"))[0] == "2020_02", "what is not kept comes on no shelf"
    after = {row[0]: row for row in await rows(schema, SUMS)}
    assert after["m"] == ("m", before["m"][1] + 8, before["m"][2] + 24)
    assert after["h"][1] == sum(calls for key, calls in there.items() if key[1] == "h") + 4, "those of February"


async def test_hours_that_are_not_in_the_days_are_not_dropped(
    schema: ServiceDsn, connection: Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAGE", 1)
    await counted_now(connection)
    await Shelves().add_counts(connection, growth(*each_six_hours(LONG_AGO, 31)))
    spoil = "UPDATE counter SET units = units + $3 WHERE client_id = $1 AND period = 'h' AND window_start = $2"
    await rows(schema, spoil, B, LONG_AGO + timedelta(days=9), 1)
    await keep(Retention(Policy(), SystemClock()), connection)
    assert (await shelves_of(schema, "h"))[0] == "2019_12"
    assert f"those of {B} csr are not what its days count" in caplog.text
    assert "the hours of 2019-12 are NOT dropped" in caplog.text
    await rows(schema, spoil, B, LONG_AGO + timedelta(days=9), -1)
    days = await rows(schema, "DELETE FROM counter WHERE client_id = $1 AND period = 'd' RETURNING *", A)
    await keep(Retention(Policy(), SystemClock()), connection)
    assert (await shelves_of(schema, "h"))[0] == "2019_12"
    for row in days:
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        await rows(schema, f"INSERT INTO counter VALUES ({places})", *row)
    await keep(Retention(Policy(), SystemClock()), connection)
    assert "2019_12" not in await shelves_of(schema, "h")


async def test_nothing_is_old_before_it_is_counted_and_dropping_waits_for_no_one(
    pool: Pool, schema: ServiceDsn, connection: Connection
) -> None:
    await make_shelves(connection, [shelf_of("h", LONG_AGO)])
    await keep(Retention(Policy(), SystemClock()), connection)
    assert "2019_12" in await shelves_of(schema, "h"), "nothing is counted yet: this may be the beginning of counting again"
    await counted_now(connection)
    keeping = Retention(Policy(), SystemClock())
    async with pool.acquire() as other, other.transaction():
        await Shelves().add_counts(other, growth(datetime.now(UTC)))
        with pytest.raises(asyncpg.LockNotAvailableError):
            await keep(keeping, connection)
        assert await keeping.step(connection), "it is left for a while, not tried again and again"
    await keep(Retention(Policy(), SystemClock()), connection)
    assert "2019_12" not in await shelves_of(schema, "h")


async def test_a_worker_goes_on_when_shelves_vanish_and_counting_again_keeps_what_the_policy_keeps(
    nc: Client, schema: ServiceDsn, worker: MeteringProcess, meter: Meter
) -> None:
    late = now_us() - 34 * 86_400_000_000
    await meter.count(UsageRecord(A, "csr", now_us(), 2), UsageRecord(A, "csr", late, 5))
    await eventually(lambda: used(nc, A), 2)
    hours = "SELECT sum(units)::int FROM counter WHERE client_id = $1 AND period = 'h'"
    assert await rows(schema, hours, A) == [(7,)]
    shelf = Shelf("h", shelf_of("h", from_us(late)).first)
    await rows(schema, "UPDATE kept SET since = shelf_end($1, $2) WHERE period = 'h'", *shelf)
    await rows(schema, f"DROP TABLE counter_h_{shelf.first:%Y_%m}")
    await meter.count(UsageRecord(A, "csr", now_us(), 2), UsageRecord(A, "csr", late, 5))
    await eventually(lambda: used(nc, A), 4)
    days = "SELECT sum(units)::int FROM counter WHERE client_id = $1 AND period = 'd'"
    assert await rows(schema, days, A) == [(14,)]
    assert await rows(schema, hours, A) == [(4,)]
    for period, at in (("h", LONG_AGO), ("h", LONG_AGO + timedelta(days=40)), ("d", LONG_AGO.replace(year=2010))):
        await rows(schema, "SELECT make_shelf($1, $2)", period, at)
    done = worker.run("--rebuild")
    assert done.returncode == 0, done.stderr
    await eventually(lambda: rows(schema, days, A), [(14,)])
    assert await rows(schema, hours, A) == [(14,)], "the policy keeps these hours: they were counted again"
    assert min(await shelves_of(schema, "h")) > "2020", "what it does not keep has no shelf"
    assert min(await shelves_of(schema, "d")) > "2011"
