"""The services of the stack, as data: which port they listen on, whether they have a schema, what else they are told."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.servers.program import Program

PROJECT: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ServiceSpec:
    """One service. `port` names the setting of its HTTP port (None: any free one); `told` the shared settings it gets.

    `keeps_secrets`: what its vault key has sealed could not be had again without the key.
    """

    name: str
    port: str | None = None
    schema: bool = True
    told: tuple[str, ...] = ()
    keeps_secrets: bool = True


CHANNELS: Final = (
    "SMTP_HOST",
    "SMTP_PORT",
    "SMTP_SECURITY",
    "MAIL_FROM",
    "SMS_PROVIDER",
    "SMS_SENDER",
    "SENS_BASE_URL",
    "SENS_SERVICE_ID",
    "SENS_ACCESS_KEY",
    "SENS_SECRET_KEY",
)
"""What alerts is told about mail and text messages."""
SERVICES: Final = (
    ServiceSpec("registry", told=("CATALOG", "TERMS", "PEPPER", "VAULT_KEY")),
    # Metering seals only the replies that repeated commands get: a database from before it had a key may get one.
    ServiceSpec("metering", told=("CATALOG", "VAULT_KEY", "PARTITIONS", "WORKER"), keeps_secrets=False),
    ServiceSpec("gate", port="gate", schema=False, told=("CATALOG", "PEPPER", "PARTITIONS")),
    ServiceSpec("alerts", told=("CATALOG", "VAULT_KEY", "CONSOLE_URL", "REVIEWERS_ACCOUNT", *CHANNELS)),
    ServiceSpec("review", told=("CATALOG", "MODELS", "REVIEW", "VAULT_KEY", "API_URL")),
    ServiceSpec(
        "console",
        port="console",
        told=("CATALOG", "TERMS", "VAULT_KEY", "NATS_CALLOUT_SEED", "NATS_DASHBOARDS_ACCOUNT", "NATS_DASHBOARDS_API"),
    ),
)
"""A service to come is one more line here and its user in deploy/permissions.py."""


def program(spec: ServiceSpec, environment: dict[str, str]) -> Program:
    """The service as a process of its own."""
    return Program(spec.name, (sys.executable, "-m", f"services.{spec.name}"), environment, folder=PROJECT)
