"""A service as a process of its own on a real NATS and PostgreSQL: started, asked how it is, stopped and killed at will."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from deploy.servers.program import free_port
from deploy.servers.roles import ServiceDsn
from tests.support.preloaded import Child, preloaded

ROOT = Path(__file__).parents[2]
LOOK_S = 0.05
START_WITHIN_S = 30.0
END_WITHIN_S = 60


class RunningService:
    """`python -m services.<service>`; `log` gathers what it writes. `settings`: environment variables besides the usual ones."""

    service: str

    def __init__(self, nats_url: str, dsn: ServiceDsn, folder: Path, name: str = "one", **settings: str) -> None:
        self.port = free_port()
        self.log = folder / f"{self.service}-{name}.log"
        self.env = {
            **os.environ,
            "TOLLBOOK_NATS_URL": nats_url,
            "TOLLBOOK_HTTP_PORT": str(self.port),
            "TOLLBOOK_POSTGRES_DSN": dsn.dsn,
            "TOLLBOOK_POSTGRES_OWNER_DSN": dsn.owner_dsn,
            "TOLLBOOK_CATALOG": str(ROOT / "deploy" / "catalog.yaml"),
            "TOLLBOOK_LOG_LEVEL": "DEBUG",
            **settings,
        }
        self._process: Child | None = None

    async def start(self, *, ready: bool = True) -> None:
        """Start it and wait until it is up; or until it answers whether it is."""
        self.launch()
        assert self._process is not None
        for _ in range(int(START_WITHIN_S / LOOK_S)):
            assert self._process.poll() is None, self.log.read_text()
            try:
                if self.is_up(await self.readiness()) or not ready:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(LOOK_S)
        raise AssertionError(self.log.read_text())

    def is_up(self, readiness: dict[str, Any]) -> bool:
        """Whether `start` is done."""
        return bool(readiness["ready"])

    def launch(self) -> None:
        """Start it."""
        self._process = preloaded(self.service).start(self.env, self.log)

    async def readiness(self) -> dict[str, Any]:
        """The body of /readyz."""
        return dict((await self._get("/readyz")).json())

    async def metrics(self) -> str:
        return (await self._get("/metrics")).text

    async def _get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)

    def run(self, *options: str) -> subprocess.CompletedProcess[bytes]:
        """`python -m services.<service> <options>` to its end."""
        return subprocess.run(
            [sys.executable, "-m", f"services.{self.service}", *options],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            timeout=END_WITHIN_S,
            check=False,
        )

    def printed(self, *options: str) -> str:
        """What that prints. It has to end well."""
        done = self.run(*options)
        done.check_returncode()
        return done.stdout.decode()

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
