"""Alerts as a process of its own on a real NATS and PostgreSQL, an account that asks it, and a look at what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
from nats.aio.client import Client
from pydantic import SecretStr

from deploy.servers.roles import ServiceDsn
from shared.commands.base import Reply
from shared.commands.contacts import (
    AddContact,
    ConfirmVerification,
    ContactView,
    RequestVerification,
    VerificationResult,
    VerificationView,
)
from shared.commands.requester import ask
from shared.eventlog.vault import Vault
from shared.events.alerts import Method
from shared.ids import new_id
from tests.support.service_process import RunningService

VAULT_KEY: Final = "c7" * 32
R = TypeVar("R", bound=Reply)


class AlertsProcess(RunningService):
    """Alerts, which sends nowhere unless it is told to."""

    service = "alerts"

    def __init__(self, nats_url: str, dsn: ServiceDsn, folder: Path, name: str = "one", **settings: str) -> None:
        super().__init__(nats_url, dsn, folder, name, **{"TOLLBOOK_VAULT_KEY": VAULT_KEY, **settings})


class Asker:
    """One account that asks alerts, each time with a new command id unless one is given."""

    def __init__(self, nc: Client, dsn: ServiceDsn, account: str = "acme") -> None:
        self.nc = nc
        self.dsn = dsn
        self.account = account

    async def ask(self, message: type[Any], reply: type[R], **fields: Any) -> R:
        """The reply, or the error that alerts raised."""
        if "command_id" in message.model_fields:
            fields = {"command_id": new_id(), "actor": "token:t1", **fields}
        return await ask(self.nc, "alerts", message(**{"account": self.account, **fields}), reply, timeout_s=20)

    async def add(self, **fields: Any) -> ContactView:
        """A new contact, with a mail address unless told otherwise."""
        return await self.ask(AddContact, ContactView, **{"name": "Kim", "email": "kim@example.com", **fields})

    async def verify(self, contact_id: str, *methods: Method) -> None:
        """Have a code sent to the addresses, look into the vault for it, and enter it."""
        for method in methods:
            await self.ask(RequestVerification, VerificationView, contact_id=contact_id, method=method)
            code = await self.code(contact_id, method)
            result = await self.ask(ConfirmVerification, VerificationResult, contact_id=contact_id, method=method, code=code)
            assert result.verified

    async def code(self, contact_id: str, method: Method) -> str:
        """The code that waits to be entered, as its reader would read it in the message."""
        find = "SELECT code_vault_id FROM contact_method WHERE contact_id = $1 AND method = $2"
        ((vault_id,),) = await rows(self.dsn, find, contact_id, method)
        return (await kept(self.dsn, vault_id)).decode()


async def kept(dsn: ServiceDsn, vault_id: str) -> bytes:
    """What the vault of alerts keeps under that id. Raises NotFound."""
    connection = await _connected(dsn)
    try:
        return await Vault(SecretStr(VAULT_KEY)).get(connection, vault_id)
    finally:
        await connection.close()


async def rows(dsn: ServiceDsn, query: str, *args: object) -> list[tuple[Any, ...]]:
    """Rows of alerts' schema."""
    connection = await _connected(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query, *args)]
    finally:
        await connection.close()


async def _connected(dsn: ServiceDsn) -> asyncpg.Connection[asyncpg.Record]:
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn.owner_dsn)
    await connection.execute("SET search_path = alerts")
    return connection
