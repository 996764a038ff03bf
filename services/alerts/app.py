"""Alerts put together: settings, connections, start, stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, StringConstraints
from pydantic_settings import SettingsConfigDict

import shared
from services.alerts.contact_handlers import ContactHandlers
from services.alerts.following import registry_consumer
from services.alerts.projection import TABLES, project
from services.alerts.rule_handlers import RuleHandlers
from services.alerts.serving import Started
from shared.asyncapi import ChannelDoc, event_docs
from shared.catalog import load_catalog
from shared.clock import SystemClock
from shared.commands.contacts import SERVICE
from shared.eventlog.log import EventLog
from shared.eventlog.rebuild import rebuild as rebuild_tables
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.alerts import CODEC
from shared.events.registry import STREAM as REGISTRY
from shared.main import Program
from shared.postgres import open_pool
from shared.service import Service
from shared.settings import CatalogSettings, DatabaseSettings, Port
from shared.streams.consumer import Source
from shared.streams.relay import Relay

_SHARED: Final = Path(shared.__file__).parent
MIGRATIONS: Final = (
    _SHARED / "eventlog" / "migrations",
    _SHARED / "streams" / "migrations",
    Path(__file__).parent / "migrations",
)
"""Everything that makes alerts' schema, in this order."""
DESCRIPTION: Final = "Who is told of what: contacts, notification rules, and every message until it is delivered."


class AlertsSettings(CatalogSettings, DatabaseSettings):
    """What alerts needs to be told."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    http_port: Port = Field(8084, description="Port for health, metrics and AsyncAPI")
    vault_key: SecretStr = Field(
        description="64 hexadecimal digits: seals names and addresses; comma-separated keys: the first one seals, all open"
    )
    console_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(/[^\s]*)?$")] = Field(
        "http://127.0.0.1:8080", description="The console's public address, which messages point to"
    )


SETTINGS = AlertsSettings


def build(settings: AlertsSettings) -> Service:
    """The service, ready to run. Raises ValueError, in plain words, for a file or key that cannot be used."""
    clock = SystemClock()
    vault = Vault(settings.vault_key)
    service = Service(SERVICE, settings, DESCRIPTION)
    contacts = ContactHandlers(clock)
    rules = RuleHandlers(load_catalog(settings.catalog), lambda: service.nc, clock)
    for handlers in (contacts, rules):
        handlers.subscribe(service.broker)
    service.readiness("commands", contacts.readiness)
    service.document.channels += [
        ChannelDoc(
            message.name,
            f"alerts.events.{message.name}",
            "send",
            (message,),
            "In the stream ALERTS, where message N is event N of the log.",
        )
        for message in event_docs(CODEC)
    ]

    async def start() -> None:
        pool = await open_pool(settings.postgres_dsn.get_secret_value(), SERVICE, settings.postgres_pool_max)
        service.resources.push_async_callback(pool.close)
        log = EventLog(CODEC, clock)
        relay = Relay(SERVICE, pool, log, lambda: service.nc, settings.nats_replicas, clock)
        log.guard = relay.guard
        service.background("relay", relay.run)
        service.readiness("relay", relay.readiness)

        def committed() -> None:
            relay.wake()

        registry = registry_consumer(pool, lambda: service.nc, clock)
        await registry.add(Source(REGISTRY))
        service.background("registry", registry.run)
        service.readiness("registry", registry.readiness)
        started = Started(pool, Transactor(pool, log, vault, project, clock, committed), vault)
        for handlers in (contacts, rules):
            handlers.start(started)

    service.starter(start)
    return service


async def rebuild(settings: AlertsSettings) -> str:
    """Empty the read tables and project them again from the log, in one transaction. Nothing is sent by it."""
    assert settings.postgres_owner_dsn is not None, "checked by shared.main"
    owner_dsn = settings.postgres_owner_dsn.get_secret_value()
    projected = await rebuild_tables(owner_dsn, SERVICE, EventLog(CODEC, SystemClock()), project, TABLES)
    return f"{', '.join(TABLES)} built again from {projected} events"


PROGRAM: Final = Program(SERVICE, AlertsSettings, build, MIGRATIONS, rebuild, CODEC)
