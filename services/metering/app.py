"""Metering put together: settings, connections, start, stop."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Final

from nats.aio.client import Client
from pydantic import Field, StringConstraints, model_validator
from pydantic_settings import SettingsConfigDict

import shared
from services.metering.channels import channels
from services.metering.dashboard import BUCKET
from services.metering.directory import Directory
from services.metering.ends import Ends
from services.metering.following import registry_consumer
from services.metering.handlers import Handlers, Started
from services.metering.housekeeping import Housekeeping
from services.metering.ingest import Ingest
from services.metering.metrics import Metrics
from services.metering.partitions import Part, Partitions
from services.metering.queries import dashboard_keys, dashboard_values
from services.metering.rebuild import count_again
from services.metering.retention import MONTHS_MIN, Policy, Retention
from services.metering.streams import USAGE_CONSUMER, Streams, subjects
from shared.catalog import Catalog, load_catalog
from shared.clock import SystemClock
from shared.commands.metering import SERVICE
from shared.events.registry import STREAM as REGISTRY
from shared.events.usage import STREAM as USAGE
from shared.ids import new_id
from shared.main import Program
from shared.postgres import Pool, open_pool
from shared.service import Service
from shared.settings import CatalogSettings, DatabaseSettings, Port
from shared.streams.consumer import Consumer, Source
from shared.streams.kv import KvProjection

_SHARED: Final = Path(shared.__file__).parent
MIGRATIONS: Final = (_SHARED / "streams" / "migrations", Path(__file__).parent / "migrations")
"""Everything that makes metering's schema, in this order."""

USAGE_BATCH_MAX: Final = 10_000
"""As many as there are: the counters of a transaction are written once, however many messages they come from."""
LINGER_S: Final = 0.015
"""How long a message waits for company: one commit for many costs little more than one for one."""
BEHIND: Final = 1_000
"""Messages not yet counted from which on counting comes before showing."""
BUFFER_MESSAGES: Final = 20_000
"""Shared by all partitions, of which one may have everything; 64 MB bound it besides."""


class MeteringSettings(CatalogSettings, DatabaseSettings):
    """What metering needs to be told."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    http_port: Port = Field(8083, description="Port for health, metrics and AsyncAPI")
    partitions: Annotated[int, Field(ge=1, le=256)] = Field(16, description="Partitions of USAGE; the gates have the same number")
    worker: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = Field(
        "metering", description="This worker's name in the table of leases; each start adds something of its own"
    )
    hours_kept_months: Annotated[int, Field(ge=MONTHS_MIN, le=1200)] = Field(
        Policy().hours, description="Months that hourly counters are kept for, besides the one that is running"
    )
    days_kept_months: Annotated[int, Field(ge=MONTHS_MIN, le=1200)] = Field(
        Policy().days, description="The same of daily counters: at least as many; monthly ones are kept for ever"
    )

    @model_validator(mode="after")
    def _days_outlast_hours(self) -> MeteringSettings:
        if self.days_kept_months < self.hours_kept_months:
            raise ValueError("TOLLBOOK_DAYS_KEPT_MONTHS has to be at least TOLLBOOK_HOURS_KEPT_MONTHS")
        return self

    def policy(self) -> Policy:
        """How long detail is kept."""
        return Policy(self.hours_kept_months, self.days_kept_months)


SETTINGS = MeteringSettings


class _SourcePart:
    """A source that is followed while it is held."""

    def __init__(self, consumer: Consumer, source: Source) -> None:
        self._consumer = consumer
        self._source = source

    async def begin(self) -> None:
        await self._consumer.add(self._source)

    async def end(self) -> None:
        await self._consumer.remove(self._source)


def build(settings: MeteringSettings) -> Service:
    """The service, ready to run. Raises ValueError, in plain words, for a catalog that cannot be used."""
    catalog = load_catalog(settings.catalog)
    service = Service(SERVICE, settings, "Usage counted exactly once, by application, service and civil window.")
    handlers = Handlers(catalog, Ends(subjects(settings.partitions), lambda: service.nc, SystemClock()), SystemClock())
    handlers.subscribe(service.broker)
    service.document.channels += channels()
    service.readiness("queries", handlers.readiness)

    async def start() -> None:
        pool = await open_pool(settings.postgres_dsn.get_secret_value(), SERVICE, settings.postgres_pool_max)
        service.resources.push_async_callback(pool.close)
        await _start(service, settings, catalog, pool, handlers)

    service.starter(start)
    return service


async def _start(service: Service, settings: MeteringSettings, catalog: Catalog, pool: Pool, handlers: Handlers) -> None:
    clock = SystemClock()

    def nc() -> Client:
        return service.nc

    directory = Directory(nc, clock)
    ingest = Ingest(catalog, directory, nc, Metrics(service.metrics))
    registry = registry_consumer(pool, nc, clock)
    usage = Consumer(
        USAGE_CONSUMER,
        pool,
        nc,
        ingest.handle,
        batch_max=USAGE_BATCH_MAX,
        linger_s=LINGER_S,
        buffer_messages=BUFFER_MESSAGES,
        clock=clock,
    )
    housekeeping = Housekeeping(pool, clock, Retention(settings.policy(), clock))
    parts: dict[str, Part] = {"housekeeping": housekeeping, REGISTRY: _SourcePart(registry, Source(REGISTRY))}
    parts |= {subject: _SourcePart(usage, Source(USAGE, subject)) for subject in subjects(settings.partitions)}
    partitions = Partitions(pool, f"{settings.worker}-{new_id()}", parts, clock)
    streams = Streams(pool, nc, settings.partitions, settings.nats_replicas)
    values = dashboard_values({entry.id: entry.unit for entry in catalog.values()}, clock)
    dashboards = KvProjection(
        BUCKET,
        pool,
        nc,
        values,
        clock,
        all_keys=dashboard_keys,
        replicas=settings.nats_replicas,
        busy=lambda: sum(usage.lag().values()) > BEHIND,
    )
    service.background("streams", streams.run)
    service.background("registry", registry.run)
    service.background("usage", usage.run)
    service.background("partitions", partitions.run)
    service.background("housekeeping", housekeeping.run)
    service.background("dashboards", dashboards.run)
    service.readiness("streams", streams.readiness)
    service.readiness("registry", registry.readiness)
    service.readiness("usage", usage.readiness)
    service.readiness("partitions", partitions.readiness)
    service.readiness("dashboards", dashboards.readiness)
    handlers.start(Started(pool, directory))
    gc.collect()
    gc.freeze()  # what is here now stays: walking it again and again, when thousands of messages wait, takes 80 ms each time


async def rebuild(settings: MeteringSettings) -> str:
    """Forget every count, so that USAGE is counted again from its first message. Raises Conflict when that one is gone."""
    assert settings.postgres_owner_dsn is not None, "checked by shared.main"
    seed = None if settings.nats_seed is None else settings.nats_seed.get_secret_value()
    return await count_again(settings.postgres_owner_dsn.get_secret_value(), settings.nats_url, seed, settings.policy())


PROGRAM: Final = Program(SERVICE, MeteringSettings, build, MIGRATIONS, rebuild)
