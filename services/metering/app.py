"""Metering put together: settings, connections, start, stop."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Protocol

from nats.aio.client import Client
from pydantic import Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import SettingsConfigDict

import shared
from services.metering.channels import channels
from services.metering.dashboard import BUCKET, LIMITS_BUCKET
from services.metering.directory import Directory
from services.metering.ends import Ends
from services.metering.evaluation import Evaluator
from services.metering.following import RULES, alerts_consumer, registry_consumer
from services.metering.grants import Terms
from services.metering.handlers import Handlers
from services.metering.housekeeping import Housekeeping
from services.metering.ingest import Ingest
from services.metering.leasing import Leasing
from services.metering.letter_desk import SOURCE as LETTERS
from services.metering.letter_desk import LetterDesk
from services.metering.limit_handlers import LimitHandlers
from services.metering.limit_queries import limits_keys, limits_values
from services.metering.metrics import Metrics
from services.metering.partitions import Part, Partitions
from services.metering.projection import TABLES, project
from services.metering.queries import dashboard_keys, dashboard_values
from services.metering.quota import LEASE_S, MARGIN_S
from services.metering.rebuild import count_again
from services.metering.retention import MONTHS_MIN, Policy, Retention
from services.metering.serving import Started
from services.metering.streams import USAGE_CONSUMER, Streams, subjects
from shared.catalog import Catalog, load_catalog
from shared.clock import SystemClock
from shared.commands.metering import SERVICE
from shared.eventlog.log import EventLog
from shared.eventlog.rebuild import rebuild as rebuild_tables
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.alerts import STREAM as ALERTS
from shared.events.metering import CODEC, MeteringEvent
from shared.events.registry import STREAM as REGISTRY
from shared.events.usage import STREAM as USAGE
from shared.ids import new_id
from shared.main import Program
from shared.postgres import Pool, open_pool
from shared.readiness import Readiness
from shared.service import Service
from shared.settings import CatalogSettings, DatabaseSettings, Port
from shared.streams.checkpoints import Source
from shared.streams.consumer import Consumer
from shared.streams.declare import DEADLETTER
from shared.streams.kv import KvProjection
from shared.streams.relay import Relay

_SHARED: Final = Path(shared.__file__).parent
MIGRATIONS: Final = (
    _SHARED / "eventlog" / "migrations",
    _SHARED / "streams" / "migrations",
    Path(__file__).parent / "migrations",
)
"""Everything that makes metering's schema, in this order."""

USAGE_BATCH_MAX: Final = 10_000
"""As many as there are: the counters of a transaction are written once, however many messages they come from."""
LINGER_S: Final = 0.015
"""How long a message waits for company: one commit for many costs little more than one for one."""
BEHIND: Final = 1_000
"""Messages not yet counted from which on counting comes before showing."""
BEHIND_LINGER_S: Final = 0.1
"""LINGER_S then: what has to be written for each application and lease is written for more messages at once."""
BUFFER_MESSAGES: Final = 20_000
"""Shared by all partitions, of which one may have everything; 64 MB bound it besides."""


class MeteringSettings(CatalogSettings, DatabaseSettings):
    """What metering needs to be told."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    http_port: Port = Field(8083, description="Port for health, metrics and AsyncAPI")
    partitions: Annotated[int, Field(ge=1, le=256)] = Field(16, description="Partitions of USAGE; the gates have the same number")
    vault_key: SecretStr = Field(
        description="64 hexadecimal digits: seals stored replies; comma-separated keys: the first one seals, all open"
    )
    worker: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = Field(
        "metering", description="This worker's name in the table of leases; each start adds something of its own"
    )
    lease_s: Annotated[float, Field(ge=1, le=300)] = Field(
        LEASE_S, description="Seconds that a gate may spend from a quota lease; the same for every worker"
    )
    lease_margin_s: Annotated[float, Field(ge=0.05)] = Field(
        MARGIN_S, description="Seconds kept at a quota lease's end, for interval timers that drift apart; under half of the lease"
    )

    hours_kept_months: Annotated[int, Field(ge=MONTHS_MIN, le=1200)] = Field(
        Policy().hours, description="Months that hourly counters are kept for, besides the one that is running"
    )
    days_kept_months: Annotated[int, Field(ge=MONTHS_MIN, le=1200)] = Field(
        Policy().days, description="The same of daily counters: at least as many; monthly ones are kept for ever"
    )

    @model_validator(mode="after")
    def _the_margin_leaves_room(self) -> MeteringSettings:
        if self.lease_margin_s >= self.lease_s / 2:
            raise ValueError("TOLLBOOK_LEASE_MARGIN_S has to be less than half of TOLLBOOK_LEASE_S")
        return self

    @model_validator(mode="after")
    def _days_outlast_hours(self) -> MeteringSettings:
        if self.days_kept_months < self.hours_kept_months:
            raise ValueError("TOLLBOOK_DAYS_KEPT_MONTHS has to be at least TOLLBOOK_HOURS_KEPT_MONTHS")
        return self

    def policy(self) -> Policy:
        """How long detail is kept."""
        return Policy(self.hours_kept_months, self.days_kept_months)


SETTINGS = MeteringSettings


class _Running(Protocol):
    """A background task that says how it is."""

    async def run(self) -> None: ...

    def readiness(self) -> Readiness: ...


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
    vault = Vault(settings.vault_key)
    ends = Ends(subjects(settings.partitions), lambda: service.nc, SystemClock())
    handlers = Handlers(catalog, ends, SystemClock())
    limit_handlers = LimitHandlers(catalog, SystemClock())
    handlers.subscribe(service.broker)
    limit_handlers.subscribe(service.broker)
    desk = LetterDesk(service, SystemClock())
    terms = Terms(settings.lease_s, settings.lease_margin_s, {entry.id: entry.test_quota for entry in catalog.values()})
    leasing = Leasing(service, terms, subjects(settings.partitions), settings.partitions, ends, SystemClock())
    service.document.channels += channels()
    service.readiness("queries", handlers.readiness)

    async def start() -> None:
        pool = await open_pool(settings.postgres_dsn.get_secret_value(), SERVICE, settings.postgres_pool_max)
        service.resources.push_async_callback(pool.close)
        deciding = _start_deciding(service, settings, catalog, pool, vault)
        started = _start_counting(service, settings, catalog, pool, deciding, leasing, desk)
        for answering in (handlers, limit_handlers, desk):
            answering.start(started)

    service.starter(start)
    return service


class _Deciding(NamedTuple):
    """The parts around metering's own log. `committed` is to be called after each commit to it."""

    log: EventLog[MeteringEvent]
    transactor: Transactor[MeteringEvent]
    evaluator: Evaluator
    committed: Callable[[], None]


def _start_deciding(service: Service, settings: MeteringSettings, catalog: Catalog, pool: Pool, vault: Vault) -> _Deciding:
    clock = SystemClock()
    log = EventLog(CODEC, clock)
    relay = Relay(SERVICE, pool, log, lambda: service.nc, settings.nats_replicas, clock)
    log.guard = relay.guard
    limits = KvProjection(
        LIMITS_BUCKET,
        pool,
        lambda: service.nc,
        limits_values(catalog),
        clock,
        all_keys=limits_keys,
        replicas=settings.nats_replicas,
    )
    evaluator = Evaluator(pool, log, clock, relay.wake)
    service.background("relay", relay.run)
    service.background("limits", limits.run)
    service.background("thresholds", evaluator.run)
    service.readiness("relay", relay.readiness)
    service.readiness("limits", limits.readiness)
    service.readiness("thresholds", evaluator.readiness)

    def committed() -> None:
        relay.wake()
        limits.wake()
        evaluator.wake()

    return _Deciding(log, Transactor(pool, log, vault, project, clock, committed), evaluator, committed)


def _start_counting(
    service: Service,
    settings: MeteringSettings,
    catalog: Catalog,
    pool: Pool,
    deciding: _Deciding,
    leasing: Leasing,
    desk: LetterDesk,
) -> Started:
    clock = SystemClock()

    def nc() -> Client:
        return service.nc

    directory = Directory(nc, clock)
    ingest = Ingest(catalog, directory, nc, Metrics(service.metrics))
    registry = registry_consumer(pool, nc, clock)
    alerts = alerts_consumer(pool, nc, clock)
    usage = Consumer(
        USAGE_CONSUMER,
        pool,
        nc,
        ingest.handle,
        batch_max=USAGE_BATCH_MAX,
        linger_s=LINGER_S,
        behind=BEHIND,
        behind_linger_s=BEHIND_LINGER_S,
        buffer_messages=BUFFER_MESSAGES,
        clock=clock,
        committed=deciding.evaluator.wake,
    )
    housekeeping = Housekeeping(pool, deciding.log, Retention(settings.policy(), clock), clock, deciding.committed)
    letters, resender = desk.begin(pool)
    parts: dict[str, Part] = {"housekeeping": housekeeping, "keeper": leasing.start(pool), "retries": resender}
    parts |= {REGISTRY: _SourcePart(registry, Source(REGISTRY)), DEADLETTER: _SourcePart(letters, LETTERS)}
    parts[ALERTS] = _SourcePart(alerts, RULES)
    parts |= {subject: _SourcePart(usage, Source(USAGE, subject)) for subject in subjects(settings.partitions)}
    running: dict[str, _Running] = {"registry": registry, "alerts": alerts, "usage": usage}
    running["partitions"] = Partitions(pool, f"{settings.worker}-{new_id()}", parts, clock)
    running["streams"] = Streams(pool, nc, settings.partitions, settings.nats_replicas)
    running["dashboards"] = KvProjection(
        BUCKET,
        pool,
        nc,
        dashboard_values(catalog, clock),
        clock,
        all_keys=dashboard_keys,
        replicas=settings.nats_replicas,
        busy=lambda: sum(usage.lag().values()) > BEHIND,
    )
    service.background("housekeeping", housekeeping.run)
    for name, part in running.items():
        service.background(name, part.run)
        service.readiness(name, part.readiness)
    gc.collect()
    gc.freeze()  # what is here now stays: walking it again and again, when thousands of messages wait, takes 80 ms each time
    return Started(pool, directory, deciding.transactor)


async def rebuild(settings: MeteringSettings) -> str:
    """Build the tables of limits again from the log and those of others' facts from their streams, then forget every count, so
    that USAGE is counted again from its first message. Raises Conflict, with the counts as they were, when that one is gone."""
    assert settings.postgres_owner_dsn is not None, "checked by shared.main"
    owner_dsn = settings.postgres_owner_dsn.get_secret_value()
    seed = None if settings.nats_seed is None else settings.nats_seed.get_secret_value()
    projected = await rebuild_tables(owner_dsn, SERVICE, EventLog(CODEC, SystemClock()), project, TABLES)
    counted = await count_again(owner_dsn, settings.nats_url, seed, settings.policy())
    return f"{', '.join(TABLES)} built again from {projected} events; {counted}"


PROGRAM: Final = Program(SERVICE, MeteringSettings, build, MIGRATIONS, rebuild, CODEC)
