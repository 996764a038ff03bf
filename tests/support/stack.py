"""The embedded stack as a user starts it: a process, its output, its ready.json."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from deploy.servers.program import free_port
from deploy.settings import DEFAULT_PORTS

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 40


class StackProcess:
    """`python -m deploy` in a folder of its own. `ports`: its settings, by default free ones for everything. `before` goes before
    the command line, for a stack that runs where this process is not; `home` must then be readable at `seen_at`."""

    def __init__(
        self,
        home: Path,
        ports: Mapping[str, int] | None = None,
        before: Sequence[str] = (),
        seen_at: Path | None = None,
    ) -> None:
        self.home = seen_at or home
        self._before = before
        asked = {name: free_port() for name in DEFAULT_PORTS} if ports is None else ports
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TOLLBOOK_")}
        self._env = clean | {f"TOLLBOOK_{name.upper()}_PORT": str(port) for name, port in asked.items()}
        self._env["TOLLBOOK_HOME"] = str(home)
        self.process: subprocess.Popen[bytes] | None = None
        self._ready: dict[str, Any] = {}
        self.log = home.with_name(f"{home.name}.log")

    def start(self) -> StackProcess:
        """Start it and wait until it is ready."""
        self.begin()
        return self.wait()

    def wait(self) -> StackProcess:
        """Wait until ready.json is there: whatever can be ready is, and the proxy answers."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self.home / "ready.json").exists():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the stack did not start:\n{self.output()[-6000:]}")
            time.sleep(0.05)
        return self

    def begin(self) -> None:
        """Start it and do not wait. The ready.json of a stack that was killed is gone."""
        (self.home / "ready.json").unlink(missing_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self._before, sys.executable, "-m", "deploy"], cwd=ROOT, env=self._env, stdout=output, stderr=subprocess.STDOUT
            )

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the stack did not stop:\n{self.output()[-6000:]}") from None

    def kill(self) -> None:
        """kill -9 of the supervisor and of everything it started, all at once."""
        assert self.process is not None
        pids = self.ready["pids"].values() if (self.home / "ready.json").exists() else ()
        for pid in (self.process.pid, *pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(10)

    @property
    def ready(self) -> dict[str, Any]:
        """What ready.json says; while it is not there, what it said last: addresses and tokens stay."""
        if (self.home / "ready.json").exists():
            self._ready = json.loads((self.home / "ready.json").read_text())
        assert self._ready, "it was never ready"
        return self._ready

    def output(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    def curl_lines(self) -> list[str]:
        """The commands that were printed to be copied."""
        return [line.strip() for line in self.output().splitlines() if line.strip().startswith("curl ")]


class Customer:
    """Somebody with an API token, at the REST API and at the proxy."""

    def __init__(self, stack: StackProcess, token: str | None = None) -> None:
        self.ready = stack.ready
        self.http = httpx.AsyncClient(
            base_url=self.ready["console_url"],
            headers={"authorization": f"Bearer {token or self.ready['owner_token']}"},
            timeout=15,
            trust_env=False,
        )
        self.caller = httpx.AsyncClient(base_url=self.ready["proxy_url"], timeout=15, trust_env=False)

    async def __aenter__(self) -> Customer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        await self.caller.aclose()

    async def register(self, name: str = "Recorder", **environments: list[str]) -> tuple[str, str]:
        """Client ID and secret of a new application for csr."""
        body = {"name": name, "services": ["csr"], "environments": {"android": ["com.example.recorder"], **environments}}
        answer = await self.http.post("/v1/apps", json=body)
        assert answer.status_code == 201, answer.text
        await asyncio.sleep(0.5)  # the gate learns of it from the stream, milliseconds after this answer
        return answer.json()["client_id"], answer.json()["client_secret"]

    async def call(self, client_id: str, secret: str, **headers: str) -> httpx.Response:
        """One call of the sample speech API through the proxy."""
        key = {"X-NCP-APIGW-API-KEY-ID": client_id, "X-NCP-APIGW-API-KEY": secret}
        return await self.caller.post("/recog/v1/stt?lang=Kor", content=b"some audio", headers=key | headers)

    async def used(self, client_id: str, period: str = "daily") -> int:
        answer = await self.http.get(f"/v1/apps/{client_id}/usage", params={"service": "csr", "period": period})
        assert answer.status_code == 200, answer.text
        return int(answer.json()["used"])

    async def wait_used(self, client_id: str, expected: int, within_s: float) -> None:
        """Until the usage is `expected`; then once more a moment later, so that more than that is seen too."""
        deadline = asyncio.get_running_loop().time() + within_s
        while (used := await self.used(client_id)) != expected:
            assert asyncio.get_running_loop().time() < deadline, f"{used} counted, {expected} passed"
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert await self.used(client_id) == expected
