"""Deciding on a real PostgreSQL: once, together, and whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from deploy.servers.roles import ServiceDsn
from shared.clock import FixedClock, SystemClock
from shared.errors import CommandReused, Conflict, TollbookError, Unavailable
from shared.eventlog.changes import Change, update
from shared.eventlog.log import Head, Placed
from shared.eventlog.rebuild import rebuild
from shared.eventlog.transact import Transactor
from shared.postgres import Pool, open_pool
from tests.support.crashes import until
from tests.support.ledger import Bowl, Ledger, LedgerEvent, Take, decide_take, evolve, ledger_schema, project
from tests.support.servers import PostgresDatabase, PostgresProcess


@pytest.fixture
async def dsn(postgres: PostgresDatabase) -> ServiceDsn:
    return await ledger_schema(postgres)


@pytest.fixture
async def pool(dsn: ServiceDsn) -> AsyncIterator[Pool]:
    pool = await open_pool(dsn.dsn, "ledger", 4)
    yield pool
    await pool.close()


async def events(pool: Pool) -> list[tuple[str, int]]:
    return [(row["type"], row["version"]) for row in await pool.fetch("SELECT * FROM event ORDER BY position")]


async def test_a_command_appends_projects_and_replies_at_once(pool: Pool) -> None:
    ledger = Ledger(pool)
    assert await ledger.add("c1", 5) == Bowl(bowl="blue", count=5, all_bowls=5)
    assert await pool.fetchval("SELECT count FROM bowl") == 5
    assert ledger.wakes == 1


async def test_the_same_command_again_gives_the_first_reply_and_appends_nothing(pool: Pool) -> None:
    ledger = Ledger(pool)
    first = await ledger.add("c1", 5)
    await ledger.add("c2", 7)
    assert await ledger.add("c1", 5) == first
    assert await Ledger(pool).add("c1", 5) == first
    assert len(await events(pool)) == 2


async def test_the_same_id_for_another_wish_is_refused(pool: Pool) -> None:
    ledger = Ledger(pool)
    await ledger.add("c1", 5)
    with pytest.raises(CommandReused):
        await ledger.add("c1", 6)
    with pytest.raises(CommandReused):
        await ledger.take("c1", 5)
    assert (await ledger.add("c1", 5, account="other")).count == 10


async def test_a_refused_command_may_be_tried_again_with_its_id(pool: Pool) -> None:
    ledger = Ledger(pool)
    with pytest.raises(Conflict):
        await ledger.take("t1", 1)
    await ledger.add("c1", 1)
    assert (await ledger.take("t1", 1)).count == 0


async def test_while_the_guard_says_no_nothing_is_done_and_the_same_id_may_come_again(pool: Pool) -> None:
    ledger = Ledger(pool)
    await ledger.add("c1", 5)
    asked: list[int] = []

    def refuse(head: Head) -> None:
        asked.append(head.position)
        raise Unavailable("Nothing was done: a test.")

    guarded = Ledger(pool, guard=refuse)
    answers = await asyncio.gather(*(guarded.add(f"c{n}", 1) for n in (1, 2, 3)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["Nothing was done: a test."] * 3
    assert set(asked) == {1}
    assert len(await events(pool)) == 1
    assert await pool.fetchval("SELECT count(*) FROM command") == 1
    assert (await ledger.add("c2", 1)).count == 6


async def test_waiting_commands_share_transactions_and_see_each_other(pool: Pool) -> None:
    ledger = Ledger(pool)
    replies = await asyncio.gather(*(ledger.add(f"c{n}", 1, bowl=f"b{n % 3}") for n in range(200)))
    assert sorted(reply.all_bowls for reply in replies) == list(range(1, 201))
    transactions = await pool.fetchval("SELECT count(DISTINCT xmin::text) FROM event")
    assert transactions < 20
    async with pool.acquire() as connection:
        assert await ledger.log.verify(connection) == 200


async def test_a_decision_may_begin_streams_besides_its_own(pool: Pool) -> None:
    ledger = Ledger(pool)
    assert await ledger.split("c1", 5, "red") == Bowl(bowl="blue", count=5, all_bowls=8)
    rows = await pool.fetch("SELECT stream, version, meta->>'command_id' AS command FROM event ORDER BY position")
    assert [tuple(row) for row in rows] == [("bowl/blue", 1, "c1"), ("bowl/red", 1, "c1")]
    assert await pool.fetchval("SELECT count FROM bowl WHERE bowl = 'red'") == 3
    with pytest.raises(Conflict):
        await ledger.split("c2", 5, "red")
    assert len(await events(pool)) == 2


async def test_repetitions_that_wait_together_are_one(pool: Pool) -> None:
    ledger = Ledger(pool)
    replies = await asyncio.gather(*(ledger.add(f"c{n % 5}", 2) for n in range(50)))
    assert len(await events(pool)) == 5
    assert len({reply.count for reply in replies}) == 5


async def test_a_refusal_disturbs_none_that_wait_with_it(pool: Pool) -> None:
    ledger = Ledger(pool)
    wishes = [ledger.add(f"c{n}", -1 if n % 4 == 0 else 1) for n in range(40)]
    outcomes = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 10
    assert await pool.fetchval("SELECT count FROM bowl") == 30


async def test_only_the_command_that_the_database_rejects_fails(pool: Pool) -> None:
    ledger = Ledger(pool)
    wishes = [ledger.add(f"c{n}", 2_000_000 if n == 7 else 1, bowl=f"b{n}") for n in range(20)]
    outcomes = await asyncio.gather(*wishes, return_exceptions=True)
    failed = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)]
    assert failed == [7]
    assert isinstance(outcomes[7], asyncpg.CheckViolationError)
    async with pool.acquire() as connection:
        assert await ledger.log.verify(connection) == 19


async def test_two_processes_take_turns(dsn: ServiceDsn, pool: Pool) -> None:
    other_pool = await open_pool(dsn.dsn, "ledger", 4)
    try:
        one, two = Ledger(pool), Ledger(other_pool)
        await asyncio.gather(*(ledger.add(f"{name}{n}", 1) for n in range(60) for name, ledger in (("a", one), ("b", two))))
        async with pool.acquire() as connection:
            assert await one.log.verify(connection) == 120
        assert await pool.fetchval("SELECT count FROM bowl") == 120
    finally:
        await other_pool.close()


async def blocked(pool: Pool, count: int) -> None:
    """Wait until so many statements wait for a lock of somebody else's."""
    waiting = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"

    async def enough() -> bool:
        return bool(await pool.fetchval(waiting) >= count)

    await until(enough, f"{count} statements to wait for a lock")


async def test_what_somebody_else_appends_meanwhile_is_decided_on(dsn: ServiceDsn, pool: Pool) -> None:
    ledger, other = Ledger(pool), Ledger(pool)
    await ledger.add("c1", 5)
    async with pool.acquire() as connection, connection.transaction():
        take = Take(command_id="t1", account="acme", actor="test", bowl="blue", count=4)
        assert (await other.transactor.run_in(connection, take, "bowl/blue", 0, evolve, decide_take(take), Bowl)).count == 1
        late = asyncio.create_task(ledger.take("t2", 3))  # reads five pebbles
        await blocked(pool, 1)
    with pytest.raises(Conflict, match="not so many"):
        await late
    assert (await ledger.take("t3", 1)).count == 0
    assert await events(pool) == [("PebblesAdded", 1), ("PebblesTaken", 2), ("PebblesTaken", 3)]
    assert await pool.fetchval("SELECT count FROM bowl") == 0


async def test_a_command_during_a_rebuild_finds_the_rows_that_it_made(dsn: ServiceDsn, pool: Pool) -> None:
    ledger = Ledger(pool)
    await ledger.add("c1", 5)
    fill = update("bowl", {"bowl": "text"}, {"count": "bigint", "position": "bigint"})

    def filled(recorded: Placed, event: LedgerEvent) -> list[Change]:
        return [Change(fill, (event.bowl, 99, recorded.position), event.bowl)]

    transactor = Transactor(pool, ledger.log, ledger.vault, filled, SystemClock())
    take = Take(command_id="t1", account="acme", actor="test", bowl="blue", count=4)
    async with pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("SELECT FROM bowl FOR UPDATE")  # the rebuild stops where it deletes the row
            rebuilt = asyncio.create_task(rebuild(dsn.owner_dsn, "ledger", ledger.log, project, ["bowl"]))
            await blocked(pool, 1)
            taken = asyncio.create_task(transactor.run(take, "bowl/blue", 0, evolve, decide_take(take), Bowl))
            await blocked(pool, 2)
        assert await rebuilt == 1
        assert (await taken).count == 1
    assert await pool.fetchval("SELECT count FROM bowl") == 99


async def test_a_reply_with_a_secret_is_stored_sealed_and_forgotten_in_time(pool: Pool) -> None:
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    ledger = Ledger(pool, clock)
    await ledger.add("c1", 5)
    first = await ledger.take("t1", 1, note="open sesame")
    assert await ledger.take("t1", 1, note="open sesame") == first
    stored = await pool.fetch("SELECT * FROM command, vault")
    assert "sesame" not in repr(stored)
    clock.advance(25 * 3600)
    await ledger.add("c2", 1)
    with pytest.raises(Conflict, match="no longer kept"):
        await ledger.take("t1", 1, note="open sesame")
    assert (await ledger.add("c1", 5)).count == 5, "a reply without a secret stays"
    assert await pool.fetchval("SELECT count FROM bowl") == 5


async def test_shredding_a_secret_forgets_the_reply_that_showed_it(pool: Pool) -> None:
    ledger = Ledger(pool)
    await ledger.add("c1", 5)
    await ledger.take("t1", 1, note="open sesame")
    async with pool.acquire() as connection:
        await ledger.vault.shred(connection, "note:t1")
    with pytest.raises(Conflict, match="no longer kept"):
        await ledger.take("t1", 1, note="open sesame")


class Crash(Exception):
    """Not one of the passing errors: the process is gone at this point."""


class CrashingConnection:
    """A connection whose k-th round trip fails: before it reaches the server, or after it did its work."""

    def __init__(self, connection: Any, plan: CrashPlan) -> None:
        self._connection = connection
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._connection, name)
        if name == "transaction":
            return lambda: CrashingTransaction(attribute(), self._plan)
        if name not in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
            return attribute

        async def counted(*args: Any, **kwargs: Any) -> Any:
            self._plan.tick(before=True)
            result = await attribute(*args, **kwargs)
            self._plan.tick(before=False)
            return result

        return counted


class CrashingTransaction:
    """A transaction that is lost before its COMMIT arrives, or whose COMMIT is done but never answered."""

    def __init__(self, transaction: Any, plan: CrashPlan) -> None:
        self._transaction, self._plan = transaction, plan

    async def __aenter__(self) -> None:
        await self._transaction.__aenter__()

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            try:
                self._plan.tick(before=True)
            except Crash as crash:
                await self._transaction.__aexit__(Crash, crash, None)
                raise
        await self._transaction.__aexit__(kind, error, traceback)
        if kind is None:
            self._plan.tick(before=False)


class CrashPlan:
    def __init__(self, at: int, before: bool) -> None:
        self.at, self.before, self.seen = at, before, 0

    def tick(self, before: bool) -> None:
        if before != self.before:
            return
        self.seen += 1
        if self.seen == self.at:
            raise Crash


class CrashingPool:
    """As the Transactor uses a pool: `acquire` as a context manager."""

    def __init__(self, pool: Pool, plan: CrashPlan) -> None:
        self._pool, self._plan = pool, plan

    def acquire(self, timeout: float) -> Any:
        context = self._pool.acquire(timeout=timeout)
        plan = self._plan

        class Acquired:
            async def __aenter__(self) -> CrashingConnection:
                return CrashingConnection(await context.__aenter__(), plan)

            async def __aexit__(self, *exc: Any) -> None:
                await context.__aexit__(*exc)

        return Acquired()


@pytest.mark.parametrize("before", [True, False])
async def test_a_crash_at_any_round_trip_leaves_all_or_nothing_and_repeating_mends_it(pool: Pool, before: bool) -> None:
    whole = Ledger(pool)
    await whole.add("start", 10, bowl="crash0")
    crashes = 0
    for at in range(1, 40):
        plan = CrashPlan(at, before)
        broken = Ledger(CrashingPool(pool, plan))  # type: ignore[arg-type]
        bowl = f"crash{at}"
        async with pool.acquire() as connection:
            head = await whole.log.head(connection)
        outcomes = await asyncio.gather(
            broken.add(f"a{at}{before}", 3, bowl=bowl), broken.take(f"b{at}{before}", 1, bowl="crash0"), return_exceptions=True
        )
        await whole.add(f"a{at}{before}", 3, bowl=bowl)
        try:
            await whole.take(f"b{at}{before}", 1, bowl="crash0")
        except TollbookError:
            assert at > 10
        async with pool.acquire() as connection:
            after = await whole.log.head(connection)
            await whole.log.verify(connection)
        assert after.position - head.position == (2 if at <= 10 else 1)
        crashed = any(isinstance(outcome, Crash) for outcome in outcomes)
        crashes += crashed
        if not crashed:
            break
    assert crashes >= 7
    assert plan.seen < plan.at, "every round trip was crashed once"


async def test_a_database_that_comes_back_is_waited_for(tmp_path: Any) -> None:
    server = await asyncio.to_thread(PostgresProcess, tmp_path)
    await asyncio.to_thread(server.start)
    try:
        dsn = await ledger_schema(PostgresDatabase(server.dsn))
        pool = await open_pool(dsn.dsn, "ledger", 4)
        ledger = Ledger(pool)
        await ledger.add("c0", 1)
        await asyncio.to_thread(server.kill)
        wish = asyncio.create_task(ledger.add("c1", 1))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.start)
        assert (await asyncio.wait_for(wish, 30)).count == 2
        await asyncio.wait_for(pool.close(), 10)
    finally:
        await asyncio.to_thread(server.stop)


class ConfusedPlan(CrashPlan):
    """What asyncpg raises on a connection that broke while it was idle, or whose statement was given up."""

    def tick(self, before: bool) -> None:
        try:
            super().tick(before)
        except Crash:
            raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress") from None


async def test_a_confused_connection_is_no_refusal_the_command_is_tried_again(pool: Pool) -> None:
    ledger = Ledger(CrashingPool(pool, ConfusedPlan(2, before=True)))  # type: ignore[arg-type]
    assert (await ledger.add("c1", 5)).count == 5
    assert len(await events(pool)) == 1
