"""The gate's composition root: settings, parts, start and stop."""

from __future__ import annotations

import inspect
from typing import Annotated, Final

from pydantic import Field, SecretStr

from services.gate.answers import HEADERS_TOO_LARGE, NOT_HTTP, as_bytes, refusals
from services.gate.commit import Committer
from services.gate.domain import Apps, Rules
from services.gate.edge import Edge
from services.gate.following import Follower
from services.gate.metrics import Metrics
from shared.asyncapi import ChannelDoc, MessageDoc, event_docs
from shared.catalog import load_catalog
from shared.clock import SystemClock
from shared.credentials import read_pepper
from shared.environments import reduce_web
from shared.events.registry import CODEC as REGISTRY
from shared.events.registry import SUBJECTS as REGISTRY_SUBJECTS
from shared.events.usage import MSGPACK, RECORDS_SUBJECT, UsageBatch
from shared.ids import new_id
from shared.main import Program
from shared.service import Service
from shared.settings import CatalogSettings, Port, ServiceSettings

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


def build(settings: GateSettings) -> Service:
    """The service, ready to run. Raises ValueError, in plain words, for a file or key that cannot be used."""
    clock, metrics, apps = SystemClock(), Metrics(), Apps()
    follower = Follower(lambda: service.nc, apps)
    committer = Committer(
        lambda: service.nc,
        f"{NAME}-{new_id()}",
        settings.partitions,
        clock,
        metrics,
        timeout_s=settings.commit_timeout_s,
        waiting_max=settings.in_flight_max,
    )
    edge = Edge(
        apps,
        Rules(frozenset(load_catalog(settings.catalog)), read_pepper(settings.pepper)),
        refusals(naver_unselected_answer=settings.naver_unselected_answer),
        committer,
        lambda: follower.ready,
        clock,
        metrics,
    )
    metrics.gauges["in_flight"] = "Calls that wait for their record", lambda: committer.waiting
    metrics.gauges["applications"] = "Applications known", lambda: len(apps)
    service = Service(NAME, settings, "Decides whether a call may pass, and records the usage of each that did.", direct=edge)
    service.head_refusal = as_bytes(HEADERS_TOO_LARGE)
    service.not_http_refusal = as_bytes(NOT_HTTP)
    service.metrics.register(metrics)
    service.starter(_warm)
    service.background("registry", follower.run)
    service.background("commits", committer.run)
    service.readiness("registry", follower.readiness)
    service.readiness("usage", committer.readiness)
    service.document.channels += _channels()
    return service


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
        ChannelDoc("RegistryEvents", REGISTRY_SUBJECTS, "receive", event_docs(REGISTRY), "Read from the stream's first message."),
    ]


PROGRAM: Final = Program(NAME, GateSettings, build)
