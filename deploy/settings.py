"""Settings of the embedded stack, from the environment, prefix TOLLBOOK_."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import Port

DEFAULT_PORTS: Final = {
    "proxy": 8000,
    "console": 8080,
    "gate": 8081,
    "nats": 4222,
    "nats_websocket": 4280,
    "postgres": 5432,
}
"""Where each listens when nobody asks for another port. A busy one moves to the next free port."""


class StackSettings(BaseSettings):
    """What `make run` can be told."""

    model_config = SettingsConfigDict(env_prefix="TOLLBOOK_", env_ignore_empty=True, frozen=True)

    home: Path = Field(Path(".tollbook"), description="The folder of all data, keys and tokens")
    proxy_port: Port | None = Field(None, description="Caddy, where callers call (8000)")
    console_port: Port | None = Field(None, description="The REST API (8080)")
    gate_port: Port | None = Field(None, description="The gate (8081)")
    nats_port: Port | None = Field(None, description="NATS (4222)")
    nats_websocket_port: Port | None = Field(None, description="NATS over WebSocket (4280)")
    postgres_port: Port | None = Field(None, description="PostgreSQL (5432)")
    log_level: Annotated[str, StringConstraints(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"

    def asked_ports(self) -> dict[str, int | None]:
        """By name, the port that was asked for, or None."""
        return {name: getattr(self, f"{name}_port") for name in DEFAULT_PORTS}
