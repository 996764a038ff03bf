"""What a first start makes, and what a later one mends, with a real console and registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from nats.aio.client import Client

from deploy.first_start import prepare
from deploy.secrets import Secrets
from deploy.servers.roles import ServiceDsn
from deploy.services import ServiceSpec
from deploy.stack import Stack
from shared.commands.registry import AccountView, OpenAccount
from shared.commands.requester import ask
from shared.ids import new_id
from tests.support.consoles import client, issue_token, make_console, make_registry, running
from tests.support.servers import PostgresDatabase


@dataclass
class Running:
    """As much of a stack as the first steps need."""

    console: str
    nats_url: str
    dsn: ServiceDsn

    def url(self, name: str) -> str:
        return {"console": self.console}[name]

    def environment(self, _: ServiceSpec) -> dict[str, str]:
        return {"TOLLBOOK_NATS_URL": self.nats_url, "TOLLBOOK_POSTGRES_DSN": self.dsn.dsn}


@pytest.fixture
async def started(nats_url: str, postgres: PostgresDatabase) -> AsyncIterator[Running]:
    dsn = await postgres.service_schema("console")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(make_registry(nats_url, await postgres.service_schema("registry"))))
        url = await stack.enter_async_context(running(make_console(nats_url, dsn)))
        yield Running(url, nats_url, dsn)


async def test_reviewers_are_not_of_the_account_whose_applications_they_review(
    started: Running, nc: Client, tmp_path: Path
) -> None:
    """A home from before the house had an account of its own gets other tokens; what is as it should be stays."""
    opening = OpenAccount(command_id=new_id(), account="demo", actor="service:test", zone="Asia/Seoul")
    await ask(nc, "registry", opening, AccountView)
    secrets = Secrets(tmp_path / "secrets")
    former = secrets.keep("token-reviewer", await issue_token(started.dsn, "demo", ("reviewer",)))
    first = await prepare(cast(Stack, started), secrets)
    assert first.tokens["reviewer"] != former
    accounts = {}
    for role, token in first.tokens.items():
        async with client(started.console, token) as api:
            account = (await api.get("/v1/account")).raise_for_status().json()
        accounts[role] = (account["account"], account["roles"])
    assert accounts == {
        "owner": ("demo", ["owner"]),
        "reviewer": ("tollbook", ["reviewer"]),
        "operator": ("tollbook", ["operator"]),
    }
    async with client(started.console, former) as api:
        assert (await api.get("/v1/account")).status_code == 401, "the former token still works"
    assert await prepare(cast(Stack, started), secrets) == first
