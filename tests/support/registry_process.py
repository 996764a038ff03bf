"""The registry as a process of its own on a real NATS and PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeVar

import httpx
from nats.aio.client import Client

from deploy.servers.program import free_port
from deploy.servers.roles import ServiceDsn
from shared.commands.base import Reply
from shared.commands.registry import AcceptTerms, AccountView, AppIssued, OpenAccount, RegisterApp, TermsAcceptance
from shared.commands.requester import ask
from shared.ids import new_id

ROOT = Path(__file__).parents[2]
PEPPER = "0f" * 32
VAULT_KEY = "a5" * 32
TERMS = "2026-11-01"
R = TypeVar("R", bound=Reply)


class RegistryProcess:
    """`python -m services.registry`, started, stopped and killed at will; `log` gathers what it writes."""

    def __init__(self, nats_url: str, dsn: ServiceDsn, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.log = folder / "registry.log"
        self.env = {
            **os.environ,
            "TOLLBOOK_NATS_URL": nats_url,
            "TOLLBOOK_HTTP_PORT": str(self.port),
            "TOLLBOOK_POSTGRES_DSN": dsn.dsn,
            "TOLLBOOK_POSTGRES_OWNER_DSN": dsn.owner_dsn,
            "TOLLBOOK_CATALOG": str(ROOT / "deploy" / "catalog.yaml"),
            "TOLLBOOK_TERMS": str(ROOT / "deploy" / "terms.yaml"),
            "TOLLBOOK_PEPPER": PEPPER,
            "TOLLBOOK_VAULT_KEY": VAULT_KEY,
            "TOLLBOOK_LOG_LEVEL": "DEBUG",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, *, ready: bool = True) -> None:
        """Start it and wait until it is ready; or until it answers whether it is."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - the test waits for it anyway
                [sys.executable, "-m", "services.registry"], cwd=ROOT, env=self.env, stderr=output, stdout=output
            )
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(600):
                assert self._process.poll() is None, self.log.read_text()
                try:
                    answer = await client.get(f"http://127.0.0.1:{self.port}/readyz", timeout=10)
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    continue
                if answer.status_code == 200 or not ready:
                    return
                await asyncio.sleep(0.05)
        raise AssertionError(self.log.read_text())

    async def readiness(self) -> dict[str, Any]:
        """The body of /readyz."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return dict((await client.get(f"http://127.0.0.1:{self.port}/readyz", timeout=10)).json())

    def run(self, option: str) -> str:
        """`python -m services.registry <option>` to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "services.registry", option],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            timeout=60,
            check=True,
        )
        return done.stdout.decode()

    def run_to_its_end(self) -> tuple[int, str]:
        """Start it where it cannot run: its exit code, and what it wrote."""
        done = subprocess.run(
            [sys.executable, "-m", "services.registry"], cwd=ROOT, env=self.env, capture_output=True, timeout=60
        )
        return done.returncode, (done.stdout + done.stderr).decode()

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
