"""What people and broken programs send: each time the documented error, nothing done, and nothing of it in the log."""

from __future__ import annotations

import json
from typing import Any

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.base import ERROR_HEADER
from shared.commands.reviews import DecideReview, RequestChanges, ReviewView
from shared.commands.service_apps import ApplicationView, EditApplication
from shared.errors import InvalidInput
from tests.support.review_process import APP, MET, STUDIO, Applicant, Reviewer, ReviewProcess, logged

COMMAND = {"command_id": "c1", "account": "acme", "actor": "token:t1"}
DRAFT = {**COMMAND, "client_id": APP, "service": STUDIO}
MARK = "Zebra4711"

BAD_FIELDS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("DraftApplication", {"form": {"purpose": MARK * 100_000}}, ["form"]),
    ("DraftApplication", {"form": {"purpose": f"{MARK}\u0000"}}, ["form.purpose"]),
    (
        "DraftApplication",
        {"form": {"samples": [{"prompt": f"a\u202e{MARK}", "output": "\ud800"}]}},
        ["form.samples[0].prompt", "form.samples[0].output"],
    ),
    ("DraftApplication", {"form": {"purpose": 5, "samples": "x", "sample": []}}, ["form.purpose", "form.samples", "form.sample"]),
    ("DraftApplication", {"form": {"purpose": "x" * 3001}}, ["form.purpose"]),
    ("DraftApplication", {"form": {"expected_daily_volume": 1.5}}, ["form.expected_daily_volume"]),
    ("DraftApplication", {"form": {"expected_daily_volume": True}}, ["form.expected_daily_volume"]),
    ("DraftApplication", {"form": {"contact": {"email": "x" * 255}}}, ["form.contact.email"]),
    ("DraftApplication", {"form": {"samples": [{"prompt": "a"}] * 11}}, ["form.samples"]),
    ("DraftApplication", {"form": []}, ["form"]),
    ("DraftApplication", {"checklist": {"nonsense": True}}, ["checklist.nonsense"]),
    ("DraftApplication", {"checklist": {"ethics": "yes please"}}, ["checklist.ethics"]),
    ("DraftApplication", {"form_version": "1999-01"}, ["form_version"]),
    ("DraftApplication", {"model": "NOPE-1"}, ["model"]),
    ("DraftApplication", {"model": "EMB-001", "task": "chat"}, ["task"]),
    ("DraftApplication", {"client_id": "../../etc"}, ["client_id"]),
    ("DraftApplication", {"nmae": "typo"}, ["nmae"]),
    ("SubmitApplication", {"review_id": "x"}, ["review_id"]),
    ("SaveTunedTask", {"name": "ours", "model": "HCX-003", "task": "embedding"}, ["task"]),
    ("SaveTunedTask", {"name": "", "model": "HCX-003", "task": "chat"}, ["name"]),
    ("DecideReview", {"review_id": "0" * 32, "decision": "maybe", "criteria": {}}, ["decision"]),
    ("SuspendServiceApp", {"review_id": "0" * 32, "reason": "  "}, ["reason"]),
    ("RequestChanges", {"review_id": "0" * 32, "comments": []}, ["comments"]),
]  # fmt: skip


async def asked(nc: Client, subject: str, body: bytes) -> tuple[str, dict[str, Any]]:
    """The error's code and the refusal."""
    answer = await nc.request(subject, body, timeout=20, headers={"content-type": "application/json"})
    assert answer.headers is not None, answer.data[:200]
    assert ERROR_HEADER in answer.headers, answer.data[:200]
    assert MARK not in answer.data.decode()
    return answer.headers[ERROR_HEADER], json.loads(answer.data)


async def test_each_wrong_field_is_named(applicant: Applicant, nc: Client, review: ReviewProcess, schema: ServiceDsn) -> None:
    for name, wrong, fields in BAD_FIELDS:
        body = {**(DRAFT if name == "DraftApplication" else COMMAND), **wrong}
        code, refusal = await asked(nc, f"review.commands.{name}", json.dumps(body).encode())
        assert code == "invalid_input", (name, wrong, refusal)
        assert sorted(problem["field"] for problem in refusal["fields"]) == sorted(fields), (name, wrong, refusal)
        assert all(problem["problem"] for problem in refusal["fields"])
    for body in (b"", b"{", b"null", b"[]", b"\xff\xfe\x00", b"[" * 100_000, b"x" * 900_000):
        code, _ = await asked(nc, "review.commands.DraftApplication", body)
        assert code in ("malformed_request", "invalid_input"), body[:20]
    assert [type(event).__name__ for event in await logged(schema)] == ["FormPublished"]
    assert MARK not in review.log.read_text()
    assert (await review.readiness())["ready"]


async def test_text_that_is_strange_but_harmless_is_kept_as_it_is(applicant: Applicant) -> None:
    review_id = (await applicant.draft()).id
    for text in ("<script>alert(1)</script>", "'; DROP TABLE application;--", "{{ 7 * 7 }} ${HOME}", "가나다\n\t😀", "-" * 3000):
        found = await applicant.ask(EditApplication, ApplicationView, review_id=review_id, form={"purpose": text})
        assert found.form["purpose"] == text


async def test_a_decision_that_does_not_fit_says_all_that_is_wrong(applicant: Applicant, reviewer: Reviewer) -> None:
    review_id = (await applicant.submitted()).id
    await reviewer.claim(review_id)
    wrong: list[tuple[str, dict[str, Any], list[str]]] = [
        ("approved", {}, [f"criteria.{criterion}" for criterion in MET]),
        ("approved", {**MET, "monitoring": {"met": False, "reason": "No."}}, ["criteria.monitoring.met"]),
        ("rejected", MET, ["decision"]),
        (
            "rejected",
            {**MET, "monitoring": {"met": False}, "luck": {"met": True}},
            ["criteria.luck", "criteria.monitoring.reason"],
        ),
    ]
    for decision, criteria, fields in wrong:
        with pytest.raises(InvalidInput) as refused:
            await reviewer.ask(DecideReview, ReviewView, review_id=review_id, decision=decision, criteria=criteria)
        assert sorted(problem.field for problem in refused.value.fields) == sorted(fields)
    comments = [{"field": "form.nope", "comment": "?"}]
    with pytest.raises(InvalidInput) as unknown:
        await reviewer.ask(RequestChanges, ReviewView, review_id=review_id, comments=comments)
    assert unknown.value.fields[0].field == "comments[0].field"
