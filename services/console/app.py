"""The console's composition root: settings, connections, and how its parts hang together."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import SecretStr

import shared.eventlog
from services.console import domain, projection
from services.console.callout import Callout
from services.console.commands import IssueToken, RevokeToken, TokenKept
from services.console.http.api import make_edge
from services.console.http.request import Services
from services.console.mirrors import Mirrors
from services.console.problems import head_refusal, not_http_refusal
from services.console.settings import ConsoleSettings
from services.console.tokens import Authenticator
from shared.clock import SystemClock
from shared.eventlog.log import EventLog
from shared.eventlog.rebuild import rebuild as rebuild_tables
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.console import CODEC, ConsoleEvent
from shared.ids import new_vault_key
from shared.main import Program
from shared.postgres import Pool, open_pool
from shared.readiness import Readiness
from shared.service import AsgiApp, Receive, Scope, Send, Service

NAME: Final = "console"
DESCRIPTION: Final = "The REST API for people and scripts, API tokens, and who may watch which dashboards."
SETTINGS: Final = ConsoleSettings
MIGRATIONS: Final = (Path(shared.eventlog.__file__).parent / "migrations", Path(__file__).parent / "migrations")


def build(settings: ConsoleSettings) -> Service:
    """The service, ready to run."""
    clock = SystemClock()
    authenticator = Authenticator(clock)
    edge = _Edge()
    service = Service(NAME, settings, DESCRIPTION, edge)
    service.head_refusal = head_refusal()
    service.not_http_refusal = not_http_refusal()
    edge.inner = make_edge(settings, clock, authenticator, Services(lambda: service.nc), service.metrics)

    async def open_database() -> None:
        pool = await open_pool(settings.postgres_dsn.get_secret_value(), NAME, settings.postgres_pool_max)
        service.resources.push_async_callback(pool.close)
        authenticator.pool = pool

    service.starter(open_database)
    if settings.nats_callout_seed is not None:
        seed = settings.nats_callout_seed.get_secret_value()
        callout = Callout(seed, settings.nats_dashboards_account, authenticator, clock)
        service.background("callout", lambda: callout.run(service.nc))
    if settings.nats_dashboards_api:
        mirrors = Mirrors(lambda: service.nc, settings.nats_dashboards_api, settings.nats_replicas)
        service.background("mirrors", mirrors.run)
        service.readiness("dashboards", mirrors.readiness)
    service.readiness("database", lambda: _database(authenticator.pool))
    return service


async def rebuild(settings: ConsoleSettings) -> str:
    """Build the table of tokens again from the log."""
    assert settings.postgres_owner_dsn is not None, "shared.main asks for it"
    owner_dsn = settings.postgres_owner_dsn.get_secret_value()
    event_log = EventLog(CODEC, SystemClock())
    projected = await rebuild_tables(owner_dsn, NAME, event_log, projection.project, projection.TABLES)
    return f"{projected} events projected"


PROGRAM: Final = Program(NAME, ConsoleSettings, build, MIGRATIONS, rebuild, CODEC)


class Tokens:
    """Issues and revokes API tokens. Used by the command line, later by members' pages too."""

    def __init__(self, pool: Pool, vault_key: SecretStr | None) -> None:
        clock = SystemClock()
        vault = Vault(vault_key or SecretStr(new_vault_key()))
        self._transactor: Transactor[ConsoleEvent] = Transactor(pool, EventLog(CODEC, clock), vault, projection.project, clock)

    async def issue(self, command: IssueToken) -> TokenKept:
        """Make the token known. Raises Conflict when its id is taken."""
        stream = domain.stream_of(command.token_id)
        return await self._transactor.run(
            command, stream, domain.INITIAL, domain.evolve, lambda state, _: domain.issue(command, state), TokenKept
        )

    async def revoke(self, command: RevokeToken) -> TokenKept:
        """End the token. Raises NotFound when the account has no such token."""
        stream = domain.stream_of(command.token_id)
        return await self._transactor.run(
            command, stream, domain.INITIAL, domain.evolve, lambda state, _: domain.revoke(command, state), TokenKept
        )


class _Edge:
    """Stands for the edge while the service that it needs is made."""

    inner: AsgiApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inner(scope, receive, send)


def _database(pool: Pool | None) -> Readiness:
    if pool is None:
        return Readiness(False, "not connected to PostgreSQL")
    return Readiness(True, f"{pool.get_size()} connections, {pool.get_idle_size()} idle")
