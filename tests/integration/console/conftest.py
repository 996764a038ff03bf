"""The console with a real registry behind it, an account that has accepted the terms, and an owner's token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import nats
import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.console.http.boundary import BodyBounds
from shared.commands.registry import AccountView, OpenAccount
from shared.commands.requester import ask
from shared.events.alerts import Method
from shared.ids import new_id
from shared.service import Service
from shared.streams.declare import ensure_stream, log_stream
from tests.support.alerts_process import kept, rows
from tests.support.consoles import ACCOUNT, client, issue_token, make_alerts, make_console, make_registry, running
from tests.support.servers import PostgresDatabase


@dataclass
class House:
    """What a test of the API needs. `api` is signed in as the owner of ACCOUNT."""

    url: str
    nats_url: str
    dsn: ServiceDsn
    token: str
    api: httpx.AsyncClient
    console: Service | None = None

    @property
    def edge(self) -> BodyBounds:
        """What bounds the bodies of this console's requests."""
        edge = self.console._edge.inner._inner._inner  # type: ignore[union-attr]
        assert isinstance(edge, BodyBounds)
        return edge

    async def open_account(self, account: str) -> str:
        """Another account that has accepted the terms: its owner's token."""
        nc = await nats.connect(self.nats_url)
        try:
            command = OpenAccount(command_id=new_id(), account=account, actor="service:test", zone="Asia/Seoul")
            await ask(nc, "registry", command, AccountView)
        finally:
            await nc.close()
        token = await issue_token(self.dsn, account)
        async with client(self.url, token) as api:
            await accept_terms(api)
        return token

    async def register(self, name: str = "speech", services: tuple[str, ...] = ("clova-voice",)) -> dict[str, str]:
        answer = await self.api.post("/v1/apps", json={"name": name, "services": list(services)})
        assert answer.status_code == 201, answer.text
        issued: dict[str, str] = answer.json()
        return issued


async def accept_terms(api: httpx.AsyncClient) -> None:
    terms = (await api.get("/v1/terms")).json()
    answer = await api.put("/v1/terms/acceptance", json={"version": terms["version"]})
    assert answer.status_code == 200, answer.text


@pytest.fixture
async def house(nats_url: str, postgres: PostgresDatabase) -> AsyncIterator[House]:
    dsn = await postgres.service_schema("console")
    registry_dsn = await postgres.service_schema("registry")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(make_registry(nats_url, registry_dsn)))
        console = make_console(nats_url, dsn)
        url = await stack.enter_async_context(running(console))
        api = await stack.enter_async_context(client(url))
        found = House(url, nats_url, dsn, "", api, console)
        found.token = await found.open_account(ACCOUNT)
        api.headers["Authorization"] = f"Bearer {found.token}"
        yield found


@dataclass
class Alerted:
    """The console with alerts behind it, whose schema is at `dsn`."""

    house: House
    dsn: ServiceDsn

    @property
    def api(self) -> httpx.AsyncClient:
        return self.house.api

    async def add(self, **fields: object) -> dict[str, Any]:
        """A new contact, with a mail address unless told otherwise."""
        answer = await self.api.post("/v1/contacts", json={"name": "Kim", "email": "kim@example.com", **fields})
        assert answer.status_code == 201, answer.text
        added: dict[str, Any] = answer.json()
        return added

    async def code(self, contact_id: str, method: Method = "email") -> str:
        """Have a code sent; it, as the message's reader reads it."""
        answer = await self.api.post(f"/v1/contacts/{contact_id}/verification", json={"method": method})
        assert answer.status_code == 202, answer.text
        find = "SELECT code_vault_id FROM contact_method WHERE contact_id = $1 AND method = $2"
        ((vault_id,),) = await rows(self.dsn, find, contact_id, method)
        return (await kept(self.dsn, vault_id)).decode()

    async def verified(self, method: Method = "email", **fields: object) -> dict[str, Any]:
        """A new contact whose address is verified."""
        added = await self.add(**fields)
        body = {"method": method, "code": await self.code(added["contact_id"], method)}
        answer = await self.api.put(f"/v1/contacts/{added['contact_id']}/verification", json=body)
        assert (answer.status_code, answer.json()["verified"]) == (200, True), answer.text
        return added


@pytest.fixture
async def alerted(house: House, postgres: PostgresDatabase, nc: Client) -> AsyncIterator[Alerted]:
    """No metering: alerts only wants to know that it has a stream."""
    await ensure_stream(nc, log_stream("metering"))
    dsn = await postgres.service_schema("alerts")
    async with running(make_alerts(house.nats_url, dsn)):
        yield Alerted(house, dsn)


@pytest.fixture
async def alone(nats_url: str, postgres: PostgresDatabase) -> AsyncIterator[House]:
    """A console whose other services are down."""
    dsn = await postgres.service_schema("console")
    token = await issue_token(dsn)
    async with running(make_console(nats_url, dsn)) as url, client(url, token) as api:
        yield House(url, nats_url, dsn, token, api)
