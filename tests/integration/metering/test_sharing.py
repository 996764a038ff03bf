"""Leases, new days and forgetting, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from deploy.servers.roles import ServiceDsn
from services.metering import partitions as leases
from services.metering.housekeeping import forget, open_days
from services.metering.partitions import Partitions
from shared.clock import SystemClock
from shared.postgres import Pool, open_pool
from shared.windows import civil
from tests.support.metering_process import eventually

NAMES = [f"usage.records.{number:02d}" for number in range(16)] + ["usage.cloudevents", "REGISTRY", "housekeeping", "keeper"]


class Recorder:
    """A part that remembers whether it was begun."""

    def __init__(self) -> None:
        self.begun = False

    async def begin(self) -> None:
        assert not self.begun
        self.begun = True

    async def end(self) -> None:
        assert self.begun
        self.begun = False


@pytest.fixture
async def pool(schema: ServiceDsn) -> AsyncIterator[Pool]:
    opened = await open_pool(schema.dsn, "metering")
    yield opened
    await opened.close()


def worker(pool: Pool, name: str) -> tuple[Partitions, dict[str, Recorder]]:
    parts = {part: Recorder() for part in NAMES}
    return Partitions(pool, name, parts, SystemClock()), parts


def begun(parts: dict[str, Recorder]) -> set[str]:
    return {name for name, part in parts.items() if part.begun}


async def test_workers_come_to_hold_everything_between_them_and_nothing_twice(pool: Pool) -> None:
    workers = [worker(pool, f"w{number}") for number in range(4)]
    await workers[0][0].beat()
    assert begun(workers[0][1]) == set(NAMES)
    for _ in range(3):
        for sharing, _ in workers:
            await sharing.beat()
    held = [begun(parts) for _, parts in workers]
    assert set().union(*held) == set(NAMES)
    assert sum(map(len, held)) == len(NAMES)
    assert max(map(len, held)) - min(map(len, held)) <= 1 + len(NAMES) % 4
    assert all(parts_of.readiness().ready for parts_of, _ in workers)


async def test_what_a_dead_worker_held_is_taken_when_it_has_expired_and_a_slow_one_lets_go(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY_S", 0.5)
    (slow, slow_parts), (other, other_parts) = worker(pool, "slow"), worker(pool, "other")
    await slow.beat()
    await other.beat()
    assert begun(other_parts) == set()
    await asyncio.sleep(0.6)
    await other.beat()
    assert begun(other_parts) == set(NAMES)
    await slow.beat()  # it was only slow: it sees that it has lost everything
    assert begun(slow_parts) == set()


async def test_a_worker_that_is_cancelled_gives_back(pool: Pool) -> None:
    sharing, parts = worker(pool, "w")
    running = asyncio.create_task(sharing.run())
    await eventually(lambda: asyncio.sleep(0, begun(parts)), set(NAMES))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert begun(parts) == set()
    next_one, next_parts = worker(pool, "next")
    await next_one.beat()
    assert begun(next_parts) == set(NAMES)


async def test_a_new_day_marks_the_zones_applications_once(pool: Pool) -> None:
    now = datetime(2026, 11, 22, 6, tzinfo=UTC)  # an hour into New York's day, nine before Seoul's next
    async with pool.acquire() as connection:
        await connection.execute("INSERT INTO account VALUES ('acme', 'Asia/Seoul'), ('globex', 'America/New_York')")
        await connection.execute(
            "INSERT INTO app SELECT n || repeat('x', 19), a, '{csr,ocr}', now(), NULL, 1"
            " FROM (VALUES ('a', 'acme'), ('g', 'globex')) AS v(n, a)"
        )

        async def marked(at: datetime) -> list[str]:
            await connection.execute("DELETE FROM kv_dirty")
            await open_days(connection, at)
            return [row["key"] for row in await connection.fetch("SELECT key FROM kv_dirty ORDER BY key")]

        a, g = "acme.a" + "x" * 19, "globex.g" + "x" * 19
        assert await marked(now) == [f"{a}.csr", f"{a}.ocr", f"{g}.csr", f"{g}.ocr"]
        assert await marked(now + timedelta(hours=1)) == []
        assert await marked(civil("Asia/Seoul").day(now).end) == [f"{a}.csr", f"{a}.ocr"]
        assert await marked(now) == [], "a clock that goes back opens no day again"


async def test_what_is_too_old_to_be_repeated_is_forgotten(pool: Pool) -> None:
    counted_at = datetime(2020, 5, 1, tzinfo=UTC)  # USAGE is being counted again: what matters is how far that has come
    async with pool.acquire() as connection:
        for subject in ("usage.records.3", "usage.cloudevents"):
            await connection.execute("INSERT INTO progress VALUES ($1, 9, $2, 9)", subject, counted_at)
        for name, age in (("old", 37), ("young", 35)):
            recorded_at = counted_at - timedelta(days=age)
            await connection.execute(
                "INSERT INTO publisher_position VALUES ($1, 3, 1, false, $2, '{}', ''), ($1, 4, 1, false, $2, '{}', '')",
                name,
                recorded_at,
            )
            await connection.execute("INSERT INTO counted_event VALUES ($1, '', $2)", name.encode(), recorded_at)
        await forget(connection)
        positions = await connection.fetch("SELECT publisher, partition FROM publisher_position ORDER BY 1, 2")
        assert [tuple(row) for row in positions] == [("old", 4), ("young", 3), ("young", 4)]
        assert [row["key"] for row in await connection.fetch("SELECT key FROM counted_event")] == [b"young"]
