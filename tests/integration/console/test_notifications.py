"""Notification rules over REST, of an application and of the account's own limit: set, read, warned of, their history."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.integration.console.conftest import Alerted, House
from tests.support.consoles import client, issue_token

NOBODY = "0f" * 16


@dataclass
class Ruled:
    """Where the rules of an application and of the account are."""

    alerted: Alerted
    of_app: str
    of_account: str = "/v1/services/clova-voice/notifications"

    @property
    def api(self) -> httpx.AsyncClient:
        return self.alerted.api

    def both(self) -> tuple[str, str]:
        return self.of_app, self.of_account


@pytest.fixture
async def ruled(alerted: Alerted) -> Ruled:
    issued = await alerted.house.register()
    return Ruled(alerted, f"/v1/apps/{issued['client_id']}/services/clova-voice/notifications")


async def test_a_rule_is_set_and_read(ruled: Ruled) -> None:
    kim = (await ruled.alerted.verified())["contact_id"]
    for path in ruled.both():
        none = (await ruled.api.get(path)).json()
        assert (none["version"], none["monthly"], none["recipients"]) == (0, None, [])
        body: dict[str, Any] = {
            "monthly": 70,
            "monthly_custom": [95, 50],
            "recipients": [{"contact_id": kim, "methods": ["email"]}],
            "expected_version": 0,
        }
        answer = await ruled.api.put(path, json=body)
        assert answer.status_code == 200, answer.text
        shown = answer.json()
        assert (shown["version"], shown["monthly"], shown["monthly_custom"]) == (1, 70, [50, 95])
        assert shown["monthly_percentages"] == [50, 70, 80, 90, 95, 100]
        assert [(one["contact_id"], one["name"]) for one in shown["recipients"]] == [(kim, "Kim")]
        assert (shown["client_id"] is None) is (path == ruled.of_account)
        assert (await ruled.api.get(path)).json() == shown
        lost = await ruled.api.put(path, json=body)
        assert (lost.status_code, lost.json()["code"]) == (409, "conflict")


async def test_a_rule_that_would_tell_nobody_is_kept_with_a_warning(ruled: Ruled) -> None:
    answer = await ruled.api.put(ruled.of_app, json={"daily": 70})
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert answer.json()["warnings"]
    assert all(warning["code"] and warning["detail"] for warning in answer.json()["warnings"])
    assert (await ruled.api.get(ruled.of_app)).json()["warnings"] == answer.json()["warnings"]


BODIES: list[tuple[dict[str, Any], list[str]]] = [
    ({"daily": 75, "monthly": 0}, ["daily", "monthly"]),
    ({"daily": "70", "daily_custom": [50, 50], "monthly_custom": [101]}, ["daily", "daily_custom", "monthly_custom[0]"]),
    (
        {"recipients": [{"methods": []}, {"contact_id": "kim", "methods": ["fax"]}]},
        ["recipients[0].methods", "recipients[1].contact_id", "recipients[1].methods[0]"],
    ),
    ({"recipients": [{"contact_id": NOBODY, "group_id": NOBODY, "methods": ["email"]}]}, ["recipients[0].contact_id"]),
    ({"client_id": "a" * 20, "service": "csr", "account": "x"}, ["account", "client_id", "service"]),
]


@pytest.mark.parametrize(("body", "fields"), BODIES)
async def test_everything_that_is_wrong_is_told(house: House, body: dict[str, Any], fields: list[str]) -> None:
    for path in (f"/v1/apps/{'a' * 20}/services/csr/notifications", "/v1/services/csr/notifications"):
        answer = await house.api.put(path, json=body)
        assert answer.status_code == 422, answer.text
        assert sorted(field["field"] for field in answer.json()["fields"]) == fields


async def test_only_verified_contacts_of_the_account_can_be_chosen(ruled: Ruled) -> None:
    unverified = (await ruled.alerted.add())["contact_id"]
    recipients = [{"contact_id": unverified, "methods": ["email"]}, {"contact_id": NOBODY, "methods": ["email"]}]
    for path in ruled.both():
        answer = await ruled.api.put(path, json={"monthly": 70, "recipients": recipients})
        assert answer.status_code == 422, answer.text
        assert {field["field"].split(".")[0] for field in answer.json()["fields"]} == {"recipients[0]", "recipients[1]"}
        assert (await ruled.api.get(path)).json()["version"] == 0


async def test_the_history_pages_and_shows_who_is_gone(ruled: Ruled) -> None:
    kim = (await ruled.alerted.verified())["contact_id"]
    group = (await ruled.api.post("/v1/contact-groups", json={"name": "On call", "contacts": [kim]})).json()["group_id"]
    recipients = [{"contact_id": kim, "methods": ["email"]}, {"group_id": group, "methods": ["email", "sms"]}]
    for path in ruled.both():
        for monthly in (50, 60, 70):
            answer = await ruled.api.put(path, json={"monthly": monthly, "recipients": recipients})
            assert answer.status_code == 200, answer.text
    before = (await ruled.api.get(f"{ruled.of_app}/history")).json()["changes"][0]["recipients"]
    assert [(one["name"], one["removed"]) for one in before] == [("Kim", False), ("On call", False)]
    await ruled.api.delete(f"/v1/contacts/{kim}")
    for path in ruled.both():
        first = (await ruled.api.get(f"{path}/history?limit=2")).json()
        assert [change["monthly"] for change in first["changes"]] == [70, 60]
        assert first["changes"][0]["changed_by"].startswith("token:")
        rest = (await ruled.api.get(f"{path}/history?limit=2&cursor={first['next_cursor']}")).json()
        assert ([change["version"] for change in rest["changes"]], rest["next_cursor"]) == ([1], None)
        for change in (*first["changes"], *rest["changes"]):
            gone, there = change["recipients"]
            assert (gone["contact_id"], gone["name"], gone["removed"]) == (kim, None, True)
            assert (there["group_id"], there["name"], there["removed"]) == (group, "On call", False)
        wrong = await ruled.api.get(f"{path}/history?limit=0&cursor=x")
        assert (wrong.status_code, {field["field"] for field in wrong.json()["fields"]}) == (422, {"limit", "cursor"})
        assert kim not in (await ruled.api.get(path)).text, "nobody who is gone is a recipient"


async def test_another_accounts_application_is_not_there(ruled: Ruled) -> None:
    await ruled.api.put(ruled.of_app, json={"monthly": 70})
    await ruled.api.put(ruled.of_account, json={"monthly": 70})
    async with client(ruled.alerted.house.url, await ruled.alerted.house.open_account("other")) as other:
        for method, rest, body in (("GET", "", None), ("PUT", "", {"monthly": 10}), ("GET", "/history", None)):
            for path in (ruled.of_app, f"/v1/apps/{'b' * 20}/services/clova-voice/notifications"):
                answer = await other.request(method, path + rest, json=body)
                assert answer.status_code == 404, (method, rest, answer.text)
        assert (await other.get(ruled.of_account)).json()["version"] == 0
    assert (await ruled.api.get(ruled.of_app)).json()["monthly"] == 70


async def test_templates_and_their_previews(alerted: Alerted) -> None:
    found = (await alerted.api.get("/v1/notification-templates")).json()["templates"]
    assert {"crossed", "verification", "test"} <= {one["kind"] for one in found}
    for one in found:
        previews = await asyncio.gather(
            *(
                alerted.api.get(f"/v1/notification-templates/{one['kind']}/preview?method={method}&locale={locale}")
                for method in one["methods"]
                for locale in one["locales"]
            )
        )
        for preview in previews:
            assert preview.status_code == 200, preview.text
            assert preview.json()["text"] or preview.json()["body"]
    wrong = await alerted.api.get("/v1/notification-templates/nonsense/preview?method=fax&locale=fr&x=1")
    assert (wrong.status_code, {field["field"] for field in wrong.json()["fields"]}) == (422, {"kind", "method", "locale", "x"})


async def test_who_only_reviews_sees_and_sets_nothing(house: House) -> None:
    app, account = f"/v1/apps/{'a' * 20}/services/csr/notifications", "/v1/services/csr/notifications"
    async with client(house.url, await issue_token(house.dsn, roles=("reviewer",))) as reviewer:
        for path in (app, account, "/v1/notification-templates"):
            assert (await reviewer.get(path)).status_code == 403
        for path in (app, account):
            assert (await reviewer.put(path, json={"monthly": 70})).status_code == 403
            assert (await reviewer.get(f"{path}/history")).status_code == 403


async def test_without_alerts_everything_is_a_503_that_names_it(alone: House) -> None:
    app, account = f"/v1/apps/{'a' * 20}/services/csr/notifications", "/v1/services/csr/notifications"
    asked: list[tuple[str, str, dict[str, Any] | None]] = [
        (method, path + rest, body)
        for path in (app, account)
        for method, rest, body in (("GET", "", None), ("PUT", "", {"monthly": 70}), ("GET", "/history", None))
    ]
    asked += [("GET", "/v1/notification-templates", None), ("GET", "/v1/notification-templates/crossed/preview", None)]
    answers = await asyncio.gather(*(alone.api.request(method, path, json=body) for method, path, body in asked))
    assert {answer.status_code for answer in answers} == {503}
    assert all("alerts" in answer.json()["detail"] and answer.headers["retry-after"] for answer in answers)
