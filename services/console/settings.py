"""What the console needs to be told besides what every service does."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

import nkeys
from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from shared.settings import DatabaseSettings, Port

Network = IPv4Network | IPv6Network


def _networks(text: str) -> str:
    for part in filter(None, (part.strip() for part in text.split(","))):
        ip_network(part, strict=False)
    return text


def _account_seed(seed: SecretStr) -> SecretStr:
    try:
        prefix, _ = nkeys.decode_seed(seed.get_secret_value().encode())
    except Exception:
        prefix = None
    if prefix != nkeys.PREFIX_BYTE_ACCOUNT:
        raise ValueError("this is not the seed of an account NKEY (SA...)")
    return seed


class ConsoleSettings(DatabaseSettings):
    """Settings of the console."""

    http_port: Port = Field(8080, description="Port for the API")
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        "", description="Comma-separated networks whose X-Forwarded-For is believed; none: the peer's own address counts"
    )
    nats_callout_seed: Annotated[SecretStr, AfterValidator(_account_seed)] | None = Field(
        None, description="Seed (SA...) of the account NKEY that auth_callout names as issuer; none: no dashboards over NATS"
    )
    nats_dashboards_account: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_$-]{1,64}$")] = Field(
        "TOLLBOOK", description="The NATS account that dashboards' connections are put in"
    )

    nats_dashboards_api: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)?$")] = Field(
        "",
        description="Subject prefix of the JetStream API of the dashboards' account, when that is an account of its own:"
        " the console then keeps mirrors of the KV buckets there; none: dashboards are in the services' account",
    )
    vault_key: SecretStr | None = Field(
        None,
        description="64 hexadecimal digits that seal stored replies; none: a new one at each start, as no reply is secret yet",
    )

    def proxies(self) -> tuple[Network, ...]:
        """`trusted_proxies` taken apart."""
        return tuple(ip_network(part.strip(), strict=False) for part in self.trusted_proxies.split(",") if part.strip())
