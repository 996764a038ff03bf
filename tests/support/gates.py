"""A gate in the test's own event loop, over a real NATS, and a registry that says what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import uvicorn
from nats.aio.client import Client

from deploy.servers.program import free_port
from services.gate.app import GateSettings, build
from shared.clock import Clock
from shared.credentials import verifier
from shared.events.registry import (
    CODEC,
    AppRegistered,
    Environments,
    RegistryEvent,
    SecretIssued,
    SelectedService,
)
from shared.events.usage import UsageBatch
from shared.ids import new_client_id, new_client_secret, new_id
from shared.streams.declare import ensure_stream, log_stream, stream_state, usage_stream
from shared.streams.jetstream import api, stored_message
from shared.streams.publish import Outgoing, publish_batch

PEPPER = "0123456789abcdef" * 4
CATALOG = Path(__file__).parents[2] / "deploy" / "catalog.yaml"


class Issued(msgspec.Struct, frozen=True):
    """What a customer holds."""

    client_id: str
    secret: str

    def as_pair(self) -> tuple[str, str]:
        return self.client_id, self.secret

    @property
    def headers(self) -> dict[str, str]:
        return {"X-NCP-APIGW-API-KEY-ID": self.client_id, "X-NCP-APIGW-API-KEY": self.secret}


class Registry:
    """Publishes events as the registry's relay does: event N is message N."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self.position = 0

    async def says(self, event: RegistryEvent, type_: str = "", schema: int = 1) -> None:
        name = type_ or type(event).__name__
        headers = {
            "ce-specversion": "1.0",
            "ce-id": f"registry/{self.position + 1}",
            "ce-type": CODEC.ce_type(name, schema),
            "ce-source": "/tollbook/registry",
            "ce-time": datetime.now(UTC).isoformat(),
        }
        message = Outgoing(f"registry.events.{name}", CODEC.encode(event), headers)
        self.position = await publish_batch(self._nc, [message], expected_last_sequence=self.position)

    async def registers(
        self,
        services: tuple[str, ...] = ("csr",),
        environments: Environments = Environments(),  # noqa: B008 - frozen
    ) -> Issued:
        issued = Issued(new_client_id(), new_client_secret())
        secret = SecretIssued(new_id(), verifier(bytes.fromhex(PEPPER), issued.client_id, issued.secret))
        selected = tuple(SelectedService(service) for service in services)
        await self.says(
            AppRegistered(
                account="acme",
                client_id=issued.client_id,
                name="app",
                services=selected,
                environments=environments,
                secret=secret,
            )
        )
        return issued


def issue(client_id: str, secret: str) -> SecretIssued:
    return SecretIssued(new_id(), verifier(bytes.fromhex(PEPPER), client_id, secret))


@dataclass
class Gate:
    """A running gate and a client for it."""

    port: int
    server: uvicorn.Server
    serving: asyncio.Task[None]
    http: httpx.AsyncClient
    settings: GateSettings
    passed: list[str] = field(default_factory=list)

    async def call(self, issued: Issued, service: str = "csr", **headers: str) -> httpx.Response:
        """Ask about one call; remembers the Client ID of each that passed."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self.http.get(f"/authorize/{service}", headers=issued.headers | named)
        if response.status_code == 200:
            self.passed.append(issued.client_id)
        return response

    async def ready(self) -> bool:
        return (await self.http.get("/readyz")).status_code == 200

    async def stop(self) -> None:
        self.server.should_exit = True
        await asyncio.wait_for(self.serving, 15)


async def until(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 20) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while not await condition():  # noqa: ASYNC110 - the condition is asked of a server
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


async def declare(nc: Client) -> None:
    await ensure_stream(nc, log_stream("registry"))
    await ensure_stream(nc, log_stream("metering"))
    await ensure_stream(nc, usage_stream())


@asynccontextmanager
async def running_gate(
    nats_url: str, *, await_ready: bool = True, clock: Clock | None = None, **settings: object
) -> AsyncIterator[Gate]:
    chosen = GateSettings.model_validate(
        {"nats_url": nats_url, "http_port": free_port(), "catalog": CATALOG, "pepper": PEPPER, "partitions": 4, **settings}
    )
    service = build(chosen, clock)
    server = service.server()
    serving = asyncio.create_task(server.serve())
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{chosen.http_port}", timeout=20, trust_env=False, verify=False
    ) as http:
        gate = Gate(chosen.http_port, server, serving, http, chosen)

        async def started() -> bool:
            return server.started or serving.done()

        await until(started, "the gate to listen")
        if await_ready:
            await until(gate.ready, "the gate to be ready")
        try:
            yield gate
        finally:
            if not serving.done():
                await gate.stop()


async def stored_batches(nc: Client) -> list[UsageBatch]:
    """All of USAGE."""
    state = await stream_state(nc, "USAGE")
    assert state is not None
    batches = []
    for sequence in range(1, state.last + 1):
        subject, _, headers, data = stored_message(await api(nc, "STREAM.MSG.GET.USAGE", {"seq": sequence}))
        assert headers["content-type"] == "application/msgpack"
        assert subject.startswith("usage.records.")
        batches.append(msgspec.msgpack.decode(data, type=UsageBatch))
    return batches


def counted(batches: list[UsageBatch]) -> dict[str, int]:
    """Calls by Client ID as metering counts them: repetitions ignored, what was taken back subtracted."""
    last: dict[str, tuple[int, bool]] = {}
    calls: dict[str, int] = {}
    for batch in batches:
        seq, retracted = last.get(batch.publisher, (0, False))
        sign = 0
        if batch.seq > seq:
            sign = 0 if batch.retracted else 1
        elif batch.seq == seq and batch.retracted and not retracted:
            sign = -1
        else:
            continue
        last[batch.publisher] = batch.seq, batch.retracted
        for record in batch.records:
            calls[record.client_id] = calls.get(record.client_id, 0) + sign * record.quantity
    return {client_id: count for client_id, count in calls.items() if count}
