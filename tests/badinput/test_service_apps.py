"""Hostile applications for service apps, and hostile decisions, at the REST API of the running stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.badinput.conftest import PERSONAL, SECRET
from tests.badinput.test_rest import JSON, anything, bounded, checked
from tests.support.granted import APPROVED, CHECKLIST, FORM, called_test_app
from tests.support.stack import StackProcess

TOP = ("model", "task", "form", "checklist", "form_version", "client_id", "service", "account", "review_id", "\u202eform", "")
DECISION = ("decision", "criteria", "comments", "reason", "account", "review_id", "x")


class Desk(NamedTuple):
    """Who reviews, and an application that is under review all the time."""

    reviewer: httpx.Client
    review_id: str


@pytest.fixture(scope="module")
def draft(stack: StackProcess, console: httpx.Client) -> Iterator[str]:
    """Where a draft is that keeps what fits."""
    client_id = called_test_app(stack.ready, console)
    answer = console.post("/v1/service-apps", json={"client_id": client_id, "service": "clova-studio", "form": FORM})
    assert answer.status_code == 201, answer.text
    yield f"/v1/service-apps/{answer.json()['id']}"
    assert console.delete(f"/v1/apps/{client_id}").status_code == 204


@pytest.fixture(scope="module")
def desk(stack: StackProcess, console: httpx.Client) -> Iterator[Desk]:
    headers = {"authorization": f"Bearer {stack.ready['reviewer_token']}"}
    with httpx.Client(base_url=console.base_url, headers=headers, timeout=20, trust_env=False) as reviewer:
        client_id = called_test_app(stack.ready, console)
        whole = {"model": "HCX-003", "task": "chat", "form": FORM, "checklist": CHECKLIST}
        drafted = console.post("/v1/service-apps", json={"client_id": client_id, "service": "clova-studio", **whole}).json()
        console.post(f"/v1/service-apps/{drafted['id']}/submission").raise_for_status()
        reviewer.put(f"/v1/reviews/{drafted['id']}/claim").raise_for_status()
        yield Desk(reviewer, drafted["id"])
    assert console.delete(f"/v1/apps/{client_id}").status_code == 204


@bounded
@given(
    place=st.sampled_from(("top", "form", "checklist", "contact", "sample")), field=st.sampled_from((*TOP, *FORM)), value=anything
)
def test_no_field_of_an_application_can_do_harm(console: httpx.Client, draft: str, place: str, field: str, value: Any) -> None:
    entered: dict[str, Any] = {
        "top": {field: value},
        "form": {"form": {field: value}},
        "checklist": {"checklist": {field: value}},
        "contact": {"form": {"contact": {field: value}}},
        "sample": {"form": {"samples": [{field: value}]}},
    }[place]
    before = console.get(draft).json()
    answer = console.patch(draft, content=json.dumps(entered), headers=JSON)
    if answer.status_code != 200:
        problem = checked(answer)
        assert PERSONAL not in answer.text
        assert SECRET not in answer.text
        assert all(field["problem"] for field in problem.get("fields", []))
        assert console.get(draft).json()["content_hash"] == before["content_hash"]


@bounded
@given(field=st.sampled_from(DECISION), value=anything, deeper=st.booleans())
def test_no_field_of_a_decision_can_do_harm(desk: Desk, field: str, value: Any, deeper: bool) -> None:
    judged = {**APPROVED["criteria"], "monitoring": {"met": False, field: value}}
    entered = {"decision": "approved", "criteria": judged, **({} if deeper else {field: value})}
    place = f"/v1/reviews/{desk.review_id}"
    for method, rest in (("POST", "/decision"), ("POST", "/changes"), ("PUT", "/suspension"), ("DELETE", "/suspension")):
        checked(desk.reviewer.request(method, f"{place}{rest}", content=json.dumps(entered), headers=JSON))
    assert desk.reviewer.get(place).json()["state"] == "in_review"
