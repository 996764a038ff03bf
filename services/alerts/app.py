"""Alerts put together: settings, connections, start, stop."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Protocol

from nats.aio.client import Client
from pydantic import DirectoryPath, Field, SecretStr, StringConstraints
from pydantic_settings import SettingsConfigDict

import shared
from services.alerts.asking import Asking, metering_consumer, review_consumer
from services.alerts.channels.settings import ChannelSettings
from services.alerts.contact_handlers import ContactHandlers
from services.alerts.dashboard import BUCKET
from services.alerts.delivering import Parts, open_worker
from services.alerts.delivery_handlers import DeliveryHandlers
from services.alerts.delivery_queries import dashboard_keys, dashboard_values
from services.alerts.following import registry_consumer
from services.alerts.links import Links
from services.alerts.projection import TABLES, project
from services.alerts.rebuild import follow_again
from services.alerts.rendering import Renderer
from services.alerts.rule_handlers import RuleHandlers
from services.alerts.serving import Started
from shared.asyncapi import ChannelDoc, event_docs
from shared.catalog import load_catalog
from shared.clock import SystemClock
from shared.commands.base import AccountId
from shared.commands.contacts import SERVICE
from shared.eventlog.log import EventLog
from shared.eventlog.rebuild import rebuild as rebuild_tables
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.alerts import CODEC
from shared.events.metering import STREAM as METERING
from shared.events.registry import STREAM as REGISTRY
from shared.events.review import STREAM as REVIEW
from shared.main import Program
from shared.postgres import open_pool
from shared.readiness import Readiness
from shared.service import Service
from shared.settings import CatalogSettings, DatabaseSettings, Port
from shared.streams.checkpoints import Source
from shared.streams.kv import KvProjection
from shared.streams.relay import Relay

_SHARED: Final = Path(shared.__file__).parent
MIGRATIONS: Final = (
    _SHARED / "eventlog" / "migrations",
    _SHARED / "streams" / "migrations",
    Path(__file__).parent / "migrations",
)
"""Everything that makes alerts' schema, in this order."""
DESCRIPTION: Final = "Who is told of what: contacts, notification rules, and every message until it is delivered."


class AlertsSettings(CatalogSettings, DatabaseSettings, ChannelSettings):
    """What alerts needs to be told."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    http_port: Port = Field(8084, description="Port for health, metrics and AsyncAPI")
    vault_key: SecretStr = Field(
        description="64 hexadecimal digits: seals names and addresses; comma-separated keys: the first one seals, all open"
    )
    console_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(/[^\s]*)?$")] = Field(
        "http://127.0.0.1:8080", description="The console's public address, which messages point to"
    )
    templates: DirectoryPath | None = Field(None, description="Folder of your own templates, which stand in for the shipped ones")
    delivery_deadline_h: Annotated[float, Field(gt=0, le=24 * 7)] = Field(
        24, description="Hours for which delivering something is tried, once it is due"
    )
    reviewers_account: AccountId | None = Field(
        None, description="Account whose contacts are told of service apps that wait for a review; none: nobody is"
    )


SETTINGS = AlertsSettings


class _Running(Protocol):
    """A background task that says how it is."""

    async def run(self) -> None: ...

    def readiness(self) -> Readiness: ...


def _channels() -> list[ChannelDoc]:
    where = "In the stream ALERTS, where message N is event N of the log."
    return [ChannelDoc(message.name, f"alerts.events.{message.name}", "send", (message,), where) for message in event_docs(CODEC)]


def build(settings: AlertsSettings) -> Service:
    """The service, ready to run. Raises ValueError, in plain words, for a file or key that cannot be used."""
    clock = SystemClock()
    vault = Vault(settings.vault_key)
    service = Service(SERVICE, settings, DESCRIPTION)
    catalog = load_catalog(settings.catalog)
    links = Links(settings.console_url.rstrip("/"))
    renderer = Renderer(catalog, links, settings.templates)
    answering = (ContactHandlers(clock), RuleHandlers(catalog, lambda: service.nc, clock), DeliveryHandlers(renderer))
    for handlers in answering:
        handlers.subscribe(service.broker)
    service.readiness("commands", answering[0].readiness)
    service.document.channels += _channels()

    async def start() -> None:
        pool = await open_pool(settings.postgres_dsn.get_secret_value(), SERVICE, settings.postgres_pool_max)
        service.resources.push_async_callback(pool.close)
        log = EventLog(CODEC, clock)
        relay = Relay(SERVICE, pool, log, lambda: service.nc, settings.nats_replicas, clock)
        log.guard = relay.guard

        def committed() -> None:
            relay.wake()
            dashboards.wake()
            worker.wake()

        def nc() -> Client:
            return service.nc

        dashboards = KvProjection(
            BUCKET, pool, nc, dashboard_values, clock, all_keys=dashboard_keys, replicas=settings.nats_replicas
        )
        worker = open_worker(service, settings, links, renderer, Parts(pool, log, vault, clock, committed))
        keep_for = timedelta(hours=settings.delivery_deadline_h)
        asking = Asking(log, clock, keep_for, settings.reviewers_account)
        registry = registry_consumer(pool, nc, clock, asking.of_registry, committed=committed)
        metering = metering_consumer(pool, nc, asking, clock, committed)
        review = review_consumer(pool, nc, asking, clock, committed)
        await registry.add(Source(REGISTRY))
        await metering.add(Source(METERING))
        await review.add(Source(REVIEW, optional=True))
        running: dict[str, _Running] = {"relay": relay, "registry": registry, "metering": metering, "review": review}
        running["dashboards"] = dashboards
        for name, part in running.items():
            service.background(name, part.run)
            service.readiness(name, part.readiness)

        async def deliver() -> None:
            await relay.looked.wait()  # nothing could be recorded before
            await worker.run()

        service.background("delivery", deliver)
        service.readiness("delivery", worker.readiness)
        started = Started(pool, Transactor(pool, log, vault, project, clock, committed), vault)
        for handlers in answering:
            handlers.start(started)

    service.starter(start)
    return service


async def rebuild(settings: AlertsSettings) -> str:
    """Empty the read tables and project them again from the log, in one transaction; then what is made of others' streams.
    Nothing is sent by it."""
    assert settings.postgres_owner_dsn is not None, "checked by shared.main"
    owner_dsn = settings.postgres_owner_dsn.get_secret_value()
    projected = await rebuild_tables(owner_dsn, SERVICE, EventLog(CODEC, SystemClock()), project, TABLES)
    seed = None if settings.nats_seed is None else settings.nats_seed.get_secret_value()
    followed = await follow_again(owner_dsn, settings.nats_url, seed)
    return f"{', '.join(TABLES)} built again from {projected} events; {followed}"


PROGRAM: Final = Program(SERVICE, AlertsSettings, build, MIGRATIONS, rebuild, CODEC)
