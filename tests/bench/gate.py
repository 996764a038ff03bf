"""Authorised calls: a gate process, a bare ASGI function, and FastAPI with redis, each asked the same by wrk."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import httpx

from deploy.servers.program import free_port
from shared.streams.declare import ensure_stream, log_stream, usage_stream
from tests.bench.examples import PEPPER, Issued, issue, opened, publish_registry
from tests.bench.ingest import CATALOG
from tests.bench.measure import Aim, Measure, Measured, Row, interleaved, row
from tests.bench.peers import HERE, ROOT, TIMEOUT_S, peer_python, redis_server, wrk
from tests.bench.place import Place, ServiceProcess, end, until

APPS: Final = 1_000
CONNECTIONS: Final = 64
SECONDS: Final = 3
SCRIPT: Final = ROOT / "tests" / "bench" / "calls.lua"
GATE, BARE, REDIS = "gate", "bare ASGI function", "FastAPI and redis INCR"


class Caller:
    """wrk, and the latencies that it has seen: milliseconds by target, p50 and p99 of each run."""

    def __init__(self, credentials: Path, seconds: int = SECONDS) -> None:
        self.latencies: dict[str, list[tuple[float, float]]] = {}
        self._credentials = credentials
        self._seconds = seconds
        self._wrk, self._environment = wrk()

    async def calls(self, name: str, *ports: int, seconds: int | None = None) -> float:
        """Load a target for some seconds, at each of its ports by a wrk with its share of CONNECTIONS: calls a second.

        Raises RuntimeError when one of them was not answered with 200.
        """
        seen = await asyncio.gather(
            *(self._called(name, port, CONNECTIONS // len(ports), seconds or self._seconds) for port in ports)
        )
        self.latencies.setdefault(name, []).append(
            (max(one["p50_us"] for one in seen) / 1000, max(one["p99_us"] for one in seen) / 1000)
        )
        return sum(1_000_000 * one["requests"] / one["duration_us"] for one in seen)

    async def _called(self, name: str, port: int, connections: int, seconds: int) -> dict[str, int]:
        """What one wrk has seen."""
        command = [
            str(self._wrk),
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "-s",
            str(SCRIPT),
            f"http://127.0.0.1:{port}",
        ]
        environment = {**os.environ, **self._environment}
        running = await asyncio.create_subprocess_exec(
            *command, "--", str(self._credentials), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        out, err = await asyncio.wait_for(running.communicate(), TIMEOUT_S)
        if running.returncode != 0:
            raise RuntimeError(f"wrk failed:\n{err.decode()[-2000:]}")
        seen: dict[str, int] = json.loads(out.decode().splitlines()[-1])
        if seen["refused"] or seen["failed"] or not seen["requests"]:
            raise RuntimeError(f"{name}: not every call was answered with 200: {seen}")
        return seen

    def latency(self, name: str, which: int) -> Measured:
        """p50 (0) or p99 (1) of the runs that count: all but the warm-up."""
        return Measured(tuple(run[which] for run in self.latencies[name][1:]))


async def measure(place: Place) -> list[Row]:
    """All three in turn, while the other two are idle."""
    issued = issue(APPS)
    credentials = write_credentials(place, issued)
    secrets = place.folder / "secrets.json"
    secrets.write_text(json.dumps({app.client_id: app.secret for app in issued}))
    async with place.cleared() as (nc, _):
        await publish_registry(nc, [opened(), *(app.registered() for app in issued)])
        await ensure_stream(nc, usage_stream())
        await ensure_stream(nc, log_stream("metering"))
        gate = gate_process(place)
        bare = ServiceProcess("tests.bench.bare", place.folder, {})
        try:
            await gate.ready()
            await bare.ready()
            async with fastapi_and_redis(place.folder, secrets) as redis_port:
                caller = Caller(credentials)
                ports = {GATE: gate.port, BARE: bare.port, REDIS: redis_port}
                found = await interleaved({name: _calls(caller, name, port) for name, port in ports.items()})
        finally:
            gate.stop()
            bare.stop()
    return _rows(found, caller)


def write_credentials(place: Place, issued: Sequence[Issued], name: str = "credentials.txt") -> Path:
    """The file that wrk's script reads."""
    path = place.folder / name
    path.write_text("".join(f"{app.client_id} {app.secret}\n" for app in issued))
    return path


def gate_process(place: Place) -> ServiceProcess:
    return ServiceProcess("services.gate", place.folder, {"NATS_URL": place.nats_url, "CATALOG": CATALOG, "PEPPER": PEPPER})


def _calls(caller: Caller, name: str, port: int) -> Measure:
    return lambda: caller.calls(name, port)


def _rows(found: dict[str, Measured], caller: Caller) -> list[Row]:
    what = f"authorised calls, {CONNECTIONS} connections, record on disk before the answer"
    rows = [
        row("gate", what, "calls/s", found[GATE], found[BARE], "a bare ASGI function, nothing recorded", Aim(0.5)),
        row("gate", what, "calls/s", found[GATE], found[REDIS], "FastAPI and redis INCR, nothing on disk", Aim(8.0)),
    ]
    for which, name in enumerate(("p50", "p99")):
        bare = statistics.median(caller.latency(BARE, which).runs)
        note = f"bare ASGI function: {bare:.1f} ms"
        ours, theirs = caller.latency(GATE, which), caller.latency(REDIS, which)
        rows.append(row("gate", f"{name} of the same", "ms", ours, theirs, "FastAPI and redis INCR", note=note))
    return rows


@asynccontextmanager
async def fastapi_and_redis(folder: Path, secrets: Path) -> AsyncIterator[int]:
    """FastAPI with one worker and its redis, which keeps nothing: the port."""
    port, redis_port = free_port(), free_port()
    redis = [str(redis_server()), "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (
        _running(redis, folder / "redis.log", folder),
        _running(
            [str(peer_python()), str(HERE / "redis_counter.py"), str(port), str(redis_port), str(secrets)], folder / "fastapi.log"
        ),
    ):
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:

            async def answers() -> bool:
                try:
                    return (await client.get(f"http://127.0.0.1:{port}/openapi.json")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(answers, "FastAPI to answer", pause_s=0.1)
            yield port


@contextmanager
def _running(command: list[str], log: Path, folder: Path | None = None) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:
        yield
    finally:
        end(process)
