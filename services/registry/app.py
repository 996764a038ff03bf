"""The registry put together: settings, connections, start, stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

import shared
from services.registry.domain import APPS_MAX_DEFAULT, Rules
from services.registry.following import REVIEW, review_consumer
from services.registry.handlers import SERVICE, Database, Handlers
from services.registry.projection import BUCKET, TABLES, project
from services.registry.queries import kv_keys, kv_values
from services.registry.rebuild import review_again
from shared.asyncapi import ChannelDoc, event_docs
from shared.catalog import load_catalog, load_terms
from shared.clock import SystemClock
from shared.credentials import read_pepper
from shared.environments import reduce_web_url
from shared.eventlog.log import EventLog
from shared.eventlog.rebuild import rebuild as rebuild_tables
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.registry import CODEC
from shared.events.review import CODEC as REVIEW_CODEC
from shared.events.review import SUBJECTS as REVIEW_SUBJECTS
from shared.main import Program
from shared.postgres import open_pool
from shared.service import Service
from shared.settings import CatalogSettings, DatabaseSettings, Port
from shared.streams.kv import KvProjection
from shared.streams.relay import Relay

_SHARED: Final = Path(shared.__file__).parent
MIGRATIONS: Final = (
    _SHARED / "eventlog" / "migrations",
    _SHARED / "streams" / "migrations",
    Path(__file__).parent / "migrations",
)
"""Everything that makes the registry's schema, in this order."""


class RegistrySettings(CatalogSettings, DatabaseSettings):
    """What the registry needs to be told."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    http_port: Port = Field(8082, description="Port for health, metrics and AsyncAPI")
    terms: Path = Field(description="The YAML file of the terms of service")
    pepper: SecretStr = Field(
        description="64 hexadecimal digits: the key that verifiers of secrets are made with; the gate has the same"
    )
    vault_key: SecretStr = Field(
        description="64 hexadecimal digits: seals the secrets; comma-separated keys: the first one seals, all open"
    )
    secret_show_once: bool = Field(False, description="Show each secret only when it is issued, and do not keep it")
    apps_max: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        APPS_MAX_DEFAULT, description="Applications of one account, at most"
    )


SETTINGS = RegistrySettings


def build(settings: RegistrySettings) -> Service:
    """The service, ready to run. Raises ValueError, in plain words, for a file or key that cannot be used."""
    clock = SystemClock()
    terms = load_terms(settings.terms)
    rules = Rules(load_catalog(settings.catalog), terms.version, settings.apps_max, not settings.secret_show_once)
    vault = Vault(settings.vault_key)
    handlers = Handlers(rules, terms, vault, read_pepper(settings.pepper), clock)
    service = Service(SERVICE, settings, "Accounts' terms acceptance, applications, credentials and the catalog of services.")
    handlers.subscribe(service.broker)
    service.document.channels += [
        ChannelDoc(
            message.name,
            f"registry.events.{message.name}",
            "send",
            (message,),
            "In the stream REGISTRY, where message N is event N of the log.",
        )
        for message in event_docs(CODEC)
    ]
    service.document.channels.append(
        ChannelDoc("ReviewEvents", REVIEW_SUBJECTS, "receive", event_docs(REVIEW_CODEC), "What activates, suspends and resumes.")
    )
    service.readiness("commands", handlers.readiness)

    async def start() -> None:
        pool = await open_pool(settings.postgres_dsn.get_secret_value(), SERVICE, settings.postgres_pool_max)
        service.resources.push_async_callback(pool.close)
        log = EventLog(CODEC, clock)
        relay = Relay(SERVICE, pool, log, lambda: service.nc, settings.nats_replicas, clock)
        log.guard = relay.guard
        apps = KvProjection(BUCKET, pool, lambda: service.nc, kv_values, clock, all_keys=kv_keys, replicas=settings.nats_replicas)
        service.background("relay", relay.run)
        service.background("apps", apps.run)
        service.readiness("relay", relay.readiness)
        service.readiness("apps", apps.readiness)

        def committed() -> None:
            relay.wake()
            apps.wake()

        reduce_web_url("https://example.com")  # reads the Public Suffix List now, not in somebody's command
        transactor = Transactor(pool, log, vault, project, clock, committed)
        review = review_consumer(pool, lambda: service.nc, transactor, clock, committed)
        await review.add(REVIEW)
        service.background("review", review.run)
        service.readiness("review", review.readiness)
        handlers.start(Database(pool, transactor))

    service.starter(start)
    return service


async def rebuild(settings: RegistrySettings) -> str:
    """Empty the read tables and project them again from the log, in one transaction; then see whether REVIEW is what it was."""
    assert settings.postgres_owner_dsn is not None, "checked by shared.main"
    owner_dsn = settings.postgres_owner_dsn.get_secret_value()
    projected = await rebuild_tables(owner_dsn, SERVICE, EventLog(CODEC, SystemClock()), project, TABLES)
    seed = None if settings.nats_seed is None else settings.nats_seed.get_secret_value()
    review = await review_again(owner_dsn, settings.nats_url, seed)
    built = f"{', '.join(TABLES)} built again from {projected} events"
    return f"{built}; {review}" if review else built


PROGRAM: Final = Program(SERVICE, RegistrySettings, build, MIGRATIONS, rebuild, CODEC)
