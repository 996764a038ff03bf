"""PostgreSQL: one pool per service, and migrations as numbered SQL files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

COMMAND_TIMEOUT_S: Final = 30.0
LOCK_TIMEOUT_MS: Final = 10_000


async def open_pool(dsn: str, schema: str, size_max: int = 10) -> Pool:
    """A pool whose connections see only `schema`. Every statement and every wait for a lock has a time limit."""
    return await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size_max,
        timeout=10,
        command_timeout=COMMAND_TIMEOUT_S,
        reset=_leave,
        server_settings={
            "search_path": schema,
            "application_name": f"tollbook-{schema}",
            "lock_timeout": str(LOCK_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": "60000",
            "jit": "off",
            # A plan kept from when a table was small reads the whole of it once it has grown: plan each time, it is cheap.
            "plan_cache_mode": "force_custom_plan",
            # Whoever names a thousand keys wants to look those up: not, by several processes, the whole index of a million.
            "random_page_cost": "1.1",
            "max_parallel_workers_per_gather": "0",
        },
    )


async def _leave(_: Connection) -> None:
    """A connection that is given back keeps its session: nobody here changes one (SET LOCAL, advisory locks of the transaction),
    and undoing nothing would cost every use another round trip. asyncpg still rolls back what was left open."""


@dataclass(frozen=True)
class Migration:
    """One numbered SQL file. `name` is `<folder's owner>/<file name>`, unique in its schema."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class MigrationChanged(RuntimeError):
    """A migration that was applied before has another text now."""


def read_migrations(*folders: Path) -> list[Migration]:
    """The .sql files of the folders: folders in the order given, files by their number."""
    return [
        Migration(f"{folder.parent.name}/{file.name}", file.read_text("utf-8"))
        for folder in folders
        for file in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]


async def migrate(owner_dsn: str, schema: str, role: str, migrations: Sequence[Migration]) -> list[str]:
    """Apply what is missing, each in its own transaction, as the schema's owner; returns the names applied.

    In the SQL, `{role}` stands for the service's role, which gets just the privileges that a migration grants it. Two processes
    that migrate at once wait for each other. Raises MigrationChanged when history was edited.
    """
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn=owner_dsn, timeout=10)
    applied: list[str] = []
    try:
        await connection.execute(f"SET search_path = {schema}; SET lock_timeout = '{LOCK_TIMEOUT_MS}ms'")
        await connection.execute("SELECT pg_advisory_lock(hashtext($1))", f"migrate {schema}")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migration"
            " (name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        known = {row["name"]: row["checksum"] for row in await connection.fetch("SELECT name, checksum FROM migration")}
        for migration in migrations:
            if migration.name in known:
                if known[migration.name] != migration.checksum:
                    raise MigrationChanged(
                        f"{migration.name} was applied to schema {schema} with another text. Migrations are never edited:"
                        " restore the file and put the change into a new one."
                    )
                continue
            async with connection.transaction():
                await connection.execute(migration.sql.replace("{role}", role))
                await connection.execute(
                    "INSERT INTO migration (name, checksum) VALUES ($1, $2)", migration.name, migration.checksum
                )
            applied.append(migration.name)
    finally:
        await connection.close(timeout=10)
    return applied
