"""A console in the test's own event loop, over real NATS and PostgreSQL, and what a test says to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import httpx

from deploy.servers.program import free_port
from deploy.servers.roles import ServiceDsn
from services.alerts import app as alerts
from services.console import app as console
from services.console.commands import IssueToken, RevokeToken
from services.console.tokens import new_token
from services.metering import app as metering
from services.registry import app as registry
from services.review import app as review
from shared.events.console import Role
from shared.ids import new_id, new_vault_key
from shared.postgres import open_pool
from shared.service import Service
from tests.support.alerts_process import VAULT_KEY

DEPLOY = Path(__file__).parents[2] / "deploy"
ACCOUNT = "demo"


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[str]:
    """The service, started as `Service.run` does, until the block ends: its URL."""
    server = service.server()
    url = f"http://127.0.0.1:{service.settings.http_port}"
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(30):
            while not (server.started and await _ready(url)):
                assert not serving.done(), "the service did not start"
                await asyncio.sleep(0.01)
        yield url
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 20)


async def _ready(url: str) -> bool:
    async with client(url) as http:
        return (await http.get("/readyz")).status_code == 200


def make_registry(nats_url: str, dsn: ServiceDsn) -> Service:
    """The real registry."""
    settings = registry.SETTINGS.model_validate(
        {
            "nats_url": nats_url,
            "postgres_dsn": dsn.dsn,
            "http_port": free_port(),
            "catalog": DEPLOY / "catalog.yaml",
            "terms": DEPLOY / "terms.yaml",
            "pepper": "0123456789abcdef" * 4,
            "vault_key": new_vault_key(),
        }
    )
    return registry.build(settings)


def make_metering(nats_url: str, dsn: ServiceDsn) -> Service:
    """The real metering."""
    settings = metering.SETTINGS.model_validate(
        {
            "nats_url": nats_url,
            "postgres_dsn": dsn.dsn,
            "http_port": free_port(),
            "catalog": DEPLOY / "catalog.yaml",
            "vault_key": new_vault_key(),
            "partitions": 2,
        }
    )
    return metering.build(settings)


def make_alerts(nats_url: str, dsn: ServiceDsn) -> Service:
    """The real alerts, which has no channels: nothing leaves it."""
    settings = alerts.SETTINGS.model_validate(
        {
            "nats_url": nats_url,
            "postgres_dsn": dsn.dsn,
            "http_port": free_port(),
            "catalog": DEPLOY / "catalog.yaml",
            "vault_key": VAULT_KEY,
        }
    )
    return alerts.build(settings)


def make_review(nats_url: str, dsn: ServiceDsn) -> Service:
    """The real review, with the models and the form of the embedded stack."""
    settings = review.SETTINGS.model_validate(
        {
            "nats_url": nats_url,
            "postgres_dsn": dsn.dsn,
            "http_port": free_port(),
            "catalog": DEPLOY / "catalog.yaml",
            "models": DEPLOY / "models.yaml",
            "review": DEPLOY / "review.yaml",
            "vault_key": new_vault_key(),
        }
    )
    return review.build(settings)


def make_console(nats_url: str, dsn: ServiceDsn, **settings: object) -> Service:
    """The console with those settings besides."""
    told = {"nats_url": nats_url, "postgres_dsn": dsn.dsn, "http_port": free_port(), **settings}
    return console.build(console.SETTINGS.model_validate(told))


async def issue_token(
    dsn: ServiceDsn, account: str = ACCOUNT, roles: tuple[Role, ...] = ("owner",), expires_at: datetime | None = None
) -> str:
    """The text of a new API token, kept by the console's own log."""
    token = new_token()
    command = IssueToken(
        command_id=new_id(),
        account=account,
        actor="service:test",
        token_id=token.token_id,
        roles=roles,
        label="test",
        verifier=token.verifier,
        expires_at=expires_at,
    )
    pool = await open_pool(dsn.dsn, "console", 2)
    try:
        await console.Tokens(pool, None).issue(command)
    finally:
        await pool.close()
    return token.text


async def revoke_token(dsn: ServiceDsn, token: str, account: str = ACCOUNT) -> None:
    """Have that token work no longer."""
    pool = await open_pool(dsn.dsn, "console", 2)
    try:
        command = RevokeToken(command_id=new_id(), account=account, actor="service:test", token_id=token.split("_")[1])
        await console.Tokens(pool, None).revoke(command)
    finally:
        await pool.close()


def client(url: str, token: str = "", **headers: str) -> httpx.AsyncClient:
    """An HTTP client that signs in with `token`."""
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=20, trust_env=False, verify=False)
