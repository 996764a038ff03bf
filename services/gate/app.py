"""The gate's composition root: settings, parts, start and stop."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Annotated, Final

import msgspec
from pydantic import Field, SecretStr

from services.gate.answers import HEADERS_TOO_LARGE, NOT_HTTP, as_bytes, refusals
from services.gate.commit import Committer
from services.gate.domain import Apps, Rules
from services.gate.edge import Edge
from services.gate.following import Follower
from services.gate.leases import Leases
from services.gate.leasing import Leasing
from services.gate.limits import SUBJECTS as LIMIT_SUBJECTS
from services.gate.limits import Limits, fold_registry
from services.gate.metrics import Metrics
from services.gate.reactions import Followed
from shared.asyncapi import ChannelDoc, MessageDoc, event_docs
from shared.catalog import load_catalog
from shared.clock import Clock, SystemClock
from shared.commands.quota import RECALL_SUBJECT, LeaseQuota, QuotaLeases, Recall
from shared.commands.quota import SUBJECT as QUOTA_SUBJECT
from shared.credentials import read_pepper
from shared.environments import reduce_web
from shared.events.metering import CODEC as METERING
from shared.events.metering import STREAM as METERING_STREAM
from shared.events.metering import SUBJECTS as METERING_SUBJECTS
from shared.events.registry import CODEC as REGISTRY
from shared.events.registry import STREAM as REGISTRY_STREAM
from shared.events.registry import SUBJECTS as REGISTRY_SUBJECTS
from shared.events.usage import MSGPACK, RECORDS_SUBJECT, UsageBatch, partition_of
from shared.ids import new_id
from shared.main import Program
from shared.service import Service
from shared.settings import CatalogSettings, Port, ServiceSettings
from shared.streams.jetstream import Connected

NAME: Final = "gate"


class GateSettings(ServiceSettings, CatalogSettings):
    """What the gate needs to be told."""

    http_port: Port = Field(8081, description="Port for /authorize, health, metrics and AsyncAPI")
    pepper: SecretStr = Field(description="64 hexadecimal digits, the registry's own: verifies Client Secrets")
    partitions: Annotated[int, Field(ge=1, le=256)] = Field(16, description="Partitions of usage; the same for metering")
    naver_unselected_answer: bool = Field(False, description="Answer 429/400 instead of 401/210 for a service not selected")
    in_flight_max: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000, description="Calls that wait for their record at once"
    )
    commit_timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(2.0, description="How long JetStream may take to acknowledge")


def build(settings: GateSettings, clock: Clock | None = None) -> Service:
    """The service, ready to run. Raises ValueError, in plain words, for a file or key that cannot be used."""
    catalog, publisher = load_catalog(settings.catalog), f"{NAME}-{new_id()}"
    clock, metrics, apps, leases = clock or SystemClock(), Metrics(), Apps(), Leases()
    committer = Committer(
        lambda: service.nc,
        publisher,
        settings.partitions,
        clock,
        metrics,
        timeout_s=settings.commit_timeout_s,
        waiting_max=settings.in_flight_max,
        still_good=leases.still_good,
    )
    partition = partition_of(publisher, settings.partitions)
    leasing = Leasing(lambda: service.nc, leases, publisher, partition, clock, metrics, committer.drained.wait)
    limits = Limits(frozenset(name for name, entry in catalog.items() if entry.test_quota is not None), leasing.revoke)
    registry, metering = _followers(lambda: service.nc, apps, limits, leasing)
    edge = Edge(
        apps,
        Rules(frozenset(catalog), read_pepper(settings.pepper)),
        refusals(naver_unselected_answer=settings.naver_unselected_answer),
        committer,
        limits,
        leasing,
        lambda: registry.ready and metering.ready,
        clock,
        metrics,
        waiting_max=settings.in_flight_max,
    )
    metrics.gauges["in_flight"] = "Calls that wait for their record", lambda: committer.waiting
    metrics.gauges["waiting_for_units"] = "Calls that wait for units of a limit", lambda: leasing.waiting
    metrics.gauges["applications"] = "Applications known", lambda: len(apps)
    metrics.gauges["limits"] = "Limited applications and accounts known, by service", lambda: len(limits)
    metrics.gauges["leases_held"] = "Quota leases held", lambda: leases.held()[0]
    metrics.gauges["units_held"] = "Units of quota leases held and not spent", lambda: leases.held()[1]
    service = Service(NAME, settings, "Decides whether a call may pass, and records the usage of each that did.", direct=edge)
    service.head_refusal = as_bytes(HEADERS_TOO_LARGE)
    service.not_http_refusal = as_bytes(NOT_HTTP)
    service.metrics.register(metrics)
    service.starter(_warm)
    service.background("registry", registry.run)
    service.background("limits", metering.run)
    service.background("commits", committer.run)
    service.background("leases", leasing.run)
    service.readiness("registry", registry.readiness)
    service.readiness("limits", metering.readiness)
    service.readiness("usage", committer.readiness)
    service.readiness("quota", leasing.readiness)
    service.document.channels += _channels()
    return service


def _followers(nc: Connected, apps: Apps, limits: Limits, leasing: Leasing) -> tuple[Follower, Follower]:
    """What reads the registry's stream, and what reads metering's."""
    registry = Followed(REGISTRY_STREAM, REGISTRY, partial(fold_registry, apps, leasing.revoke))
    metering = Followed(METERING_STREAM, METERING, limits.apply, LIMIT_SUBJECTS)
    return Follower(nc, registry, lambda: f"{len(apps)} applications"), Follower(nc, metering, lambda: f"{len(limits)} limits")


async def _warm() -> None:
    """Read the Public Suffix List now: it takes a fifth of a second, which no call should pay for."""
    reduce_web("https://example.com")


def _channels() -> list[ChannelDoc]:
    """What AsyncAPI shows beside the commands, of which the gate has none."""
    batch = MessageDoc(
        "UsageBatch", UsageBatch, inspect.getdoc(UsageBatch) or "", MSGPACK, {"Content-Type": MSGPACK}, ("Content-Type",)
    )
    return [
        ChannelDoc(
            "UsageBatches",
            f"{RECORDS_SUBJECT}.{{partition}}",
            "send",
            (batch,),
            "Calls that passed.",
            {"partition": "FNV-1a of the publisher modulo TOLLBOOK_PARTITIONS"},
        ),
        ChannelDoc(
            "LeaseQuota",
            QUOTA_SUBJECT,
            "send",
            (_doc(LeaseQuota), _doc(QuotaLeases)),
            "Units of limits are asked for, and returned; the reply has an answer for each wish.",
        ),
        ChannelDoc("Recall", RECALL_SUBJECT, "receive", (_doc(Recall),), "What is not spent of a scope is returned at once."),
        ChannelDoc("RegistryEvents", REGISTRY_SUBJECTS, "receive", event_docs(REGISTRY), "Read from the stream's first message."),
        ChannelDoc("Limits", METERING_SUBJECTS, "receive", _limit_docs(), "Read from the stream's first message."),
    ]


def _doc(payload: type[msgspec.Struct]) -> MessageDoc:
    return MessageDoc(payload.__name__, payload, inspect.getdoc(payload) or "")


def _limit_docs() -> tuple[MessageDoc, ...]:
    """The events of metering that are read."""
    names = {subject.rpartition(".")[2] for subject in LIMIT_SUBJECTS}
    return tuple(doc for doc in event_docs(METERING) if doc.name in names)


PROGRAM: Final = Program(NAME, GateSettings, build)
