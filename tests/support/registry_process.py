"""The registry as a process of its own on a real NATS and PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.base import Reply
from shared.commands.registry import AcceptTerms, AccountView, AppIssued, OpenAccount, RegisterApp, TermsAcceptance
from shared.commands.requester import ask
from shared.ids import new_id
from tests.support.service_process import ROOT, RunningService

PEPPER = "0f" * 32
VAULT_KEY = "a5" * 32
TERMS = "2026-11-01"
R = TypeVar("R", bound=Reply)


class RegistryProcess(RunningService):
    """The registry, with the catalog and the terms of the embedded stack."""

    service = "registry"

    def __init__(self, nats_url: str, dsn: ServiceDsn, folder: Path, name: str = "one", **settings: str) -> None:
        told = {"TOLLBOOK_TERMS": str(ROOT / "deploy" / "terms.yaml"), "TOLLBOOK_PEPPER": PEPPER, "TOLLBOOK_VAULT_KEY": VAULT_KEY}
        super().__init__(nats_url, dsn, folder, name, **{**told, **settings})


class Customer:
    """One account that asks the registry, each time with a new command id unless one is given."""

    def __init__(self, nc: Client, account: str = "acme") -> None:
        self.nc = nc
        self.account = account

    async def ask(self, message: type[Any], reply: type[R], **fields: Any) -> R:
        """The reply, or the error that the registry raised."""
        if "command_id" in message.model_fields:
            fields = {"command_id": new_id(), "actor": "token:t1", **fields}
        return await ask(self.nc, "registry", message(account=self.account, **fields), reply, timeout_s=20)

    async def opened(self, *, terms: bool = True) -> Customer:
        """The same, with its account open and the terms accepted."""
        await self.ask(OpenAccount, AccountView, zone="Asia/Seoul")
        if terms:
            await self.ask(AcceptTerms, TermsAcceptance, version=TERMS)
        return self

    async def register(self, **fields: Any) -> AppIssued:
        """A new application."""
        asked = {"name": "speech", "services": ["csr"], "environments": {"android": ["com.example.app"]}, **fields}
        return await self.ask(RegisterApp, AppIssued, **asked)
