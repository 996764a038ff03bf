"""Settings: from the environment, prefix TOLLBOOK_, checked before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]


class ServiceSettings(BaseSettings):
    """What every service needs to be told."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS servers, comma-separated")
    nats_seed: SecretStr | None = Field(None, description="This service's NKEY seed (SU...); none: connect without credentials")
    nats_replicas: Annotated[int, Field(ge=1, le=5)] = Field(1, description="Replicas of each JetStream stream")
    http_host: str = Field("127.0.0.1", description="Address that HTTP listens on")
    http_port: Port = Field(description="Port for HTTP: health, metrics, AsyncAPI, and the service's own edge if it has one")
    log_level: Annotated[str, StringConstraints(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"


class DatabaseSettings(ServiceSettings):
    """What a service with a PostgreSQL schema needs besides."""

    postgres_dsn: SecretStr = Field(description="The service's own role: postgresql://role:password@host:port/database")
    postgres_owner_dsn: SecretStr | None = Field(None, description="The schema owner's role; only --migrate and --rebuild use it")
    postgres_pool_max: Annotated[int, Field(ge=2, le=200)] = 10


class CatalogSettings(BaseSettings):
    """Where the catalog of services is read from."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", frozen=True)

    catalog: Path = Field(description="The YAML file of services that applications can select")
