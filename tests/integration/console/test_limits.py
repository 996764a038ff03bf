"""Limits over REST, of an application and of the account: set, read, lost updates, history, scheduled changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.integration.console.conftest import House
from tests.support.consoles import client, issue_token, make_metering, running
from tests.support.servers import PostgresDatabase

RUNGS = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
NEXT_MONTH = (datetime.now(UTC) + timedelta(days=30)).isoformat()


@dataclass
class Limited:
    """The console with metering behind it, and where those of an application and of the account are."""

    house: House
    of_app: str
    of_account: str = "/v1/services/clova-voice/limits"

    @property
    def api(self) -> httpx.AsyncClient:
        return self.house.api

    def both(self) -> tuple[str, str]:
        return self.of_app, self.of_account


@pytest.fixture
async def limited(house: House, postgres: PostgresDatabase) -> AsyncIterator[Limited]:
    dsn = await postgres.service_schema("metering")
    async with running(make_metering(house.nats_url, dsn)):
        issued = await house.register()
        found = Limited(house, f"/v1/apps/{issued['client_id']}/services/clova-voice/limits")
        async with asyncio.timeout(20):
            while (await house.api.get(found.of_app)).status_code == 503:  # noqa: ASYNC110 - a server is asked
                await asyncio.sleep(0.1)
        yield found


async def test_none_is_set_then_some_then_none(limited: Limited) -> None:
    none = (await limited.api.get(limited.of_app)).json()
    assert (none["version"], none["daily"], none["monthly"], none["daily_thresholds"]) == (0, None, None, RUNGS)
    body = {"daily": 5, "monthly": 50, "daily_thresholds": [100, 50], "expected_version": 0, "reason": "budget"}
    answer = await limited.api.put(limited.of_app, json=body)
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    shown = (await limited.api.get(limited.of_app)).json()
    assert shown == answer.json()
    assert (shown["daily"], shown["monthly"], shown["daily_thresholds"], shown["monthly_thresholds"]) == (5, 50, [50, 100], RUNGS)
    removed = (await limited.api.put(limited.of_app, json={"daily": None})).json()
    assert (removed["version"], removed["daily"], removed["monthly"]) == (2, None, None)
    assert (await limited.api.get(limited.of_account)).json()["version"] == 0
    account = (await limited.api.put(limited.of_account, json={"monthly": 0})).json()
    assert (account["version"], account["monthly"], account["service"]) == (1, 0, "clova-voice")


async def test_a_lost_update_is_told_with_both_versions(limited: Limited) -> None:
    for path in limited.both():
        assert (await limited.api.put(path, json={"monthly": 50, "expected_version": 0})).status_code == 200
        lost = await limited.api.put(path, json={"monthly": 60, "expected_version": 0})
        assert (lost.status_code, lost.json()["code"]) == (409, "conflict")
        assert "version 1" in lost.json()["detail"]
        assert "0" in lost.json()["detail"]
        assert (await limited.api.get(path)).json()["monthly"] == 50


BODIES: list[tuple[dict[str, Any], list[str]]] = [
    ({"daily": 6, "monthly": 5}, ["daily", "monthly"]),
    ({"daily": "6", "monthly": -1}, ["daily", "monthly"]),
    ({"daily_thresholds": [0, 50, 50]}, ["daily_thresholds[0]"]),
    ({"monthly_thresholds": [50, 50]}, ["monthly_thresholds"]),
    ({"daily": 10**16, "reason": "a\nb", "expected_version": -1}, ["daily", "expected_version", "reason"]),
    ({"service": "csr", "client_id": "a" * 20, "account": "other"}, ["account", "client_id", "service"]),
]


@pytest.mark.parametrize(("body", "fields"), BODIES)
async def test_everything_that_is_wrong_is_told(limited: Limited, body: dict[str, Any], fields: list[str]) -> None:
    answer = await limited.api.put(limited.of_app, json=body)
    assert answer.status_code == 422, answer.text
    assert sorted(field["field"] for field in answer.json()["fields"]) == fields
    scheduled = await limited.api.post(f"{limited.of_app}/scheduled", json=body | {"effective_at": 1_800_000_000})
    assert "effective_at" in {field["field"] for field in scheduled.json()["fields"]}
    assert (await limited.api.get(limited.of_app)).json()["version"] == 0


async def test_the_history_pages_newest_first(limited: Limited) -> None:
    for path in limited.both():
        for amount in range(1, 6):
            await limited.api.put(path, json={"monthly": amount, "reason": f"number {amount}"})
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = (await limited.api.get(f"{path}/history?limit=2{cursor}")).json()
            assert len(page["changes"]) <= 2
            found += page["changes"]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert [change["version"] for change in found] == [5, 4, 3, 2, 1]
        assert [change["new"]["monthly"] for change in found] == [5, 4, 3, 2, 1]
        assert [change["old"] and change["old"]["monthly"] for change in found] == [4, 3, 2, 1, None]
        assert found[0]["reason"] == "number 5"
        assert found[0]["changed_by"].startswith("token:")
        wrong = await limited.api.get(f"{path}/history?limit=0&cursor=x")
        assert (wrong.status_code, {field["field"] for field in wrong.json()["fields"]}) == (422, {"limit", "cursor"})


async def test_changes_are_scheduled_listed_and_taken_back(limited: Limited) -> None:
    for path in limited.both():
        body = {"effective_at": NEXT_MONTH, "monthly": 500, "reason": "spring"}
        made = await limited.api.post(f"{path}/scheduled", json=body)
        assert made.status_code == 201, made.text
        assert (made.json()["monthly"], made.json()["reason"]) == (500, "spring")
        other = (await limited.api.post(f"{path}/scheduled", json={"effective_at": NEXT_MONTH})).json()
        listed = (await limited.api.get(f"{path}/scheduled")).json()["scheduled"]
        assert {one["schedule_id"] for one in listed} == {made.json()["schedule_id"], other["schedule_id"]}
        assert (await limited.api.get(path)).json()["scheduled"] == listed
        for _ in range(2):
            assert (await limited.api.delete(f"{path}/scheduled/{other['schedule_id']}")).status_code == 204
        assert (await limited.api.delete(f"{path}/scheduled/{'0' * 32}")).status_code == 404
        assert (await limited.api.delete(f"{path}/scheduled/nonsense")).status_code == 404
        soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
        taken = (await limited.api.post(f"{path}/scheduled", json={"effective_at": soon, "monthly": 300})).json()
        async with asyncio.timeout(20):
            while (await limited.api.get(path)).json()["monthly"] != 300:  # noqa: ASYNC110 - a server is asked
                await asyncio.sleep(0.1)
        assert (await limited.api.delete(f"{path}/scheduled/{taken['schedule_id']}")).status_code == 409
        for at in ("2020-01-01T00:00:00Z", "2090-01-01T00:00:00Z", NEXT_MONTH[:19]):
            wrong = await limited.api.post(f"{path}/scheduled", json={"effective_at": at})
            assert (wrong.status_code, [field["field"] for field in wrong.json()["fields"]]) == (422, ["effective_at"])


async def test_a_key_makes_it_safe_to_repeat(limited: Limited) -> None:
    for path in limited.both():
        for method, where, body in (
            ("PUT", path, {"monthly": 7, "expected_version": 0}),
            ("POST", f"{path}/scheduled", {"monthly": 8, "effective_at": NEXT_MONTH}),
        ):
            key = {"Idempotency-Key": f"{method}-{len(path)}"}
            first = await limited.api.request(method, where, json=body, headers=key)
            again = await limited.api.request(method, where, json=body, headers=key)
            assert first.is_success, first.text
            assert first.json() == again.json()
            reused = await limited.api.request(method, where, json=body | {"monthly": 9}, headers=key)
            assert (reused.status_code, reused.json()["code"]) == (422, "command_reused")
        assert (await limited.api.get(path)).json()["version"] == 1
        assert len((await limited.api.get(f"{path}/scheduled")).json()["scheduled"]) == 1


async def test_another_accounts_application_is_not_there(limited: Limited) -> None:
    await limited.api.put(limited.of_app, json={"monthly": 5})
    await limited.api.put(limited.of_account, json={"monthly": 5})
    async with client(limited.house.url, await limited.house.open_account("other")) as other:
        for method, rest, body in (
            ("GET", "", None),
            ("PUT", "", {"monthly": 1}),
            ("GET", "/history", None),
            ("GET", "/scheduled", None),
            ("POST", "/scheduled", {"effective_at": NEXT_MONTH}),
            ("DELETE", f"/scheduled/{'0' * 32}", None),
        ):
            answer = await other.request(method, limited.of_app + rest, json=body)
            assert answer.status_code == 404, (method, rest, answer.text)
        assert (await other.get(limited.of_account)).json()["version"] == 0
    assert (await limited.api.get(limited.of_app)).json()["monthly"] == 5


async def test_who_only_reviews_sees_and_sets_nothing(limited: Limited) -> None:
    token = await issue_token(limited.house.dsn, roles=("reviewer",))
    async with client(limited.house.url, token) as reviewer:
        for path in limited.both():
            assert (await reviewer.get(path)).status_code == 403
            assert (await reviewer.put(path, json={"monthly": 1})).status_code == 403
            assert (await reviewer.get(f"{path}/history")).status_code == 403


async def test_services_that_are_none(limited: Limited) -> None:
    for service in ("nonsense", "NOT_ONE", "x" * 33):
        for path in (limited.of_app, limited.of_account):
            answer = await limited.api.get(path.replace("clova-voice", service))
            assert (answer.status_code, [field["field"] for field in answer.json()["fields"]]) == (422, ["service"])


async def test_without_metering_everything_is_a_503_that_names_it(house: House) -> None:
    issued = await house.register()
    app, account = f"/v1/apps/{issued['client_id']}/services/clova-voice/limits", "/v1/services/clova-voice/limits"
    answers = await asyncio.gather(
        *(
            house.api.request(method, path + rest, json=body)
            for path in (app, account)
            for method, rest, body in (
                ("GET", "", None),
                ("PUT", "", {"monthly": 1}),
                ("GET", "/history", None),
                ("GET", "/scheduled", None),
                ("POST", "/scheduled", {"effective_at": NEXT_MONTH}),
                ("DELETE", f"/scheduled/{'0' * 32}", None),
            )
        )
    )
    assert {answer.status_code for answer in answers} == {503}
    assert all("metering" in answer.json()["detail"] and answer.headers["retry-after"] for answer in answers)
