"""The life of an application, asked for over NATS and seen in the stream REGISTRY and the bucket `apps`."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from typing import Any

import asyncpg
import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.clock import SystemClock
from shared.commands.registry import (
    AccountView,
    AppDeletedReply,
    AppNames,
    AppPage,
    AppView,
    Authentication,
    DeleteApp,
    EditApp,
    GetAccount,
    GetApp,
    GetAppNames,
    GetAuthentication,
    GetTerms,
    ListApps,
    ListServices,
    Reissued,
    ReissueSecret,
    RevokeSecret,
    Secrets,
    Services,
    Terms,
)
from shared.credentials import verifier
from shared.errors import CommandReused, Conflict, InvalidInput, NotFound
from shared.eventlog.log import EventLog
from shared.events.codec import parse_ce_type
from shared.events.registry import CODEC, AppRegistered, ServiceActivated
from shared.ids import new_id
from tests.support.registry_process import PEPPER, TERMS, Customer, RegistryProcess
from tests.support.servers import PostgresDatabase


async def stream_messages(nc: Client, count: int) -> list[Any]:
    """The first `count` messages of REGISTRY, waiting for the relay."""
    js = nc.jetstream()
    async with asyncio.timeout(10):
        while (await js.stream_info("REGISTRY")).state.last_seq < count:  # noqa: ASYNC110 - nothing tells us when
            await asyncio.sleep(0.02)
    return [await js.get_msg("REGISTRY", sequence) for sequence in range(1, count + 1)]


async def kv_value(nc: Client, key: str, until: Any) -> dict[str, Any] | None:
    """The value under the key, once it is what `until` wants; None when it is deleted."""
    js = nc.jetstream()
    async with asyncio.timeout(10):
        while True:
            try:
                last = await js.get_last_msg("KV_apps", f"$KV.apps.{key}")
                deleted = (last.headers or {}).get("KV-Operation") == "DEL"
                value = None if deleted else json.loads(last.data or b"")
                if until(value):
                    return value
            except Exception as error:
                assert "not found" in str(error).lower() or "no message" in str(error).lower()  # noqa: PT017 - nats-py's words
            await asyncio.sleep(0.02)


async def test_a_customer_registers_edits_and_deletes(customer: Customer, nc: Client) -> None:
    issued = await customer.register(
        name="음성 인식 데모 앱입니다",
        services=["clova-studio", "csr"],
        environments={"web": ["https://www.한국.kr:8443/x"], "ios": ["com.example.App"]},
    )
    assert len(issued.client_id) == 20
    assert len(issued.client_secret) == 40
    assert issued.environments.web == ("xn--3e0b707e.kr",)
    assert issued.hints
    shown = await customer.ask(GetApp, AppView, client_id=issued.client_id)
    assert shown == AppView(**issued.model_dump(include=set(AppView.model_fields)))
    value = await kv_value(nc, f"acme.{issued.client_id}", lambda value: value)
    assert value is not None
    assert value["name"] == issued.name
    assert value["position"] == 3
    assert value["services"] == [
        {"service": "clova-studio", "tier": "test", "suspended": False},
        {"service": "csr", "tier": "live", "suspended": False},
    ]

    edited = await customer.ask(EditApp, AppView, client_id=issued.client_id, name="demo")
    assert (edited.registered_at, edited.services) == (issued.registered_at, issued.services)
    assert await customer.ask(GetApp, AppView, client_id=issued.client_id) == edited
    assert await kv_value(nc, f"acme.{issued.client_id}", lambda value: value and value["name"] == "demo")

    await customer.ask(DeleteApp, AppDeletedReply, client_id=issued.client_id)
    for message, reply in ((GetApp, AppView), (GetAuthentication, Authentication)):
        with pytest.raises(NotFound):
            await customer.ask(message, reply, client_id=issued.client_id)
    assert await kv_value(nc, f"acme.{issued.client_id}", lambda value: value is None) is None
    assert (await customer.ask(ListApps, AppPage)).apps == ()


async def test_every_event_is_in_the_stream_with_its_headers(customer: Customer, nc: Client, schema: ServiceDsn) -> None:
    issued = await customer.register()
    messages = await stream_messages(nc, 3)
    types = ["AccountOpened", "TermsAccepted", "AppRegistered"]
    assert [message.subject for message in messages] == [f"registry.events.{type_}" for type_ in types]
    headers = {name.lower(): value for name, value in messages[2].headers.items()}
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-type"] == "tollbook.registry.AppRegistered.v1"
    assert headers["ce-subject"] == f"app/{issued.client_id}"
    assert headers["ce-source"]
    assert headers["ce-id"]
    assert headers["ce-time"]
    _, type_, schema_version = parse_ce_type(headers["ce-type"])
    event = CODEC.decode(type_, schema_version, messages[2].data)
    assert isinstance(event, AppRegistered)
    assert event.secret.verifier == verifier(bytes.fromhex(PEPPER), issued.client_id, issued.client_secret)
    assert issued.client_secret.encode() not in messages[2].data
    connection = await asyncpg.connect(schema.dsn, server_settings={"search_path": "registry"})
    try:
        assert await EventLog(CODEC, SystemClock()).verify(connection) == 3
    finally:
        await connection.close()


async def test_terms_come_before_the_first_registration(registry: RegistryProcess, nc: Client) -> None:
    customer = await Customer(nc, "newcomer").opened(terms=False)
    terms = await customer.ask(GetTerms, Terms)
    assert (terms.version, terms.accepted_version) == (TERMS, None)
    with pytest.raises(Conflict, match="PUT /v1/terms/acceptance"):
        await customer.register()
    await customer.opened()
    assert (await customer.ask(GetTerms, Terms)).accepted_version == TERMS
    assert (await customer.ask(GetAccount, AccountView)).terms_current
    await customer.register()
    with pytest.raises(NotFound, match="nobody"):
        await Customer(nc, "nobody").ask(GetAccount, AccountView)


async def test_secrets_are_reissued_with_grace_shown_again_and_revoked(customer: Customer) -> None:
    issued = await customer.register()
    second = await customer.ask(ReissueSecret, Reissued, client_id=issued.client_id, grace_seconds=600)
    both = await customer.ask(GetAuthentication, Authentication, client_id=issued.client_id)
    assert both.client_secret == second.client_secret
    assert [secret.client_secret for secret in both.secrets] == [second.client_secret, issued.client_secret]
    assert both.secrets[1].valid_until == second.previous_valid_until
    third = await customer.ask(ReissueSecret, Reissued, client_id=issued.client_id, grace_seconds=600)
    left = await customer.ask(RevokeSecret, Secrets, client_id=issued.client_id, secret_id=second.secret_id)
    assert left.secret_ids == (third.secret_id,)
    await customer.ask(RevokeSecret, Secrets, client_id=issued.client_id, secret_id=third.secret_id)
    none = await customer.ask(GetAuthentication, Authentication, client_id=issued.client_id)
    assert (none.client_secret, none.secrets, none.secret_kept) == (None, (), False)
    assert "Reissue" in none.note


async def test_the_same_command_id_gives_the_first_reply(customer: Customer) -> None:
    asked = {"command_id": "once", "name": "speech", "services": ["papago-nmt"]}
    first = await customer.register(**asked)
    assert await customer.register(**asked) == first
    with pytest.raises(CommandReused):
        await customer.register(**{**asked, "name": "other"})
    assert len((await customer.ask(ListApps, AppPage)).apps) == 1


async def test_sixteen_at_once_and_pages_in_order(customer: Customer) -> None:
    issued = await asyncio.gather(*(customer.register(name=f"app {n}") for n in range(48)))
    assert len({app.client_id for app in issued}) == 48
    seen: list[str] = []
    cursor = None
    while True:
        page = await customer.ask(ListApps, AppPage, limit=20, cursor=cursor)
        seen.extend(app.client_id for app in page.apps)
        await customer.register(name="later")  # new ones come before the first page: nothing is shown twice
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 48
    stranger = await Customer(customer.nc, "other").opened()
    page = await customer.ask(ListApps, AppPage, limit=1)
    assert page.next_cursor
    for account, bad in (
        (stranger, page.next_cursor),
        (customer, page.next_cursor + "A"),
        (customer, "ünlesbar"),
        (customer, ""),
    ):
        with pytest.raises(InvalidInput) as refused:
            await account.ask(ListApps, AppPage, cursor=bad)
        assert refused.value.fields[0].field == "cursor"


async def test_another_accounts_application_is_not_there(customer: Customer) -> None:
    issued = await customer.register()
    stranger = await Customer(customer.nc, "stranger").opened()
    asked: list[tuple[type[Any], type[Any], dict[str, Any]]] = [
        (GetApp, AppView, {}),
        (GetAuthentication, Authentication, {}),
        (EditApp, AppView, {"name": "mine"}),
        (ReissueSecret, Reissued, {}),
        (RevokeSecret, Secrets, {"secret_id": issued.secret_id}),
        (DeleteApp, AppDeletedReply, {}),
    ]
    for message, reply, fields in asked:
        with pytest.raises(NotFound):
            await stranger.ask(message, reply, client_id=issued.client_id, **fields)
    assert (await customer.ask(GetApp, AppView, client_id=issued.client_id)).name == "speech"
    ids = (issued.client_id, "x" * 20)
    assert (await stranger.ask(GetAppNames, AppNames, client_ids=ids)).names == {}
    assert (await customer.ask(GetAppNames, AppNames, client_ids=ids)).names == {issued.client_id: "speech"}


async def test_it_goes_on_after_a_kill(customer: Customer, registry: RegistryProcess) -> None:
    command_id = new_id()
    first = await customer.register(command_id=command_id)
    registry.kill()
    await registry.start()
    assert await customer.register(command_id=command_id) == first
    assert await customer.ask(GetAuthentication, Authentication, client_id=first.client_id)
    assert registry.stop() in (0, -signal.SIGTERM)  # uvicorn raises the signal again once it has stopped
    assert first.client_secret not in registry.log.read_text()


async def test_the_read_tables_are_built_again_from_the_log(
    customer: Customer, registry: RegistryProcess, schema: ServiceDsn
) -> None:
    first = await customer.register(services=["csr", "clova-studio"])
    second = await customer.register(name="other")
    await customer.ask(EditApp, AppView, client_id=first.client_id, name="edited", environments={"web": ["http://a.co.kr"]})
    await customer.ask(ReissueSecret, Reissued, client_id=first.client_id, grace_seconds=600)
    await customer.ask(ReissueSecret, Reissued, client_id=second.client_id)
    await customer.ask(DeleteApp, AppDeletedReply, client_id=(await customer.register()).client_id)
    connection = await asyncpg.connect(schema.owner_dsn, server_settings={"search_path": "registry"})
    try:

        async def tables() -> dict[str, list[Any]]:
            return {
                table: [tuple(row) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")]
                for table in ("account", "app", "secret")
            }

        before = await tables()
        await connection.execute("UPDATE app SET name = 'broken'; DELETE FROM secret")
        assert await tables() != before
        assert "events" in registry.printed("--rebuild")
        assert await tables() == before
    finally:
        await connection.close()


async def test_a_log_that_somebody_changed_does_not_verify(
    customer: Customer, registry: RegistryProcess, postgres: PostgresDatabase
) -> None:
    await customer.register()
    assert "every one as it was written" in registry.printed("--verify")
    forger = await asyncpg.connect(postgres.owner_dsn)
    try:
        await forger.execute(
            "SET search_path = registry; SET session_replication_role = replica;"
            " UPDATE event SET data = replace(data::text, 'acme', 'evil')::json WHERE position = 2"
        )
    finally:
        await forger.close()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        registry.printed("--verify")
    assert (failed.value.returncode, b"position 2 is not the one that was written" in failed.value.stderr) == (1, True)


async def test_the_catalog_is_listed(customer: Customer) -> None:
    services = {service.id: service for service in (await customer.ask(ListServices, Services)).services}
    assert services["csr"].requires_mobile_environment
    assert services["clova-studio"].review_required
    assert services["clova-studio"].test_quota
    with pytest.raises(InvalidInput) as refused:
        await customer.register(services=["csr", "nope"])
    assert refused.value.fields[0].field == "services[1]"


async def test_a_secret_that_is_shown_once(
    customer: Customer, nats_url: str, schema: ServiceDsn, registry: RegistryProcess
) -> None:
    registry.kill()
    registry.env["TOLLBOOK_SECRET_SHOW_ONCE"] = "true"
    await registry.start()
    issued = await customer.register()
    shown = await customer.ask(GetAuthentication, Authentication, client_id=issued.client_id)
    assert (shown.client_secret, shown.secret_kept) == (None, False)
    assert "not kept" in shown.note


async def test_a_service_that_a_review_activated_is_live(
    customer: Customer, registry: RegistryProcess, schema: ServiceDsn
) -> None:
    issued = await customer.register(services=["csr", "clova-studio", "papago-nmt"])
    activated = ServiceActivated(account="acme", client_id=issued.client_id, service="clova-studio")
    connection = await asyncpg.connect(schema.dsn, server_settings={"search_path": "registry"})
    try:
        await EventLog(CODEC, SystemClock()).append(connection, f"app/{issued.client_id}", 1, [activated])
    finally:
        await connection.close()
    registry.printed("--rebuild")
    shown = await customer.ask(GetApp, AppView, client_id=issued.client_id)
    assert [(selected.service, selected.tier) for selected in shown.services] == [
        ("csr", "live"),
        ("clova-studio", "live"),
        ("papago-nmt", "live"),
    ]
    assert shown.edited_at > issued.edited_at
