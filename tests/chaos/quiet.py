"""Waiting until a stack is whole and has worked off everything."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
import httpx
from nats.aio.client import Client

from shared.errors import Unavailable
from shared.streams.declare import stream_state
from shared.streams.jetstream import MESSAGE_NOT_FOUND, ApiError, api
from tests.chaos.checks import STREAMS, Database
from tests.chaos.faults import Processes
from tests.chaos.plan import TARGETS
from tests.chaos.usage_load import PARTITIONS

QUIET_WITHIN_S: Final = 120.0
SERVICES: Final = ("registry", "metering", "gate", "alerts", "review", "console")
SUBJECTS: Final = (*(f"usage.records.{partition}" for partition in range(PARTITIONS)), "usage.cloudevents")


async def until(what: str, obstacle: Callable[[], Awaitable[str]], within_s: float = QUIET_WITHIN_S) -> None:
    """Wait until `obstacle` says nothing any more. Raises AssertionError with its last words."""
    deadline = time.monotonic() + within_s
    said = "not asked"
    while said:
        try:
            said = await obstacle()
        except (Unavailable, ApiError, httpx.TransportError, asyncpg.PostgresError, OSError, TimeoutError) as error:
            said = f"{type(error).__name__}: {error}"
        if said and time.monotonic() > deadline:
            raise AssertionError(f"{what} not within {within_s:.0f} s: {said}")
        await asyncio.sleep(0.1 if said else 0)


async def readiness(processes: Processes, service: str) -> tuple[bool, str]:
    """What the service says at /readyz: whether it is ready, and what is not."""
    if processes.find(service) is None:
        return False, f"{service} does not run"
    url = f"http://127.0.0.1:{processes.settings(service)['TOLLBOOK_HTTP_PORT']}/readyz"
    async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
        answer = await http.get(url)
    parts = json.loads(answer.content)["parts"]
    return answer.status_code == 200, "; ".join(f"{name}: {part['detail']}" for name, part in parts.items() if not part["ready"])


async def all_ready(processes: Processes) -> str:
    """Which process is missing, or not ready."""
    for name in TARGETS:
        if processes.find(name) is None:
            return f"{name} does not run"
    return await why_not_ready(processes, *SERVICES)


async def why_not_ready(processes: Processes, *services: str) -> str:
    """Which of the services is not ready, and why."""
    for service in services:
        ready, why = await readiness(processes, service)
        if not ready:
            return f"{service}: {why}"
    return ""


async def all_counted(database: Database, nc: Client) -> str:
    """What is in a stream and not yet where it belongs."""
    for service, stream in STREAMS.items():
        state = await stream_state(nc, stream)
        head = await database.fetchval(f"SELECT position FROM {service}.log_head")
        if state is None or state.last != head:
            return f"{stream}: log {head}, stream {state and state.last}"
    read = await database.fetchval("SELECT min(sequence) FROM metering.checkpoint WHERE stream = 'REGISTRY'")
    head = await database.fetchval("SELECT position FROM registry.log_head")
    if read != head:
        return f"REGISTRY: log {head}, metering {read}"
    points = {
        row["subject"]: row["sequence"]
        for row in await database.fetch("SELECT subject, sequence FROM metering.checkpoint WHERE stream = 'USAGE'")
    }
    for subject in SUBJECTS:
        try:
            answer = await api(nc, "STREAM.MSG.GET.USAGE", {"last_by_subj": subject})
        except ApiError as error:
            if error.err_code != MESSAGE_NOT_FOUND:
                raise
            continue
        if (last := answer["message"]["seq"]) != points.get(subject):
            return f"{subject}: stored {last}, counted {points.get(subject)}"
    return ""
