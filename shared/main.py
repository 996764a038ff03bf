"""The command line of every service: `python -m services.<name> [--check | --migrate | --verify | --rebuild]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import asyncpg
from pydantic import SecretStr, ValidationError

from shared.clock import SystemClock
from shared.errors import TollbookError
from shared.eventlog.log import ChainBroken, EventLog
from shared.events.codec import Codec
from shared.postgres import MigrationChanged, migrate, open_pool, read_migrations
from shared.service import Service
from shared.settings import DatabaseSettings, ServiceSettings

S = TypeVar("S", bound=ServiceSettings)

USAGE_ERROR = 2


@dataclass(frozen=True)
class Program(Generic[S]):
    """What `services/<name>/app.py` gives to its command line.

    `migrations` are the folders of numbered SQL that make the service's schema; `rebuild` builds its read tables again and says
    what it did; `log` is the codec of its events, for a service that has an event log.
    """

    name: str
    settings: type[S]
    build: Callable[[S], Service]
    migrations: Sequence[Path] = ()
    rebuild: Callable[[S], Awaitable[str]] | None = None
    log: Codec[Any] | None = None


def main(program: Program[S], argv: Sequence[str] | None = None) -> int:
    """Run the service, or do what the one option says; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{program.name}")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="print the settings it would run with, secrets hidden, and stop")
    choice.add_argument("--migrate", action="store_true", help="bring its PostgreSQL schema up to date and stop")
    choice.add_argument("--verify", action="store_true", help="check that its event log is what was written, and stop")
    choice.add_argument("--rebuild", action="store_true", help="build its read tables again from the events and stop")
    chosen = parser.parse_args(argv)
    settings = read_settings(program.settings)
    if settings is None:
        return USAGE_ERROR
    logging.basicConfig(level=settings.log_level, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the supervisor tells what has started and stopped
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # its tracebacks repeat what our error callback says in a line
    if chosen.check:
        return _print_settings(settings)
    if chosen.migrate:
        return _migrate(program, settings)
    if chosen.verify:
        return _verify(program, settings)
    if chosen.rebuild:
        return _rebuild(program, settings)
    try:
        service = program.build(settings)
    except ValueError as error:  # a file or key that cannot be used, in plain words
        _fail(str(error))
        return USAGE_ERROR
    return service.run()


def read_settings(settings: type[S]) -> S | None:
    """The settings from the environment; None after saying on stderr which of them is wrong and how."""
    try:
        return settings()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            # Without a place: several belong together and are not all there; the message names them.
            sys.stderr.write(f"TOLLBOOK_{name}: {problem['msg']}\n" if name else f"{problem['msg']}\n")
        return None


def _print_settings(settings: ServiceSettings) -> int:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        shown = "(hidden)" if isinstance(value, SecretStr) else value
        sys.stdout.write(f"TOLLBOOK_{name.upper()}={shown}\n")
    return 0


def _migrate(program: Program[S], settings: S) -> int:
    dsns = _database(program, settings)
    if dsns is None or not program.migrations:
        return _fail(f"{program.name} has no schema to migrate") if not program.migrations else USAGE_ERROR
    owner_dsn, dsn = dsns
    role = urlsplit(dsn).username or program.name
    try:
        applied = asyncio.run(migrate(owner_dsn, program.name, role, read_migrations(*program.migrations)))
    except (MigrationChanged, OSError) as error:
        return _fail(str(error))
    sys.stdout.write(f"{program.name}: {', '.join(applied) or 'nothing to apply'}\n")
    return 0


def _verify(program: Program[S], settings: S) -> int:
    if program.log is None or not isinstance(settings, DatabaseSettings):
        return _fail(f"{program.name} has no event log")
    event_log, dsn = EventLog(program.log, SystemClock()), settings.postgres_dsn.get_secret_value()
    try:
        checked = asyncio.run(_verify_log(event_log, dsn, program.name))
    except ChainBroken as broken:
        return _fail(f"the event log of {program.name} is NOT what was written: {broken}")
    except (asyncpg.PostgresError, OSError) as error:
        return _fail(f"the event log of {program.name} was not verified: {error or type(error).__name__}")
    sys.stdout.write(f"{program.name}: {checked} events, every one as it was written\n")
    return 0


async def _verify_log(event_log: EventLog[Any], dsn: str, schema: str) -> int:
    pool = await open_pool(dsn, schema, 1)
    try:
        async with pool.acquire(timeout=10) as connection:
            return await event_log.verify(connection)
    finally:
        await pool.close()


def _rebuild(program: Program[S], settings: S) -> int:
    if program.rebuild is None:
        return _fail(f"{program.name} keeps nothing that could be rebuilt")
    if _database(program, settings) is None:
        return USAGE_ERROR
    try:
        done = asyncio.run(_awaited(program.rebuild(settings)))
    except (TollbookError, asyncpg.PostgresError, OSError) as error:
        return _fail(f"{program.name} was not rebuilt: {error or type(error).__name__}")
    sys.stdout.write(f"{program.name}: {done}\n")
    return 0


async def _awaited(done: Awaitable[str]) -> str:
    return await done


def _database(program: Program[S], settings: S) -> tuple[str, str] | None:
    if isinstance(settings, DatabaseSettings) and settings.postgres_owner_dsn is not None:
        return settings.postgres_owner_dsn.get_secret_value(), settings.postgres_dsn.get_secret_value()
    _fail(f"TOLLBOOK_POSTGRES_OWNER_DSN: needed to change the schema of {program.name}")
    return None


def _fail(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return 1
