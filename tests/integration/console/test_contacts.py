"""Contacts and groups over REST: added, verified, changed, removed; and nothing of them in the console's log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.integration.console.conftest import Alerted, House
from tests.support.consoles import client, issue_token

NOBODY = "0f" * 16
FULL = {
    "name": "홍길동",
    "email": "gildong@example.com",
    "phone": "+821012345678",
    "webhook_url": "https://example.com/hooks/1",
    "locale": "en",
    "zone": "America/New_York",
    "quiet_hours": {"start": "22:00", "end": "07:00"},
    "digest_at": "09:00",
}


async def test_a_contact_is_added_read_changed_and_removed(alerted: Alerted) -> None:
    answer = await alerted.api.post("/v1/contacts", json=FULL)
    assert answer.status_code == 201, answer.text
    added = answer.json()
    path = f"/v1/contacts/{added['contact_id']}"
    assert answer.headers["location"] == path
    assert {name: added[name] for name in FULL} == FULL
    assert {(one["method"], one["verified"]) for one in added["methods"]} == {
        ("email", False),
        ("sms", False),
        ("webhook", False),
    }
    assert (await alerted.api.get(path)).json() == added
    assert (await alerted.api.get("/v1/contacts")).json()["contacts"] == [added]

    edited = (await alerted.api.patch(path, json={"quiet_hours": "", "digest_at": "", "phone": "", "name": "Hong"})).json()
    assert (edited["name"], edited["quiet_hours"], edited["digest_at"], edited["phone"]) == ("Hong", None, None, None)
    assert (edited["email"], edited["zone"]) == (FULL["email"], FULL["zone"])
    none_left = await alerted.api.patch(path, json={"email": "", "webhook_url": ""})
    assert none_left.status_code == 422
    assert none_left.json()["fields"][0]["field"] in ("email", "webhook_url")

    for _ in range(2):
        assert (await alerted.api.delete(path)).status_code == 204
    assert (await alerted.api.get(path)).status_code == 404
    assert (await alerted.api.get("/v1/contacts")).json()["contacts"] == []


BODIES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["name"]),
    ({"name": "Kim"}, ["email"]),
    ({"name": "", "email": "kim", "phone": "010-1234-5678"}, ["email", "name", "phone"]),
    ({**FULL, "webhook_url": "file:///etc/passwd", "locale": "fr", "zone": "Mars"}, ["locale", "webhook_url", "zone"]),
    ({**FULL, "quiet_hours": {"start": "25:00"}, "digest_at": "9"}, ["digest_at", "quiet_hours.end", "quiet_hours.start"]),
    ({**FULL, "contact_id": NOBODY, "account": "other"}, ["account", "contact_id"]),
]


@pytest.mark.parametrize(("body", "fields"), BODIES)
async def test_everything_that_is_wrong_is_told(house: House, body: dict[str, Any], fields: list[str]) -> None:
    answer = await house.api.post("/v1/contacts", json=body)
    assert answer.status_code == 422, answer.text
    assert sorted(field["field"] for field in answer.json()["fields"]) == fields
    assert all(field["hint"] for field in answer.json()["fields"] if field["field"] not in ("account", "contact_id"))


async def test_a_code_verifies_the_address_and_wrong_ones_are_counted(alerted: Alerted) -> None:
    contact_id = (await alerted.add())["contact_id"]
    path = f"/v1/contacts/{contact_id}/verification"
    before = await alerted.api.put(path, json={"method": "email", "code": "000000"})
    assert (before.status_code, [field["field"] for field in before.json()["fields"]]) == (422, ["code"])
    assert f"POST {path}" in before.json()["fields"][0]["hint"]

    code = await alerted.code(contact_id)
    again = await alerted.api.post(path, json={"method": "email"})
    assert (again.status_code, again.json()["code"]) == (429, "too_many_requests")
    assert 0 < int(again.headers["retry-after"]) <= 60
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    first = await alerted.api.put(path, json={"method": "email", "code": wrong})
    assert (first.status_code, first.json()["fields"][0]["field"]) == (422, "code")
    assert "4 attempts are left" in first.json()["fields"][0]["problem"]
    for _ in range(3):
        last = await alerted.api.put(path, json={"method": "email", "code": wrong})
    assert "1 attempt is left" in last.json()["fields"][0]["problem"]
    right = await alerted.api.put(path, json={"method": "email", "code": code})
    assert (right.status_code, right.json()["verified"]) == (200, True)
    assert (await alerted.api.get(f"/v1/contacts/{contact_id}")).json()["methods"][0]["verified"]
    assert (await alerted.api.post(path, json={"method": "email"})).status_code == 409


async def test_five_wrong_codes_and_the_right_one_is_void(alerted: Alerted) -> None:
    contact_id = (await alerted.add())["contact_id"]
    path = f"/v1/contacts/{contact_id}/verification"
    code = await alerted.code(contact_id)
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    for entered in (*[wrong] * 5, code):
        answer = await alerted.api.put(path, json={"method": "email", "code": entered})
        assert answer.status_code == 422
    assert f"POST {path}" in answer.json()["fields"][0]["hint"]
    other = await alerted.api.put(path, json={"method": "sms", "code": code})
    assert (other.status_code, other.json()["fields"][0]["field"]) == (422, "method")


async def test_a_webhook_has_a_secret_that_can_be_exchanged(alerted: Alerted) -> None:
    without = (await alerted.add())["contact_id"]
    assert (await alerted.api.get(f"/v1/contacts/{without}/webhook-secret")).status_code == 404
    path = f"/v1/contacts/{(await alerted.add(webhook_url='https://example.com/hooks/1'))['contact_id']}/webhook-secret"
    first = (await alerted.api.get(path)).json()
    assert first["secret"].startswith("whsec_")
    second = await alerted.api.post(f"{path}/reissue")
    assert second.status_code == 200, second.text
    assert second.json()["secret"] != first["secret"]
    assert (await alerted.api.get(path)).json() == second.json()


async def test_groups(alerted: Alerted) -> None:
    kim, lee = [(await alerted.add(name=name))["contact_id"] for name in ("Kim", "Lee")]
    made = await alerted.api.post("/v1/contact-groups", json={"name": "On call", "contacts": [kim]})
    assert made.status_code == 201, made.text
    path = f"/v1/contact-groups/{made.json()['group_id']}"
    assert made.headers["location"] == path
    edited = (await alerted.api.patch(path, json={"contacts": [lee, kim]})).json()
    assert {one["name"] for one in edited["contacts"]} == {"Kim", "Lee"}
    assert (await alerted.api.get(path)).json() == edited
    assert (await alerted.api.get("/v1/contact-groups")).json()["groups"] == [edited]
    wrong = await alerted.api.post("/v1/contact-groups", json={"name": "x", "contacts": [kim, NOBODY, "kim"], "group_id": NOBODY})
    assert (wrong.status_code, {field["field"] for field in wrong.json()["fields"]}) == (422, {"contacts[2]", "group_id"})
    unknown = await alerted.api.post("/v1/contact-groups", json={"name": "x", "contacts": [kim, NOBODY]})
    assert (unknown.status_code, [field["field"] for field in unknown.json()["fields"]]) == (422, ["contacts[1]"])

    assert (await alerted.api.delete(f"/v1/contacts/{kim}")).status_code == 204
    assert [one["name"] for one in (await alerted.api.get(path)).json()["contacts"]] == ["Lee"]
    for _ in range(2):
        assert (await alerted.api.delete(path)).status_code == 204
    assert (await alerted.api.get(path)).status_code == 404


async def test_a_key_makes_it_safe_to_repeat(alerted: Alerted) -> None:
    key = {"Idempotency-Key": "once"}
    first = await alerted.api.post("/v1/contacts", json=FULL, headers=key)
    again = await alerted.api.post("/v1/contacts", json=FULL, headers=key)
    assert first.json() == again.json()
    assert len((await alerted.api.get("/v1/contacts")).json()["contacts"]) == 1


REQUESTS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/v1/contacts/{contact}", None),
    ("PATCH", "/v1/contacts/{contact}", {"name": "x"}),
    ("DELETE", "/v1/contacts/{contact}", None),
    ("POST", "/v1/contacts/{contact}/verification", {"method": "email"}),
    ("PUT", "/v1/contacts/{contact}/verification", {"method": "email", "code": "123456"}),
    ("POST", "/v1/contacts/{contact}/test", {"method": "email"}),
    ("GET", "/v1/contacts/{contact}/webhook-secret", None),
    ("POST", "/v1/contacts/{contact}/webhook-secret/reissue", None),
    ("GET", "/v1/contacts/{contact}/deliveries", None),
    ("GET", "/v1/contact-groups/{group}", None),
    ("PATCH", "/v1/contact-groups/{group}", {"name": "x"}),
    ("DELETE", "/v1/contact-groups/{group}", None),
]


async def test_another_accounts_contact_is_not_there(alerted: Alerted) -> None:
    contact = (await alerted.add(webhook_url="https://example.com/hooks/1"))["contact_id"]
    group = (await alerted.api.post("/v1/contact-groups", json={"name": "x"})).json()["group_id"]
    async with client(alerted.house.url, await alerted.house.open_account("other")) as other:
        for ids in ({"contact": contact, "group": group}, {"contact": NOBODY, "group": NOBODY}, {"contact": "a", "group": "b"}):
            for method, path, body in REQUESTS:
                answer = await other.request(method, path.format(**ids), json=body)
                assert answer.status_code == 404, (method, path, ids, answer.text)
        assert (await other.get("/v1/contacts")).json()["contacts"] == []
        named = await other.post("/v1/contact-groups", json={"name": "x", "contacts": [contact]})
        assert (named.status_code, [field["field"] for field in named.json()["fields"]]) == (422, ["contacts[0]"])
    assert (await alerted.api.get(f"/v1/contacts/{contact}")).status_code == 200


async def test_who_only_reviews_sees_nobody(house: House) -> None:
    token = await issue_token(house.dsn, roles=("reviewer",))
    async with client(house.url, token) as reviewer:
        for method, path, body in (*REQUESTS, ("GET", "/v1/contacts", None), ("POST", "/v1/contact-groups", {"name": "x"})):
            answer = await reviewer.request(method, path.format(contact=NOBODY, group=NOBODY), json=body)
            assert answer.status_code == 403, (method, path, answer.text)


async def test_without_alerts_everything_is_a_503_that_names_it(alone: House) -> None:
    asked = [(method, path.format(contact=NOBODY, group=NOBODY), body) for method, path, body in REQUESTS]
    asked += [("GET", "/v1/contacts", None), ("POST", "/v1/contacts", FULL), ("GET", "/v1/contact-groups", None)]
    answers = await asyncio.gather(*(alone.api.request(method, path, json=body) for method, path, body in asked))
    assert {answer.status_code for answer in answers} == {503}
    assert all("alerts" in answer.json()["detail"] and answer.headers["retry-after"] for answer in answers)


async def test_nothing_of_a_contact_is_logged(alerted: Alerted, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        contact_id = (await alerted.add(**FULL))["contact_id"]
        code = await alerted.code(contact_id)
        await alerted.api.put(f"/v1/contacts/{contact_id}/verification", json={"method": "email", "code": code})
        await alerted.api.post("/v1/contacts", json={"name": FULL["name"], "email": "gildong@", "phone": FULL["phone"]})
        await alerted.api.patch(f"/v1/contacts/{contact_id}", json={"phone": "+8210", "name": FULL["name"]})
        secret = (await alerted.api.get(f"/v1/contacts/{contact_id}/webhook-secret")).json()["secret"]
    for hidden in (FULL["name"], "gildong", FULL["phone"], FULL["webhook_url"], code, secret):
        assert str(hidden) not in caplog.text
