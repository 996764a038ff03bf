"""Every key and password of the stack, made at its first start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from deploy.home import Home
from deploy.permissions import PERMISSIONS
from deploy.secrets import Secrets, new_account_seed, new_key, new_password, new_user_seed, public_key
from deploy.sens import Account
from deploy.servers.nats_config import NatsUser
from deploy.servers.roles import ServicePasswords
from deploy.services import SERVICES, ServiceSpec
from shared.ids import new_client_id

POSTGRES_ADMIN: Final = "postgres-admin"
SENS_SERVICE: Final = "ncp:sms:kr:000000000000:tollbook"
"""What the stack's own receiver of text messages is called."""


@dataclass(frozen=True)
class Keys:
    """`nats` is by user, `postgres` and `vault` by service."""

    postgres_admin: str
    postgres: dict[str, ServicePasswords]
    nats: dict[str, str]
    callout: str
    pepper: str
    vault: dict[str, str]
    sens: Account

    def nats_users(self) -> dict[str, NatsUser]:
        """Each user's public key with its permissions, for the server's configuration."""
        return {name: NatsUser(public_key(seed), PERMISSIONS[name]) for name, seed in self.nats.items()}


def load_keys(secrets: Secrets, home: Home) -> Keys:
    """Read the keys, or make those that are missing. Raises StackError when one is missing that existing data depends on."""
    return Keys(
        postgres_admin=secrets.get(POSTGRES_ADMIN, new_password, data=home.postgres),
        pepper=secrets.get("pepper", new_key, data=home.postgres),
        # Before the passwords, which tell whether the service was ever started here.
        vault={
            spec.name: secrets.get(f"vault-{spec.name}", new_key, data=home.postgres if _needs_its_key(secrets, spec) else None)
            for spec in SERVICES
            if "VAULT_KEY" in spec.told
        },
        postgres={
            spec.name: ServicePasswords(
                owner=secrets.get(f"postgres-{spec.name}-owner", new_password),
                service=secrets.get(f"postgres-{spec.name}", new_password),
            )
            for spec in SERVICES
            if spec.schema
        },
        nats={name: secrets.get(f"nats-{name}", new_user_seed) for name in PERMISSIONS},
        sens=Account(
            SENS_SERVICE,
            secrets.get("sens-access-key", new_client_id),
            secrets.get("sens-secret-key", new_password),
        ),
        callout=secrets.get("nats-callout", new_account_seed),
    )


def _needs_its_key(secrets: Secrets, spec: ServiceSpec) -> bool:
    """Whether the service was ever started here, and has sealed what needs the key that it had."""
    return spec.keeps_secrets and secrets.read(f"postgres-{spec.name}") is not None
