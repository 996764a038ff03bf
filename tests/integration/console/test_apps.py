"""Applications and their credentials over HTTP, with a real registry behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import nats
import pytest

from shared.commands.metering import (
    CredentialUse,
    GetCredentialUse,
    GetUsage,
    GetUsageOfApps,
    OpenWindow,
    OpenWindows,
    Usage,
    UsageOfApps,
)
from tests.integration.console.conftest import House
from tests.support.consoles import client, issue_token, make_console, running
from tests.support.servers import NatsProcess, PostgresDatabase

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@asynccontextmanager
async def metering_says(nats_url: str, use: CredentialUse, used: int) -> AsyncIterator[list[GetUsage]]:
    """Answers for metering: what it says is the test's, what is tested is what the console makes of it."""
    asked: list[GetUsage] = []
    nc = await nats.connect(nats_url)

    async def credential_use(message: nats.aio.msg.Msg) -> None:
        GetCredentialUse.model_validate_json(message.data)
        await message.respond(use.model_dump_json().encode())

    async def usage(message: nats.aio.msg.Msg) -> None:
        query = GetUsage.model_validate_json(message.data)
        asked.append(query)
        reply = Usage(
            client_id=query.client_id,
            service=query.service,
            period=query.period,
            zone="Asia/Seoul",
            used=used,
            calls=used,
            window_start=NOW,
            resets_at=NOW,
            as_of=NOW,
            position=1,
        )
        await message.respond(reply.model_dump_json().encode())

    async def usage_of_apps(message: nats.aio.msg.Msg) -> None:
        query = GetUsageOfApps.model_validate_json(message.data)
        window = OpenWindow(used=used, calls=used, window_start=NOW, resets_at=NOW)
        found = tuple(
            OpenWindows(client_id=client_id, service=service, daily=window, monthly=window)
            for client_id in query.client_ids
            for service in ("clova-voice", "papago-nmt", "csr")
        )
        await message.respond(UsageOfApps(as_of=NOW, position=1, usage=found).model_dump_json().encode())

    await nc.subscribe("metering.queries.GetCredentialUse", cb=credential_use)
    await nc.subscribe("metering.queries.GetUsageOfApps", cb=usage_of_apps)
    await nc.subscribe("metering.queries.GetUsage", cb=usage)
    await nc.flush()
    try:
        yield asked
    finally:
        await nc.close()


async def test_an_application_from_registration_to_deletion(house: House) -> None:
    registered = await house.api.post(
        "/v1/apps",
        json={
            "name": "음성인식",
            "services": ["csr"],
            "environments": {"android": ["com.example.app"], "web": ["http://naver.com"]},
        },
    )
    assert registered.status_code == 201, registered.text
    issued = registered.json()
    client_id = issued["client_id"]
    assert registered.headers["location"] == f"/v1/apps/{client_id}"
    assert len(client_id) == 20
    assert len(issued["client_secret"]) == 40

    seen = (await house.api.get(f"/v1/apps/{client_id}")).json()
    assert (seen["name"], seen["services"]) == ("음성인식", [{"service": "csr", "tier": "live", "suspended": False}])

    edited = await house.api.patch(f"/v1/apps/{client_id}", json={"name": "renamed"})
    assert (edited.status_code, edited.json()["name"], edited.json()["services"]) == (200, "renamed", seen["services"])

    deleted = await house.api.delete(f"/v1/apps/{client_id}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await house.api.get(f"/v1/apps/{client_id}")).status_code == 404


async def test_terms_come_before_the_first_registration(house: House) -> None:
    token = await house.open_account("late")
    async with client(house.url, token) as api:
        account = (await api.get("/v1/account")).json()
        assert (account["account"], account["roles"], account["terms_current"]) == ("late", ["owner"], True)
        stale = await api.put("/v1/terms/acceptance", json={"version": "1066-10-14"})
        assert stale.status_code in (409, 422)
        catalog = (await api.get("/v1/services")).json()["services"]
        assert "csr" in [service["id"] for service in catalog]


async def test_repeating_an_idempotency_key_repeats_the_first_answer(house: House) -> None:
    wish = {"name": "once", "services": ["clova-voice"]}
    headers = {"Idempotency-Key": "register-once"}
    first, again = [await house.api.post("/v1/apps", json=wish, headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert len((await house.api.get("/v1/apps")).json()["apps"]) == 1

    other = await house.api.post("/v1/apps", json={**wish, "name": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "command_reused")

    async with client(house.url, await house.open_account("another")) as api:
        theirs = await api.post("/v1/apps", json=wish, headers=headers)
        assert theirs.status_code == 201, "a key is the account's own"
        assert theirs.json()["client_id"] != first.json()["client_id"]


async def test_secrets_are_reissued_with_grace_and_revoked(house: House) -> None:
    issued = await house.register()
    path = f"/v1/apps/{issued['client_id']}"
    reissued = await house.api.post(f"{path}/secret/reissue", json={"grace_seconds": 600})
    assert reissued.status_code == 200, reissued.text
    shown = (await house.api.get(f"{path}/authentication")).json()
    assert shown["client_secret"] == reissued.json()["client_secret"] != issued["client_secret"]
    assert {secret["secret_id"] for secret in shown["secrets"]} == {issued["secret_id"], reissued.json()["secret_id"]}

    revoked = await house.api.delete(f"{path}/secrets/{issued['secret_id']}")
    assert (revoked.status_code, revoked.json()["secret_ids"]) == (200, [reissued.json()["secret_id"]])
    assert (await house.api.delete(f"{path}/secrets/{'0' * 32}")).status_code == 404

    without_body = await house.api.post(f"{path}/secret/reissue")
    assert (without_body.status_code, without_body.json()["previous_valid_until"]) == (200, None)


async def test_when_a_secret_was_last_used_comes_from_metering(house: House) -> None:
    issued = await house.register()
    path = f"/v1/apps/{issued['client_id']}/authentication"
    away = (await house.api.get(path)).json()
    assert away["client_secret"] == issued["client_secret"]
    assert away["secrets"][0]["last_used_at"] is None
    assert [warning["code"] for warning in away["warnings"]] == ["metering_unavailable"]

    async with metering_says(house.nats_url, CredentialUse(secrets={issued["secret_id"]: NOW}), 0):
        there = (await house.api.get(path)).json()
    assert there["secrets"][0]["last_used_at"] == "2026-03-01T12:00:00Z"
    assert there["warnings"] == []


async def test_the_list_shows_usage_when_metering_is_there(house: House) -> None:
    first = await house.register("first", ("clova-voice", "papago-nmt"))
    await house.register("second")
    away = (await house.api.get("/v1/apps")).json()
    assert [app["name"] for app in away["apps"]] == ["second", "first"]
    assert {app["usage"][0]["daily"] for app in away["apps"]} == {None}
    assert [warning["code"] for warning in away["warnings"]] == ["metering_unavailable"]

    async with metering_says(house.nats_url, CredentialUse(), 7) as asked:
        there = (await house.api.get("/v1/apps")).json()
        usage = await house.api.get(
            f"/v1/apps/{first['client_id']}/usage?service=papago-nmt&period=monthly&from=2026-01-01&to=2026-02-01T00:00:00%2B09:00"
        )
    assert there["warnings"] == []
    assert [use["service"] for use in there["apps"][1]["usage"]] == ["clova-voice", "papago-nmt"]
    assert {use[period]["used"] for app in there["apps"] for use in app["usage"] for period in ("daily", "monthly")} == {7}
    assert (usage.status_code, usage.json()["used"]) == (200, 7)
    assert (asked[-1].period, str(asked[-1].from_), asked[-1].to) == (
        "monthly",
        "2026-01-01",
        datetime(2026, 1, 31, 15, tzinfo=UTC),
    )


async def test_pages_hold_every_application_once(house: House) -> None:
    names = [f"app {number}" for number in range(5)]
    for name in names:
        await house.register(name)
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = (await house.api.get("/v1/apps", params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
        seen += [app["name"] for app in page["apps"]]
        cursor = page["next_cursor"]
    assert seen == names[::-1]
    assert (await house.api.get("/v1/apps?cursor=nonsense")).status_code == 422


async def test_another_accounts_application_is_not_there(house: House) -> None:
    issued = await house.register()
    path = f"/v1/apps/{issued['client_id']}"
    async with client(house.url, await house.open_account("other")) as api:
        answers = [
            await api.get(path),
            await api.patch(path, json={"name": "mine"}),
            await api.delete(path),
            await api.get(f"{path}/authentication"),
            await api.post(f"{path}/secret/reissue", json={}),
            await api.delete(f"{path}/secrets/{issued['secret_id']}"),
        ]
        listed = (await api.get("/v1/apps")).json()["apps"]
    assert [answer.status_code for answer in answers] == [404] * 6
    assert listed == []
    assert (await house.api.get(path)).status_code == 200


@pytest.mark.parametrize(("role", "status"), [("member", 200), ("reviewer", 403), ("operator", 403)])
async def test_roles(house: House, role: str, status: int) -> None:
    async with client(house.url, await issue_token(house.dsn, roles=(role,))) as api:  # type: ignore[arg-type]
        answer = await api.get("/v1/apps")
        assert (answer.status_code, (await api.get("/v1/terms")).status_code) == (status, 200)
        if status == 403:
            assert answer.headers["content-type"] == "application/problem+json"


async def test_a_service_that_is_down_is_named_within_three_seconds(alone: House) -> None:
    path = "/v1/apps/" + "a" * 20
    for service, request in [
        ("registry", alone.api.get("/v1/apps")),
        ("registry", alone.api.post("/v1/apps", json={"name": "x", "services": ["csr"]})),
        ("metering", alone.api.get(f"{path}/usage?service=csr")),
    ]:
        began = time.monotonic()
        answer = await request
        assert time.monotonic() - began < 3
        assert answer.status_code == 503
        assert service in answer.json()["detail"]
        assert answer.headers["retry-after"].isdecimal()


async def test_a_service_that_hangs_is_named_within_three_seconds(alone: House) -> None:
    nc = await nats.connect(alone.nats_url)

    async def never(_: nats.aio.msg.Msg) -> None:
        """Takes the request and says nothing."""

    await nc.subscribe("registry.>", cb=never)
    await nc.flush()
    began = time.monotonic()
    answers = await asyncio.gather(alone.api.get("/v1/apps"), alone.api.get(f"/v1/apps/{'a' * 20}/authentication"))
    assert time.monotonic() - began < 3
    assert [answer.status_code for answer in answers] == [503, 503]
    assert all("registry" in answer.json()["detail"] for answer in answers)
    await nc.close()


async def test_the_frame_answers_beside_the_api(alone: House) -> None:
    ready = await alone.api.get("/readyz")
    assert (ready.status_code, ready.json()["parts"]["database"]["ready"]) == (200, True)
    await alone.api.get("/v1/apps")
    metrics: httpx.Response = await alone.api.get("/metrics")
    assert 'tollbook_console_answers_total{method="GET",route="/v1/apps",status="503"}' in metrics.text


async def test_when_nats_is_away_it_says_so_and_recovers_alone(private_nats: NatsProcess, postgres: PostgresDatabase) -> None:
    dsn = await postgres.service_schema("console")
    token = await issue_token(dsn)
    async with running(make_console(private_nats.url, dsn)) as url, client(url, token) as api:
        private_nats.kill()
        began = time.monotonic()
        answer = await api.get("/v1/apps")
        assert time.monotonic() - began < 3
        assert (answer.status_code, "registry" in answer.json()["detail"]) == (503, True)
        await until(api, 503)
        private_nats.start()
        await until(api, 200)


async def until(api: httpx.AsyncClient, status: int) -> None:
    """Ask /readyz until it says so."""
    async with asyncio.timeout(30):
        while (await api.get("/readyz")).status_code != status:  # noqa: ASYNC110 - a server is asked
            await asyncio.sleep(0.1)
