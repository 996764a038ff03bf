"""PostgreSQL as the stack sets it up: who may do what, and what a broken data folder is told like."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

import shared
from deploy.errors import StackError
from deploy.servers import postgres as server
from deploy.servers.roles import ServicePasswords, ensure_database, ensure_service
from tests.support.servers import PASSWORD, PostgresDatabase, PostgresProcess

EVENT_LOG = Path(shared.__file__).parent / "eventlog" / "migrations"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET type = 'x'",
        "DELETE FROM event",
        "TRUNCATE event",
        "DROP TABLE event",
        "ALTER TABLE event DISABLE TRIGGER ALL",
        "ALTER TABLE event OWNER TO bakery",
        "SET session_replication_role = replica",
        "SET ROLE bakery_owner",
        "CREATE TABLE bakery.mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE TEMP TABLE mine (id int)",
    ],
)
async def test_a_service_cannot_touch_what_was_decided(postgres: PostgresDatabase, statement: str) -> None:
    dsn = await postgres.service_schema("bakery", (EVENT_LOG,))
    connection = await asyncpg.connect(dsn.dsn, server_settings={"search_path": "bakery"})
    try:
        await connection.fetch("SELECT * FROM event")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_setting_up_again_changes_only_the_passwords(postgres: PostgresDatabase) -> None:
    await postgres.service_schema("bakery", (EVENT_LOG,))
    dsn = await ensure_service(postgres.owner_dsn, "bakery", ServicePasswords("new-owner", "new-service"))
    connection = await asyncpg.connect(dsn.dsn)
    assert await connection.fetchval("SELECT count(*) FROM bakery.event") == 0
    await connection.close()
    await ensure_service(postgres.owner_dsn, "bakery", ServicePasswords(PASSWORD, PASSWORD))


async def test_strangers_do_not_get_in(tmp_path: Path) -> None:
    process = PostgresProcess(tmp_path)
    process.start()
    try:
        await ensure_database(process.dsn, "tollbook")
        await ensure_database(process.dsn, "tollbook")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(process.dsn.replace(PASSWORD, "guessed"))
        process.kill()
        process.start()
        await (await asyncpg.connect(process.dsn)).close()
    finally:
        process.stop()


def test_a_folder_that_is_none_and_one_of_another_version_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="is not a PostgreSQL data folder"):
        server.check_data(tmp_path)
    (tmp_path / "PG_VERSION").write_text("17\n")
    with pytest.raises(StackError, match="was made by PostgreSQL 17, this is 18"):
        server.check_data(tmp_path)


def test_a_data_folder_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="could not make its data folder"):
        server.initialise(tmp_path / "data", tmp_path / "no password file")
    assert list(tmp_path.iterdir()) == []
