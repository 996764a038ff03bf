"""The database, and in it one schema and two roles per service: who owns the tables, and who the service connects as."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg

CONNECT_TIMEOUT_S = 10


class ServiceDsn(NamedTuple):
    """How one service reaches its schema: as its owner (migrations) and as itself."""

    owner_dsn: str
    dsn: str


class ServicePasswords(NamedTuple):
    owner: str
    service: str


async def ensure_database(admin_dsn: str, name: str) -> None:
    """Have the database, closed to everybody who is not let in by name. Safe to repeat."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(admin_dsn, timeout=CONNECT_TIMEOUT_S)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
            await connection.execute(f"CREATE DATABASE {quoted(name)}")
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)
    inside: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(with_database(admin_dsn, name), timeout=CONNECT_TIMEOUT_S)
    try:
        await inside.execute(f"REVOKE ALL ON DATABASE {quoted(name)} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC")
    finally:
        await inside.close(timeout=CONNECT_TIMEOUT_S)


async def ensure_service(admin_dsn: str, service: str, passwords: ServicePasswords) -> ServiceDsn:
    """Have the service's schema, owned by `<service>_owner`, and its role `<service>`, which may just look into the schema.

    `admin_dsn` names the database. Safe to repeat: passwords are set again.
    """
    owner = f"{service}_owner"
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(admin_dsn, timeout=CONNECT_TIMEOUT_S)
    try:
        database = await connection.fetchval("SELECT current_database()")
        for role, password in ((owner, passwords.owner), (service, passwords.service)):
            await ensure_role(connection, role, password)
            await connection.execute(f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(role)}")
        await connection.execute(f"GRANT {quoted(owner)} TO CURRENT_USER")
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(service)} AUTHORIZATION {quoted(owner)}")
        await connection.execute(f"GRANT USAGE ON SCHEMA {quoted(service)} TO {quoted(service)}")
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)
    return ServiceDsn(with_user(admin_dsn, owner, passwords.owner), with_user(admin_dsn, service, passwords.service))


async def ensure_role(connection: asyncpg.Connection[asyncpg.Record], role: str, password: str) -> None:
    exists = await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role)
    verb = "ALTER" if exists else "CREATE"
    rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"
    await connection.execute(f"{verb} ROLE {quoted(role)} {rights} PASSWORD {literal(password)}")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def with_database(dsn: str, database: str) -> str:
    """The same server and user, another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))


def with_user(dsn: str, user: str, password: str) -> str:
    """The same server and database as another user. `password` holds no character that an address would have to escape."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}"))
