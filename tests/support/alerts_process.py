"""Alerts as a process of its own on a real NATS and PostgreSQL, an account that asks it, and a look at what it keeps."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import httpx
from nats.aio.client import Client
from pydantic import SecretStr

from deploy.servers.program import free_port
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

ROOT = Path(__file__).parents[2]
VAULT_KEY: Final = "c7" * 32
R = TypeVar("R", bound=Reply)


class AlertsProcess:
    """`python -m services.alerts`, started, stopped and killed at will; `log` gathers what it writes, in all detail."""

    def __init__(self, nats_url: str, dsn: ServiceDsn, folder: Path, name: str = "one", **settings: str) -> None:
        self.port = free_port()
        self.log = folder / f"alerts-{name}.log"
        self.env = {
            **os.environ,
            "TOLLBOOK_NATS_URL": nats_url,
            "TOLLBOOK_HTTP_PORT": str(self.port),
            "TOLLBOOK_POSTGRES_DSN": dsn.dsn,
            "TOLLBOOK_POSTGRES_OWNER_DSN": dsn.owner_dsn,
            "TOLLBOOK_CATALOG": str(ROOT / "deploy" / "catalog.yaml"),
            "TOLLBOOK_VAULT_KEY": VAULT_KEY,
            "TOLLBOOK_LOG_LEVEL": "DEBUG",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        self.launch()
        assert self._process is not None
        for _ in range(600):
            assert self._process.poll() is None, self.log.read_text()
            try:
                if (await self.readiness())["ready"]:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def launch(self) -> None:
        """Start it."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.alerts"], cwd=ROOT, env=self.env, stderr=output, stdout=output
            )

    async def readiness(self) -> dict[str, Any]:
        """The body of /readyz."""
        return dict((await self._get("/readyz")).json())

    async def metrics(self) -> str:
        return (await self._get("/metrics")).text

    async def _get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)

    def run(self, option: str) -> subprocess.CompletedProcess[bytes]:
        """`python -m services.alerts <option>` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "services.alerts", option],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(20)
        self._process = None
        return code

    def kill(self) -> None:
        """kill -9, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


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
