"""What is kept of what was written: sealed, forgotten when it is written over, and provable when it was decided about."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from deploy.servers.roles import ServiceDsn
from shared.commands.service_apps import (
    AmendApplication,
    ApplicationView,
    EditApplication,
    GetRevision,
    RevisionView,
    SubmitApplication,
)
from shared.errors import NotFound
from shared.events.review import ApplicationDrafted, ApplicationEdited, ApplicationRevised, ReviewDecided
from shared.streams.declare import kv_keys
from tests.support.metering_process import eventually
from tests.support.review_process import (
    APP,
    FORM,
    STUDIO,
    Applicant,
    Reviewer,
    ReviewProcess,
    kept,
    logged,
    rows,
)

MARK = "Zebra4711"


async def vault_ids(schema: ServiceDsn) -> list[str]:
    """Where each version of what was written was sealed, in order."""
    written = ApplicationDrafted | ApplicationEdited | ApplicationRevised
    return [event.vault_id for event in await logged(schema) if isinstance(event, written)]


async def test_a_draft_that_is_written_over_is_forgotten_and_what_was_submitted_stays(
    applicant: Applicant, reviewer: Reviewer, schema: ServiceDsn
) -> None:
    draft = await applicant.draft()
    await applicant.ask(EditApplication, ApplicationView, review_id=draft.id, form={"purpose": "Something else entirely."})
    await applicant.ask(EditApplication, ApplicationView, review_id=draft.id, form={"purpose": "Something else entirely."})
    await applicant.ask(SubmitApplication, ApplicationView, review_id=draft.id)
    await reviewer.decide(draft.id, "rejected")
    await applicant.ask(EditApplication, ApplicationView, review_id=draft.id, task="summarization")
    first, submitted, revised = await vault_ids(schema)
    with pytest.raises(NotFound):
        await kept(schema, first)
    assert json.loads(await kept(schema, submitted))["form"]["purpose"] == "Something else entirely."
    assert json.loads(await kept(schema, revised))["revision"] == 2
    assert await rows(schema, "SELECT count(*) FROM vault") == [(2,)]


async def test_anybody_can_check_what_was_decided_about(applicant: Applicant, reviewer: Reviewer, schema: ServiceDsn) -> None:
    form = {
        **FORM,
        "purpose": "질문에 답합니다 \u2014 우리 제품에 대해.\n\tZwei Zeilen.",
        "samples": [{"prompt": "é", "output": "😀 <b>"}],
    }
    draft = await applicant.submitted(form=form)
    await reviewer.decide(draft.id)
    (decided,) = await logged(schema, "ReviewDecided")
    assert isinstance(decided, ReviewDecided)
    (vault_id,) = await vault_ids(schema)
    sealed = await kept(schema, vault_id)
    assert hashlib.sha256(sealed).hexdigest() == decided.content_hash
    revision = await applicant.ask(GetRevision, RevisionView, review_id=draft.id, revision=1)
    assert revision.content.encode() == sealed
    assert hashlib.sha256(revision.content.encode()).hexdigest() == decided.content_hash == revision.content_hash
    assert hashlib.sha256(revision.definition.encode()).hexdigest() == decided.form_hash == revision.form_hash
    content = json.loads(sealed)
    assert (content["form"], content["client_id"], content["service"]) == (form, APP, STUDIO)
    assert (content["model"], content["task"], content["revision"]) == (decided.model, decided.task, decided.revision)


async def test_nothing_that_was_written_lies_anywhere_else(
    applicant: Applicant, reviewer: Reviewer, review: ReviewProcess, schema: ServiceDsn, nc: Client
) -> None:
    form = {**FORM, "purpose": f"It is about {MARK}.", "contact": {"name": MARK, "email": f"{MARK}@example.com"}}
    draft = await applicant.submitted(form=form)
    await reviewer.claim(draft.id)
    tables = [name for (name,) in await rows(schema, "SELECT tablename FROM pg_tables WHERE schemaname = 'review'")]
    assert {"event", "command", "application", "vault"} <= set(tables)
    for table in tables:
        assert MARK not in str(await rows(schema, f"SELECT t::text FROM {table} AS t")), table
    assert MARK not in review.log.read_text()
    assert MARK not in await review.metrics()

    async def value() -> str | None:
        return (await _value(nc)).get("state")

    await eventually(value, "in_review")
    assert MARK not in json.dumps(await _value(nc))


async def test_the_bucket_shows_the_newest_application_and_the_one_that_stands(
    applicant: Applicant, reviewer: Reviewer, nc: Client, schema: ServiceDsn
) -> None:
    old = await applicant.submitted()
    await reviewer.decide(old.id)
    new = await applicant.ask(AmendApplication, ApplicationView, review_id=old.id)

    async def shown() -> tuple[Any, ...]:
        found = await _value(nc)
        return tuple(found.get(name) for name in ("review_id", "state", "amends", "live", "model"))

    await eventually(shown, (new.id, "draft", old.id, old.id, "HCX-003"))
    value = await _value(nc)
    assert set(value) == {
        "client_id", "service", "review_id", "state", "revision", "model", "task", "amends", "live", "submitted_at",
        "due_at", "decided_at", "as_of", "position",
    }  # fmt: skip
    ((last,),) = await rows(schema, "SELECT max(position) FROM event")
    assert value["position"] == last
    assert await kv_keys(nc, "reviews") == {f"acme.{APP}.{STUDIO}"}


async def _value(nc: Client) -> dict[str, Any]:
    """What the bucket has of it; nothing yet at first."""
    try:
        message = await nc.jetstream().get_last_msg("KV_reviews", f"$KV.reviews.acme.{APP}.{STUDIO}")
    except NotFoundError:
        return {}
    found: dict[str, Any] = json.loads(message.data or b"{}")
    return found
