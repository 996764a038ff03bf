"""The event log on a real PostgreSQL: order, chain, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import asyncpg
import pytest

from deploy.servers.roles import ServiceDsn
from shared.clock import SystemClock
from shared.errors import Conflict, NotFound
from shared.eventlog import log as log_module
from shared.eventlog.log import ChainBroken, EventLog, Past
from shared.eventlog.rebuild import rebuild
from shared.eventlog.vault import Vault, VaultKeyUnknown
from shared.events.codec import Codec, Event, UnknownEvent
from shared.postgres import Pool, open_pool
from tests.support.ledger import CODEC, VAULT_KEY, Ledger, LedgerEvent, PebblesAdded, SecretStr, ledger_schema, project
from tests.support.servers import PostgresDatabase


@pytest.fixture
async def dsn(postgres: PostgresDatabase) -> ServiceDsn:
    return await ledger_schema(postgres)


@pytest.fixture
async def pool(dsn: ServiceDsn) -> AsyncIterator[Pool]:
    pool = await open_pool(dsn.dsn, "ledger", 8)
    yield pool
    await pool.close()


@pytest.fixture
def log() -> EventLog[LedgerEvent]:
    return EventLog(CODEC, SystemClock())


def added(count: int, bowl: str = "blue") -> PebblesAdded:
    return PebblesAdded(bowl=bowl, count=count)


async def test_positions_are_gapless_over_streams_and_versions_within(pool: Pool, log: EventLog[LedgerEvent]) -> None:
    async with pool.acquire() as connection:
        await log.append(connection, "bowl/a", 0, [added(1), added(2)])
        await log.append(connection, "bowl/b", 0, [added(3)])
        await log.append(connection, "bowl/a", 2, [added(4)])
        events = await log.read(connection, 0, 10)
        assert [(e.position, e.stream, e.version) for e in events] == [
            (1, "bowl/a", 1),
            (2, "bowl/a", 2),
            (3, "bowl/b", 1),
            (4, "bowl/a", 3),
        ]
        assert await log.verify(connection) == 4
        assert [e.position for e in await log.read(connection, 1, 2)] == [2, 3]
        assert [e.position for e in await log.read(connection, 0, 9, stream="bowl/a")] == [1, 2, 4]
        assert await log.read(connection, 0, 9, type_="PebblesTaken") == []
        assert [log.decode(e) for e in await log.read_stream(connection, "bowl/a")] == [added(1), added(2), added(4)]


async def test_a_stream_at_another_version_is_a_conflict(pool: Pool, log: EventLog[LedgerEvent]) -> None:
    async with pool.acquire() as connection:
        await log.append(connection, "bowl/a", 0, [added(1)])
        with pytest.raises(Conflict, match="version 1, not 0"):
            await log.append(connection, "bowl/a", 0, [added(1)])
        with pytest.raises(Conflict, match="version 1, not 5"):
            await log.append(connection, "bowl/a", 5, [added(1)])
        assert (await log.head(connection)).position == 1


async def test_appends_at_once_never_leave_a_gap_or_swap_order(pool: Pool, log: EventLog[LedgerEvent]) -> None:
    async def append(worker: int) -> None:
        for version in range(20):
            async with pool.acquire() as connection:
                await log.append(connection, f"bowl/{worker}", version, [added(version)])

    await asyncio.gather(*(append(worker) for worker in range(6)))
    async with pool.acquire() as connection:
        assert await log.verify(connection) == 120


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET type = 'Nothing'",
        "DELETE FROM event",
        "TRUNCATE event",
        "UPDATE event SET data = '{}' WHERE position = 1",
        "ALTER TABLE event DISABLE TRIGGER ALL",
        "DROP TABLE event",
        "DELETE FROM log_head",
    ],
)
async def test_the_service_cannot_change_what_was_recorded(pool: Pool, log: EventLog[LedgerEvent], statement: str) -> None:
    async with pool.acquire() as connection:
        await log.append(connection, "bowl/a", 0, [added(1)])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
        assert await log.verify(connection) == 1


@pytest.mark.parametrize("statement", ["UPDATE event SET type = 'Nothing'", "DELETE FROM event", "TRUNCATE event"])
async def test_not_even_the_owner_does_by_mistake(
    dsn: ServiceDsn, pool: Pool, log: EventLog[LedgerEvent], statement: str
) -> None:
    async with pool.acquire() as connection:
        await log.append(connection, "bowl/a", 0, [added(1)])
    owner = await asyncpg.connect(dsn.owner_dsn)
    try:
        await owner.execute("SET search_path = ledger")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await owner.execute(statement)
    finally:
        await owner.close()


@pytest.mark.parametrize(
    "forgery",
    [
        'UPDATE event SET data = \'{"bowl":"blue","count":9}\' WHERE position = 2',
        "UPDATE event SET recorded_at = recorded_at + interval '1 microsecond' WHERE position = 2",
        'UPDATE event SET meta = \'{"actor":"someone"}\' WHERE position = 2',
        "DELETE FROM event WHERE position = 2",
        "DELETE FROM event WHERE position = 3",
        "UPDATE log_head SET position = 2",
    ],
)
async def test_whoever_forges_as_superuser_breaks_the_chain(
    postgres: PostgresDatabase, pool: Pool, log: EventLog[LedgerEvent], forgery: str
) -> None:
    async with pool.acquire() as connection:
        await log.append(connection, "bowl/a", 0, [added(1), added(2), added(3)])
    forger = await asyncpg.connect(postgres.owner_dsn)
    await forger.execute(f"SET search_path = ledger; SET session_replication_role = replica; {forgery}")
    await forger.close()
    async with pool.acquire() as connection:
        with pytest.raises(ChainBroken):
            await log.verify(connection)


async def test_the_vault_gives_back_and_forgets(pool: Pool) -> None:
    vault = Vault(VAULT_KEY)
    async with pool.acquire() as connection:
        await vault.put(connection, "secret/1", b"open sesame")
        assert await vault.get(connection, "secret/1") == b"open sesame"
        assert b"sesame" not in await connection.fetchval("SELECT sealed FROM vault")
        rotated = Vault(SecretStr("11" * 32 + "," + VAULT_KEY.get_secret_value()))
        assert await rotated.get(connection, "secret/1") == b"open sesame"
        with pytest.raises(VaultKeyUnknown):
            await Vault(SecretStr("11" * 32)).get(connection, "secret/1")
        await vault.shred(connection, "secret/1")
        with pytest.raises(NotFound):
            await vault.get(connection, "secret/1")


async def test_a_sealed_row_does_not_open_under_another_id(pool: Pool, dsn: ServiceDsn) -> None:
    vault = Vault(VAULT_KEY)
    async with pool.acquire() as connection:
        await vault.put(connection, "secret/1", b"open sesame")
    owner = await asyncpg.connect(dsn.owner_dsn)
    await owner.execute("SET search_path = ledger; UPDATE vault SET id = 'secret/2'")
    await owner.close()
    async with pool.acquire() as connection:
        with pytest.raises(VaultKeyUnknown):
            await vault.get(connection, "secret/2")


@pytest.mark.parametrize("keys", ["", "00", "zz" * 32, "00" * 32 + ",short"])
def test_a_vault_key_of_another_form_is_refused_with_the_way_out(keys: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        Vault(SecretStr(keys))


async def test_a_rebuild_gives_the_same_rows_and_repairs_spoiled_ones(dsn: ServiceDsn, pool: Pool) -> None:
    ledger = Ledger(pool)
    for number in range(30):
        await ledger.add(f"c{number}", number, bowl=f"b{number % 3}")
    await ledger.take("t1", 5, bowl="b0")
    before = await pool.fetch("SELECT * FROM bowl ORDER BY bowl")
    await pool.execute("UPDATE bowl SET count = 7 WHERE bowl = 'b1'")
    await pool.execute("DELETE FROM bowl WHERE bowl = 'b2'")
    assert await rebuild(dsn.owner_dsn, "ledger", ledger.log, project, ["bowl"]) == 30  # an Add of 0 is no event
    assert await pool.fetch("SELECT * FROM bowl ORDER BY bowl") == before


class Thrown(Event, frozen=True, kw_only=True):
    schema: ClassVar[int] = 2
    metres: float
    at: datetime


def in_feet(data: dict[str, Any]) -> dict[str, Any]:
    return {"metres": data["feet"] * 0.3048, "at": data["at"]}


THROWN = Thrown(metres=1.5, at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC))
THROWS: Codec[PebblesAdded | Thrown] = Codec("ledger", PebblesAdded | Thrown, {("Thrown", 1): in_feet})


class ThrownBefore(Event, frozen=True, kw_only=True):
    """Thrown as it was before, by its name."""

    feet: float
    at: datetime


ThrownBefore.__name__ = "Thrown"


async def replayed(pool: Pool, log: EventLog[Any], after: int = 0) -> list[list[Past[Any]]]:
    async with pool.acquire() as connection:
        await connection.execute("SET TIME ZONE 'Asia/Seoul'")
        async with aclosing(log.replay(connection, after)) as pages:
            return [page async for page in pages]


async def test_a_replay_gives_what_was_written_page_by_page(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "REPLAY_PAGE", 2)
    log = EventLog(THROWS, SystemClock())
    written: list[PebblesAdded | Thrown] = [added(1), THROWN, added(2, '"수영" \\ \u0001'), THROWN, added(3)]
    async with pool.acquire() as connection:
        await log.append(connection, 'bowl/"a\\', 0, written)
        recorded = await log.read(connection, 0, 9)
    pages = await replayed(pool, log)
    assert [len(page) for page in pages] == [2, 2, 1]
    past = [one for page in pages for one in page]
    assert [one.event for one in past] == written
    assert [(one.position, one.stream, one.recorded_at) for one in past] == [
        (one.position, one.stream, one.recorded_at) for one in recorded
    ]
    assert {one.recorded_at.utcoffset() for one in past} == {timedelta(0)}
    [[fourth, fifth]] = await replayed(pool, log, after=3)
    assert [(fourth.position, fourth.event), (fifth.position, fifth.event)] == [(4, THROWN), (5, added(3))]
    assert await replayed(pool, log, after=5) == []


async def test_a_replay_lifts_older_versions_and_refuses_what_a_newer_release_wrote(pool: Pool) -> None:
    log = EventLog(THROWS, SystemClock())
    before = EventLog(Codec("ledger", ThrownBefore), SystemClock())
    async with pool.acquire() as connection:
        await log.append(connection, "bowl/a", 0, [added(1), THROWN])
        await before.append(connection, "bowl/a", 2, [ThrownBefore(feet=10, at=THROWN.at)])
        await log.append(connection, "bowl/b", 0, [added(2)])
    [page] = await replayed(pool, log)
    assert [one.event for one in page] == [added(1), THROWN, Thrown(metres=3.048, at=THROWN.at), added(2)]
    assert [(one.position, one.stream) for one in page] == [(1, "bowl/a"), (2, "bowl/a"), (3, "bowl/a"), (4, "bowl/b")]
    with pytest.raises(UnknownEvent, match="ledger has no event 'Thrown'"):
        await replayed(pool, EventLog(CODEC, SystemClock()))
    with pytest.raises(UnknownEvent, match="Thrown is known up to schema 1, not 2"):
        await replayed(pool, EventLog(Codec("ledger", PebblesAdded | ThrownBefore), SystemClock()))
