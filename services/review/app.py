"""Review put together: settings, connections, start, stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Protocol

from nats.aio.client import Client
from pydantic import Field, SecretStr, StringConstraints
from pydantic_settings import SettingsConfigDict

import shared
from services.review.applicants import ApplicantHandlers
from services.review.config import load_models, load_review
from services.review.dashboard import BUCKET
from services.review.domain import Rules
from services.review.due_soon import DueSoon
from services.review.facts import Forms
from services.review.first_calls import FirstCalls
from services.review.following import registry_consumer, retiring
from services.review.form_handlers import FormHandlers
from services.review.projection import TABLES, project
from services.review.publishing import FormPublisher
from services.review.queries import kv_keys, kv_values
from services.review.rebuild import follow_again
from services.review.reviewers import ReviewerHandlers
from services.review.serving import Started
from shared.asyncapi import ChannelDoc, event_docs
from shared.catalog import load_catalog
from shared.clock import SystemClock
from shared.commands.review import SERVICE
from shared.cursor import Cursors
from shared.eventlog.log import EventLog
from shared.eventlog.rebuild import rebuild as rebuild_tables
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.registry import CODEC as REGISTRY_CODEC
from shared.events.registry import STREAM as REGISTRY
from shared.events.registry import SUBJECTS as REGISTRY_SUBJECTS
from shared.events.review import CODEC
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
"""Everything that makes review's schema, in this order."""
DESCRIPTION: Final = "Service apps: applications to call a service live, their reviews, decisions and suspensions."


class ReviewSettings(CatalogSettings, DatabaseSettings):
    """What review needs to be told."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    http_port: Port = Field(8085, description="Port for health, metrics and AsyncAPI")
    models: Path = Field(description="The YAML file of models and the tasks that each allows")
    review: Path = Field(description="The YAML file of the form, the checklist, the criteria and the calendar")
    vault_key: SecretStr = Field(
        description="64 hexadecimal digits: seals what applicants write; comma-separated keys: the first one seals, all open"
    )
    api_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(/[^\s]*)?$")] = Field(
        "http://127.0.0.1:8000", description="The public address of the APIs, for samples"
    )
    claim_hours: Annotated[float, Field(gt=0, le=24 * 30)] = Field(
        24, description="Hours after which another reviewer may claim what one has claimed"
    )


SETTINGS = ReviewSettings


class _Running(Protocol):
    """A background task that says how it is."""

    async def run(self) -> None: ...

    def readiness(self) -> Readiness: ...


def _channels() -> list[ChannelDoc]:
    where = "In the stream REVIEW, where message N is event N of the log."
    told = [ChannelDoc(message.name, f"review.events.{message.name}", "send", (message,), where) for message in event_docs(CODEC)]
    heard = ChannelDoc(
        "RegistryEvents", REGISTRY_SUBJECTS, "receive", event_docs(REGISTRY_CODEC), "Whose applications there are."
    )
    return [*told, heard]


def _after(relay: Relay, part: _Running) -> Callable[[], Awaitable[None]]:
    """Runs `part` once the log has been compared with its stream: nothing could be recorded before."""

    async def run() -> None:
        await relay.looked.wait()
        await part.run()

    return run


def build(settings: ReviewSettings) -> Service:
    """The service, ready to run. Raises ValueError, in plain words, for a file or key that cannot be used."""
    clock = SystemClock()
    catalog = load_catalog(settings.catalog)
    config = load_review(settings.review, catalog)
    claim_lasts = timedelta(hours=settings.claim_hours)
    rules = Rules(load_models(settings.models, catalog), config.form, config.calendar, config.reviewers, claim_lasts)
    vault = Vault(settings.vault_key)
    service = Service(SERVICE, settings, DESCRIPTION)

    def nc() -> Client:
        return service.nc

    key, api_url = vault.derived("cursors"), settings.api_url.rstrip("/")
    answering = (
        ApplicantHandlers(rules, catalog, api_url, Cursors(key, "applications"), FirstCalls(nc, clock), nc, clock),
        ReviewerHandlers(rules, Cursors(key, "reviews", parts=2), clock),
        FormHandlers(rules, clock),
    )
    for handlers in answering:
        handlers.subscribe(service.broker)
    service.readiness("commands", answering[0].readiness)
    service.document.channels += _channels()

    async def start() -> None:
        pool = await open_pool(settings.postgres_dsn.get_secret_value(), SERVICE, settings.postgres_pool_max)
        service.resources.push_async_callback(pool.close)
        log = EventLog(CODEC, clock)
        relay = Relay(SERVICE, pool, log, nc, settings.nats_replicas, clock)
        log.guard = relay.guard

        def committed() -> None:
            for part in (relay, reviews, due_soon):
                part.wake()

        def published() -> None:
            started = Started(pool, transactor, log, vault, Forms())
            for handlers in answering:
                handlers.start(started)

        transactor = Transactor(pool, log, vault, project, clock, committed)
        reviews = KvProjection(BUCKET, pool, nc, kv_values, clock, all_keys=kv_keys, replicas=settings.nats_replicas)
        due_soon = DueSoon(pool, transactor, config.calendar.due_soon, clock, service.metrics)
        registry = registry_consumer(pool, nc, clock, retiring(log, transactor), committed=committed)
        await registry.add(Source(REGISTRY))
        form = FormPublisher(pool, transactor, config.form, relay.looked, published)
        at_once: dict[str, _Running] = {"relay": relay, "reviews": reviews, "form": form}
        later: dict[str, _Running] = {"registry": registry, "due soon": due_soon}
        for name, part in {**at_once, **later}.items():
            service.background(name, part.run if name in at_once else _after(relay, part))
            service.readiness(name, part.readiness)

    service.starter(start)
    return service


async def rebuild(settings: ReviewSettings) -> str:
    """Empty the read tables and project them again from the log, in one transaction; then what is made of REGISTRY."""
    assert settings.postgres_owner_dsn is not None, "checked by shared.main"
    owner_dsn = settings.postgres_owner_dsn.get_secret_value()
    projected = await rebuild_tables(owner_dsn, SERVICE, EventLog(CODEC, SystemClock()), project, TABLES)
    seed = None if settings.nats_seed is None else settings.nats_seed.get_secret_value()
    followed = await follow_again(owner_dsn, settings.nats_url, seed)
    return f"{', '.join(TABLES)} built again from {projected} events; {followed}"


PROGRAM: Final = Program(SERVICE, ReviewSettings, build, MIGRATIONS, rebuild, CODEC)
