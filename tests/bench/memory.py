"""Resident memory of each service of the embedded stack: at rest, and when there are 100,000 applications."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx

from deploy.services import SERVICES
from services.registry.projection import project
from shared.clock import SystemClock
from shared.eventlog.changes import apply
from shared.eventlog.log import Entry, EventLog, Meta
from shared.events.registry import CODEC
from shared.ids import new_id
from tests.bench.examples import cut, issue, opened
from tests.bench.measure import Row, said
from tests.bench.peers import TOOLS
from tests.bench.place import Place, until
from tests.support.stack import StackProcess

APPS: Final = 100_000
AT_ONCE: Final = 2_000
SETTLE_S: Final = 3.0
TIMEOUT_S: Final = 180.0
KIB: Final = 1024


def resident_mib(pid: int) -> float:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / KIB
    raise RuntimeError(f"process {pid} has no resident memory")


async def measure(place: Place) -> list[Row]:
    """The stack as `make run` starts it, in a folder of its own."""
    names = [spec.name for spec in SERVICES]
    with tempfile.TemporaryDirectory(prefix="bench-stack-", dir=TOOLS, ignore_cleanup_errors=True) as folder:
        stack = StackProcess(Path(folder) / "home").start()
        try:
            await asyncio.sleep(SETTLE_S)
            at_rest = _of_all(stack, names)
            said(f"  at rest: {_said(at_rest)}")
            await _register_many(stack.ready["postgres_dsn"])
            await _all_know(stack.ready)
            await asyncio.sleep(SETTLE_S)
            full = _of_all(stack, names)
            said(f"  with {APPS:,} applications: {_said(full)}")
        finally:
            stack.stop()
    return [
        Row(benchmark="memory", what=f"resident memory of {name}, {when}", unit="MiB", figure=found[name])
        for name in names
        for when, found in (("at rest", at_rest), (f"with {APPS:,} applications", full))
    ]


def _of_all(stack: StackProcess, names: list[str]) -> dict[str, float]:
    pids = stack.ready["pids"]
    return {name: resident_mib(pids[name]) for name in names if name in pids}


def _said(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {mib:.0f} MiB" for name, mib in found.items())


async def _register_many(dsn: str) -> None:
    """Append what registering them would have appended, with its read tables, thousands in a transaction."""
    log = EventLog(CODEC, SystemClock())
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "registry"})
    try:
        meta = Meta(new_id(), "token:bench", "")
        account = _account()
        for run in cut([account, *((f"app/{app.client_id}", app.registered()) for app in issue(APPS))], AT_ONCE):
            async with connection.transaction():
                head = await log.lock_head(connection)
                recorded = log.prepare(head, [Entry(stream, 0, [event], meta) for stream, event in run])
                await log.write(connection, recorded)
                events = [event for _, event in run]
                await apply(connection, [c for row, event in zip(recorded, events, strict=True) for c in project(row, event)])
    finally:
        await connection.close()


def _account() -> tuple[str, Any]:
    return f"account/{opened().account}", opened()


async def _all_know(ready: Mapping[str, Any]) -> None:
    """Until the gate has applied everything, and the buckets have a key for each application."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:

        async def gate_knows() -> bool:
            lines = (await client.get(f"{ready['gate_url']}/metrics")).text.splitlines()
            known = [line.split()[1] for line in lines if line.startswith("tollbook_gate_applications ")]
            return bool(known) and float(known[0]) >= APPS  # and the one that the first start has registered

        await until(gate_knows, "the gate to know all applications", pause_s=0.5, timeout_s=TIMEOUT_S)
    connection = await asyncpg.connect(ready["postgres_dsn"])
    try:

        async def nothing_waits() -> bool:
            waiting = [
                await connection.fetchval(f"SELECT count(*) FROM {schema}.kv_dirty") for schema in ("registry", "metering")
            ]
            known = await connection.fetchval("SELECT count(*) FROM metering.app")
            return known >= APPS and not any(waiting)

        await until(nothing_waits, "every dashboard to be written", pause_s=0.5, timeout_s=TIMEOUT_S)
    finally:
        await connection.close()
