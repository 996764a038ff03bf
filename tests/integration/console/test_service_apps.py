"""Applying for service apps, and reviewing, over REST: with the real review, and metering, which has counted a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import nats
import pytest

from shared.events.usage import MSGPACK, UsageBatch, UsageRecord
from shared.ids import new_id
from tests.integration.console.conftest import House
from tests.support.consoles import client, issue_token, make_metering, make_review, running
from tests.support.granted import APPROVED, CHECKLIST, FORM, rejected
from tests.support.metering_process import now_us
from tests.support.servers import PostgresDatabase

SERVICE = "clova-studio"
ID = "0f" * 16
APPLICANTS = [
    ("GET", "/v1/service-apps/form", None),
    ("GET", "/v1/service-apps", None),
    ("POST", "/v1/service-apps", {"client_id": "a" * 20, "service": SERVICE}),
    ("GET", f"/v1/service-apps/{ID}", None),
    ("PATCH", f"/v1/service-apps/{ID}", {"form": {}}),
    ("POST", f"/v1/service-apps/{ID}/submission", None),
    ("DELETE", f"/v1/service-apps/{ID}/submission", None),
    ("POST", f"/v1/service-apps/{ID}/amendment", None),
    ("GET", f"/v1/service-apps/{ID}/revisions/1", None),
    ("GET", f"/v1/service-apps/{ID}/code", None),
    ("GET", "/v1/test-apps", None),
    ("GET", "/v1/tuned-tasks", None),
    ("POST", "/v1/tuned-tasks", {"name": "Mine", "model": "HCX-003", "task": "chat"}),
    ("DELETE", f"/v1/tuned-tasks/tuned-{ID}", None),
]
REVIEWERS = [
    ("GET", "/v1/reviews", None),
    ("GET", f"/v1/reviews/{ID}", None),
    ("PUT", f"/v1/reviews/{ID}/claim", None),
    ("DELETE", f"/v1/reviews/{ID}/claim", None),
    ("POST", f"/v1/reviews/{ID}/changes", {"comments": [{"field": "model", "comment": "Why this one?"}]}),
    ("POST", f"/v1/reviews/{ID}/decision", APPROVED),
    ("PUT", f"/v1/reviews/{ID}/suspension", {"reason": "Harm."}),
    ("DELETE", f"/v1/reviews/{ID}/suspension", None),
]


@dataclass
class Reviewed:
    """An application that has called the service in tier test; `reviewer` is signed in as one of the house."""

    house: House
    reviewer: httpx.AsyncClient
    client_id: str

    @property
    def api(self) -> httpx.AsyncClient:
        return self.house.api

    async def draft(self, **fields: object) -> dict[str, Any]:
        """A draft of it, which lacks nothing unless told otherwise."""
        whole = {"model": "HCX-003", "task": "chat", "form": FORM, "checklist": CHECKLIST}
        body = {"client_id": self.client_id, "service": SERVICE, **whole, **fields}
        answer = await self.api.post("/v1/service-apps", json=body)
        assert answer.status_code == 201, answer.text
        drafted: dict[str, Any] = answer.json()
        assert answer.headers["location"] == f"/v1/service-apps/{drafted['id']}"
        return drafted

    async def submitted(self) -> str:
        """The id of an application that waits for a reviewer."""
        drafted = await self.draft()
        answer = await self.api.post(f"/v1/service-apps/{drafted['id']}/submission")
        assert (answer.status_code, answer.json()["state"]) == (200, "submitted"), answer.text
        return str(drafted["id"])


async def publish_call(house: House, client_id: str) -> None:
    """A call as a gate reports it."""
    nc = await nats.connect(house.nats_url)
    try:
        batch = UsageBatch(publisher=new_id(), seq=1, records=[UsageRecord(client_id, SERVICE, now_us(), 1)])
        await nc.jetstream().publish("usage.records.0", msgspec.msgpack.encode(batch), headers={"Content-Type": MSGPACK})
    finally:
        await nc.close()


@pytest.fixture
async def reviewed(house: House, postgres: PostgresDatabase) -> AsyncIterator[Reviewed]:
    metering, review = await postgres.service_schema("metering"), await postgres.service_schema("review")
    async with running(make_metering(house.nats_url, metering)), running(make_review(house.nats_url, review)):
        issued = await house.register("Minutes", (SERVICE,))
        await publish_call(house, issued["client_id"])
        async with client(house.url, await issue_token(house.dsn, "tollbook", ("reviewer",))) as reviewer:
            yield Reviewed(house, reviewer, issued["client_id"])


def checked(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem that an answer with that status is."""
    assert answer.status_code == status, answer.text[:1_000]
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    return problem


def fields_of(answer: httpx.Response) -> list[str]:
    return sorted(field["field"] for field in checked(answer, 422)["fields"])


async def test_each_side_has_its_role_and_a_token_may_have_both(alone: House) -> None:
    """Nothing behind the console runs: what is let in gets as far as that. Ids that nobody can have get nowhere."""
    cases = (
        (("owner",), APPLICANTS, REVIEWERS),
        (("reviewer",), REVIEWERS, APPLICANTS),
        (("operator",), [], APPLICANTS + REVIEWERS),
    )
    for roles, allowed, refused in (*cases, (("member", "reviewer"), APPLICANTS + REVIEWERS, [])):
        async with client(alone.url, await issue_token(alone.dsn, "other", roles)) as api:
            for method, path, body in allowed:
                problem = checked(await api.request(method, path, json=body), 503)
                assert "review" in problem["detail"], path
            for method, path, body in refused:
                checked(await api.request(method, path, json=body), 403)
            for method, path, body in allowed:
                for place, wrong in ((ID, "nonsense"), ("/1", "/0"), ("/1", f"/{'9' * 30}"), ("/1", "/x")):
                    if place in path:
                        checked(await api.request(method, path.replace(place, wrong), json=body), 404)


async def test_from_a_draft_to_the_code_that_calls_it(reviewed: Reviewed) -> None:
    api, reviewer = reviewed.api, reviewed.reviewer
    task = await api.post("/v1/tuned-tasks", json={"name": "In brief", "model": "HCX-003", "task": "summarization"})
    task_id = task.json()["task_id"]
    assert (task.status_code, task.headers["location"]) == (201, f"/v1/tuned-tasks/{task_id}")
    form = (await api.get("/v1/service-apps/form")).json()
    assert form.keys() >= {"version", "schema", "checklist", "criteria", "models", "tasks", "tuned_tasks"}
    assert form["schema"]["properties"].keys() >= FORM.keys()
    drafted = await reviewed.draft(task=task_id, form={"name": "Minutes"}, checklist={}, form_version=form["version"])
    mine, theirs = f"/v1/service-apps/{drafted['id']}", f"/v1/reviews/{drafted['id']}"
    checked(await reviewer.get(theirs), 404)
    lacking = fields_of(await api.post(f"{mine}/submission"))
    assert lacking == sorted(lack["field"] for lack in (await api.get(mine)).json()["missing"])
    assert {"form.purpose", "form.contact", "checklist.ethics"} < set(lacking)
    assert (await api.patch(mine, json={"form": FORM, "checklist": CHECKLIST})).json()["missing"] == []
    assert (await api.post(f"{mine}/submission")).json()["state"] == "submitted"
    [queued] = (await reviewer.get("/v1/reviews", params={"state": "submitted"})).json()["reviews"]
    assert (queued["id"], queued["own"], queued["account"]) == (drafted["id"], False, "demo")
    assert (await reviewer.put(f"{theirs}/claim")).json()["state"] == "in_review"
    assert (await reviewer.delete(f"{theirs}/claim")).json()["state"] == "submitted"
    await reviewer.put(f"{theirs}/claim")
    assert [one["id"] for one in (await reviewer.get("/v1/reviews?mine=true")).json()["reviews"]] == [drafted["id"]]
    assert (await reviewer.get("/v1/reviews?overdue=true")).json()["reviews"] == []
    wanted = {"comments": [{"field": "form.purpose", "comment": "For whom?"}]}
    assert (await reviewer.post(f"{theirs}/changes", json=wanted)).json()["state"] == "changes_requested"
    assert (await api.get(mine)).json()["comments"] == wanted["comments"]
    assert (await api.patch(mine, json={"form": {"purpose": "For all of our employees."}})).json()["revision"] == 2
    await api.post(f"{mine}/submission")
    await reviewer.put(f"{theirs}/claim")
    checked(await api.get(f"{mine}/code"), 409)
    assert (await reviewer.post(f"{theirs}/decision", json=APPROVED)).json()["state"] == "approved"
    assert (await api.get(f"{mine}/revisions/1")).json()["form"]["purpose"] == FORM["purpose"]
    code = (await api.get(f"{mine}/code")).json()
    assert [sample["language"] for sample in code["samples"]] == ["curl", "python", "javascript"]
    [before] = (await api.get("/v1/service-apps", params={"state": "approved", "service": SERVICE, "limit": 1})).json()[
        "service_apps"
    ]
    assert before["id"] == drafted["id"]
    amendment = await api.post(f"{mine}/amendment")
    assert (amendment.status_code, amendment.json()["amends"]) == (201, drafted["id"])
    assert amendment.headers["location"] == f"/v1/service-apps/{amendment.json()['id']}"
    assert (await api.delete(f"/v1/tuned-tasks/{task_id}")).status_code == 204


async def test_a_suspension_is_lifted_with_a_reason_or_without_a_body(reviewed: Reviewed) -> None:
    reviewer = reviewed.reviewer
    place = f"/v1/reviews/{await reviewed.submitted()}"
    await reviewer.put(f"{place}/claim")
    await reviewer.post(f"{place}/decision", json=APPROVED)
    for body in (b"", b"{}", b'{"reason": "Mended."}'):
        suspended = await reviewer.put(f"{place}/suspension", json={"reason": f"Harm {len(body)}."})
        assert suspended.json()["state"] == "suspended", suspended.text
        headers = {"Content-Type": "application/json"} if body else {}
        for wrong, status in ((b"{", 400), (b"[]", 422), (b'{"why": 1}', 422), (b'{"reason": "' + b"x" * 2**20 + b'"}', 413)):
            answer = await reviewer.request(
                "DELETE", f"{place}/suspension", content=wrong, headers={"Content-Type": "application/json"}
            )
            checked(answer, status)
        lifted = await reviewer.request("DELETE", f"{place}/suspension", content=body, headers=headers)
        assert (lifted.status_code, lifted.json()["state"]) == (200, "approved"), lifted.text


async def test_nobody_sees_or_decides_what_is_not_theirs_to(reviewed: Reviewed) -> None:
    review_id = await reviewed.submitted()
    async with client(reviewed.house.url, await reviewed.house.open_account("other")) as api:
        for method, path, body in APPLICANTS:
            if ID in path and "tuned" not in path:
                checked(await api.request(method, path.replace(ID, review_id), json=body), 404)
        assert (await api.get("/v1/service-apps")).json()["service_apps"] == []
        mine = {"client_id": reviewed.client_id, "service": SERVICE}
        checked(await api.post("/v1/service-apps", json=mine), 404)
    async with client(reviewed.house.url, await issue_token(reviewed.house.dsn, roles=("owner", "reviewer"))) as api:
        assert (await api.get(f"/v1/reviews/{review_id}")).json()["own"] is True
        for method, path, body in REVIEWERS[2:]:
            checked(await api.request(method, path.replace(ID, review_id), json=body), 403)


async def test_of_two_decisions_at_once_one_wins_and_the_other_hears_of_it(reviewed: Reviewed) -> None:
    place = f"/v1/reviews/{await reviewed.submitted()}"
    await reviewed.reviewer.put(f"{place}/claim")
    bodies = (APPROVED, rejected("safe_case"))
    answers = await asyncio.gather(*(reviewed.reviewer.post(f"{place}/decision", json=body) for body in bodies))
    won, lost = sorted(answers, key=lambda answer: answer.status_code)
    assert won.status_code == 200
    assert checked(lost, 409)["detail"].startswith(f"It was {won.json()['state']} at ")


MISFITS: list[tuple[dict[str, Any], list[str]]] = [
    ({"form": {**FORM, "purpose": "x" * 900_000}}, ["form"]),
    ({"form": {**FORM, "purpose": "x" * 3_001}}, ["form.purpose"]),
    ({"form": {**FORM, "name": "a\x00b", "contact": {"name": "a\u202eb"}}}, ["form.contact.name", "form.name"]),
    ({"form": {**FORM, "pupose": "misspelt", "expected_daily_volume": "many"}}, ["form.expected_daily_volume", "form.pupose"]),
    ({"form": [], "checklist": {"ethics": "yes"}}, ["checklist.ethics", "form"]),
    ({"checklist": {"unknown": True}}, ["checklist.unknown"]),
    ({"form_version": "2020-01"}, ["form_version"]),
    ({"model": "EMB-001", "task": "chat"}, ["task"]),
    ({"model": "GPT", "task": "chat"}, ["model"]),
    ({"account": "other", "review_id": "x", "command_id": "x"}, ["account", "command_id", "review_id"]),
]


async def test_what_does_not_fit_is_named_whole(reviewed: Reviewed) -> None:
    for fields, named in MISFITS:
        body = {"client_id": reviewed.client_id, "service": SERVICE, "model": "HCX-003", "task": "chat", **fields}
        answer = await reviewed.api.post("/v1/service-apps", json=body)
        assert fields_of(answer) == named
        assert len(answer.content) < 20_000, named
        assert all(field["problem"] and field["hint"] for field in answer.json()["fields"]), answer.text
    assert (await reviewed.api.get("/v1/service-apps")).json()["service_apps"] == []


async def test_html_is_text_and_more_than_a_megabyte_is_not_read(reviewed: Reviewed) -> None:
    html = "<script>alert(1)</script> & 'quotes'\nand a second line"
    drafted = await reviewed.draft(form={**FORM, "purpose": html})
    place = f"/v1/service-apps/{drafted['id']}"
    assert (await reviewed.api.get(place)).json()["form"]["purpose"] == html
    huge = json.dumps({"form": {"purpose": "x" * 2**20}}).encode()
    answer = await reviewed.api.patch(place, content=huge, headers={"Content-Type": "application/json"})
    checked(answer, 413)
    assert (await reviewed.api.get(place)).json()["content_hash"] == drafted["content_hash"]
