"""What was to be sent, over REST: by account, application and contact, page by page, with counts."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.console.conftest import Alerted, House
from tests.support.consoles import client, issue_token

NOBODY = "0f" * 16


async def deliveries(alerted: Alerted, path: str = "/v1/deliveries") -> list[dict[str, Any]]:
    answer = await alerted.api.get(path)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["deliveries"]
    return found


async def test_a_test_message_is_among_the_contacts_deliveries(alerted: Alerted) -> None:
    contact_id = (await alerted.verified())["contact_id"]
    path = f"/v1/contacts/{contact_id}"
    key = {"Idempotency-Key": "once"}
    sent = await alerted.api.post(f"{path}/test", json={"method": "email"}, headers=key)
    assert sent.status_code == 202, sent.text
    assert (await alerted.api.post(f"{path}/test", json={"method": "email"}, headers=key)).json() == sent.json()
    unverified = (await alerted.add())["contact_id"]
    assert (await alerted.api.post(f"/v1/contacts/{unverified}/test", json={"method": "email"})).status_code == 409

    test, code = await deliveries(alerted, f"{path}/deliveries")
    assert (test["delivery_id"], test["kind"], test["client_id"]) == (sent.json()["delivery_id"], "test", None)
    assert (test["contact_id"], test["contact_name"], test["contact_removed"]) == (contact_id, "Kim", False)
    assert (code["kind"], code["method"]) == ("verification", "email")
    only = await deliveries(alerted, f"{path}/deliveries?kind=test")
    assert [one["delivery_id"] for one in only] == [test["delivery_id"]], "its state may have changed meanwhile"
    assert await deliveries(alerted, f"/v1/contacts/{unverified}/deliveries") == []

    assert (await alerted.api.delete(path)).status_code == 204
    gone = (await deliveries(alerted, f"{path}/deliveries"))[0]
    assert (gone["delivery_id"], gone["contact_name"], gone["contact_removed"]) == (test["delivery_id"], None, True)


async def test_pages_and_counts(alerted: Alerted) -> None:
    contact_id = (await alerted.verified())["contact_id"]
    for _ in range(4):
        assert (await alerted.api.post(f"/v1/contacts/{contact_id}/test", json={"method": "email"})).status_code == 202
    everything = [one["delivery_id"] for one in await deliveries(alerted)]
    assert len(everything) == 5
    for path in ("/v1/deliveries", f"/v1/contacts/{contact_id}/deliveries"):
        found: list[str] = []
        cursor = ""
        while True:
            page = (await alerted.api.get(f"{path}?limit=2{cursor}")).json()
            assert len(page["deliveries"]) <= 2
            found += [one["delivery_id"] for one in page["deliveries"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert found == everything
    for chosen in ("", f"?contact_id={contact_id}"):
        counts = (await alerted.api.get(f"/v1/deliveries/counts{chosen}")).json()
        assert counts.keys() == {"waiting", "delivered", "failed"}
        assert sum(counts.values()) == 5
    none = (await alerted.api.get(f"/v1/deliveries/counts?contact_id={NOBODY}&client_id={'a' * 20}")).json()
    assert none == {"waiting": 0, "delivered": 0, "failed": 0}


async def test_everything_that_is_wrong_is_told(house: House) -> None:
    answer = await house.api.get("/v1/deliveries?state=lost&kind=x&limit=0&cursor=0&z=1")
    assert answer.status_code == 422, answer.text
    assert {field["field"] for field in answer.json()["fields"]} == {"state", "kind", "limit", "cursor", "z"}
    counts = await house.api.get("/v1/deliveries/counts?client_id=short&contact_id=short")
    assert {field["field"] for field in counts.json()["fields"]} == {"client_id", "contact_id"}


async def test_what_another_account_has_is_not_there(alerted: Alerted) -> None:
    issued = await alerted.house.register()
    contact_id = (await alerted.verified())["contact_id"]
    of_app = f"/v1/apps/{issued['client_id']}/deliveries"
    assert await deliveries(alerted, of_app) == []
    async with client(alerted.house.url, await alerted.house.open_account("other")) as other:
        for path in (
            of_app,
            f"/v1/contacts/{contact_id}/deliveries",
            f"/v1/contacts/{NOBODY}/deliveries",
            "/v1/apps/x/deliveries",
        ):
            assert (await other.get(path)).status_code == 404, path
        assert (await other.get("/v1/deliveries")).json() == {"deliveries": [], "next_cursor": None}
        assert sum((await other.get(f"/v1/deliveries/counts?contact_id={contact_id}")).json().values()) == 0


async def test_what_an_application_was_told_stays_when_it_is_gone(alerted: Alerted) -> None:
    contact_id = (await alerted.verified())["contact_id"]
    client_id = (await alerted.house.register())["client_id"]
    rule = {"daily": 70, "recipients": [{"contact_id": contact_id, "methods": ["email"]}]}
    path = f"/v1/apps/{client_id}/services/clova-voice/notifications"
    assert (await alerted.api.put(path, json=rule)).status_code == 200
    assert (await alerted.api.delete(f"/v1/apps/{client_id}")).status_code == 204
    async with asyncio.timeout(10):
        while (answer := await alerted.api.get(f"/v1/apps/{client_id}/deliveries")).status_code == 404:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    [told] = answer.json()["deliveries"]
    assert (told["kind"], told["client_id"], told["app_name"], told["contact_id"]) == (
        "app_deleted",
        client_id,
        "speech",
        contact_id,
    )
    counts = (await alerted.api.get(f"/v1/deliveries/counts?client_id={client_id}")).json()
    assert sum(counts.values()) == 1


async def test_who_only_reviews_sees_nothing(house: House) -> None:
    async with client(house.url, await issue_token(house.dsn, roles=("reviewer", "operator"))) as reviewer:
        for path in ("/v1/deliveries", "/v1/deliveries/counts", f"/v1/apps/{'a' * 20}/deliveries"):
            assert (await reviewer.get(path)).status_code == 403


async def test_without_alerts_everything_is_a_503_that_names_it(alone: House) -> None:
    paths = ("/v1/deliveries", "/v1/deliveries/counts", f"/v1/apps/{'a' * 20}/deliveries", f"/v1/contacts/{NOBODY}/deliveries")
    answers = await asyncio.gather(*(alone.api.get(path) for path in paths))
    assert {answer.status_code for answer in answers} == {503}
    assert all("alerts" in answer.json()["detail"] for answer in answers)
