"""The registry when something around it is wrong: settings, a database that goes away, a second registry."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.registry import AccountView, AppPage, GetAccount, ListApps
from shared.errors import Unavailable
from shared.ids import new_id
from shared.streams.declare import delete_stream, stream_state
from tests.support.crashes import until
from tests.support.registry_process import Customer, RegistryProcess
from tests.support.servers import PostgresDatabase, PostgresProcess


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("TOLLBOOK_CATALOG", "/nowhere/catalog.yaml", "/nowhere/catalog.yaml: cannot be read"),
        ("TOLLBOOK_TERMS", "/nowhere/terms.yaml", "/nowhere/terms.yaml: cannot be read"),
        ("TOLLBOOK_PEPPER", "abcd1234", "TOLLBOOK_PEPPER: must be 64 hexadecimal digits"),
        ("TOLLBOOK_VAULT_KEY", "abcd1234", "TOLLBOOK_VAULT_KEY: each key must be 64 hexadecimal digits"),
        ("TOLLBOOK_APPS_MAX", "0", "TOLLBOOK_APPS_MAX"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_clear_line(setting: str, value: str, says: str, tmp_path: Path) -> None:
    dsn = ServiceDsn("postgresql://owner@127.0.0.1:1/none", "postgresql://registry@127.0.0.1:1/none")
    done = RegistryProcess("nats://127.0.0.1:1", dsn, tmp_path, **{setting: value}).run()
    written = (done.stdout + done.stderr).decode()
    assert done.returncode == 2
    assert says in written
    assert len(written.strip().splitlines()) == 1
    assert "abcd1234" not in written


async def test_a_database_that_goes_and_comes_back(nats_url: str, nc: Client, tmp_path: Path) -> None:
    server = PostgresProcess(tmp_path)
    server.start()
    schema = await PostgresDatabase(server.dsn).service_schema("registry")
    registry = RegistryProcess(nats_url, schema, tmp_path)
    try:
        await registry.start()
        customer = await Customer(nc).opened()
        server.kill()
        with pytest.raises(Unavailable, match="database"):
            await customer.ask(GetAccount, AccountView)
        command_id = new_id()
        with pytest.raises(Unavailable, match="database"):
            await customer.register(command_id=command_id)
        assert not (await registry.readiness())["ready"]
        server.start()
        issued = await customer.register(command_id=command_id)
        assert [app.client_id for app in (await customer.ask(ListApps, AppPage)).apps] == [issued.client_id]
    finally:
        registry.kill()
        server.stop()


async def test_two_registries_share_the_work(
    customer: Customer, registry: RegistryProcess, nats_url: str, schema: ServiceDsn, tmp_path: Path
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    second = RegistryProcess(nats_url, schema, folder)
    try:
        await second.start()
        twice = [new_id() for _ in range(16)] * 2
        issued = await asyncio.gather(*(customer.register(command_id=command_id) for command_id in twice))
        assert len({app.client_id for app in issued}) == 16
        assert len((await customer.ask(ListApps, AppPage)).apps) == 16
    finally:
        second.kill()


async def test_a_registry_whose_stream_is_ahead_of_its_log_decides_nothing(
    customer: Customer, registry: RegistryProcess, nc: Client
) -> None:
    """As after the database was restored from an older backup: what it decided now would be lost with it."""
    issued = await customer.register()
    await until(lambda: _ends_at(nc, 3), "the stream to end where the log does")
    await nc.jetstream().publish("registry.events.AppDeleted", b"{}")

    async def refused() -> bool:
        relay = (await registry.readiness())["parts"].get("relay", {"detail": "starting"})
        return "ends at 4" in relay["detail"]

    await until(refused, "the registry to notice")
    for _ in range(2):
        command_id = new_id()
        with pytest.raises(
            Unavailable, match=r"^Nothing was done\. The stream REGISTRY ends at 4, but the log of registry ends at 3"
        ):
            await customer.register(command_id=command_id)
        assert [app.client_id for app in (await customer.ask(ListApps, AppPage)).apps] == [issued.client_id]
        registry.kill()
        await registry.start(ready=False)
        await until(refused, "the registry to notice again")
    await delete_stream(nc, "REGISTRY")
    await until(lambda: _ends_at(nc, 3), "the stream to be written again")
    await until(lambda: _accepts(customer, command_id), "commands to be decided again")


async def _ends_at(nc: Client, position: int) -> bool:
    state = await stream_state(nc, "REGISTRY")
    return state is not None and state.last == position


async def _accepts(customer: Customer, command_id: str) -> bool:
    try:
        await customer.register(command_id=command_id)
    except Unavailable:
        return False
    return True
