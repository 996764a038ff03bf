"""Commands that are decided in one transaction see what was decided before them in it, for their own account."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.registry import AppIssued, AppPage, ListApps
from shared.errors import Conflict
from tests.support.registry_process import Customer, RegistryProcess


async def test_a_limit_holds_when_all_come_at_once(nats_url: str, nc: Client, schema: ServiceDsn, tmp_path: Path) -> None:
    process = RegistryProcess(nats_url, schema, tmp_path, TOLLBOOK_APPS_MAX="3")
    try:
        await process.start()
        customers = [await Customer(nc, account).opened() for account in ("acme", "globex", "initech")]
        wishes = [customer.register() for _ in range(10) for customer in customers]
        outcomes = await asyncio.gather(*wishes, return_exceptions=True)
        assert sum(isinstance(outcome, AppIssued) for outcome in outcomes) == 9
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 21
        for customer in customers:
            assert len((await customer.ask(ListApps, AppPage)).apps) == 3
    finally:
        process.kill()
