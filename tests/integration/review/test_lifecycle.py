"""The life of an application over NATS: written, submitted, reviewed, rejected, revised, approved, suspended, amended."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.reviews import (
    GetReview,
    LiftSuspension,
    ListReviews,
    ReleaseReview,
    RequestChanges,
    ReviewPage,
    ReviewView,
    SuspendServiceApp,
)
from shared.commands.service_apps import (
    AmendApplication,
    ApplicationPage,
    ApplicationView,
    EditApplication,
    GetApplication,
    GetRevision,
    ListApplications,
    RevisionView,
    SubmitApplication,
    WithdrawApplication,
)
from shared.errors import Conflict, Forbidden, InvalidInput, NotFound
from shared.ids import new_id
from tests.support.review_process import APP, CHECKLIST, STUDIO, Applicant, Calls, Reviewer, logged


async def test_an_application_is_written_piece_by_piece_rejected_revised_and_approved(
    applicant: Applicant, reviewer: Reviewer, schema: ServiceDsn
) -> None:
    began = await applicant.draft(model=None, task=None, form={"name": "Helper"}, checklist={})
    assert (began.state, began.revision, began.model, began.may) == ("draft", 1, None, ("edit", "submit"))
    with pytest.raises(InvalidInput) as refused:
        await applicant.ask(SubmitApplication, ApplicationView, review_id=began.id)
    lacking = [problem.field for problem in refused.value.fields]
    assert {"model", "task", "form.purpose", "form.samples", "checklist.ethics"} <= set(lacking)
    assert [lack.field for lack in began.missing] == lacking
    await applicant.ask(EditApplication, ApplicationView, review_id=began.id, model="HCX-003", task="chat")
    whole = await applicant.ask(EditApplication, ApplicationView, review_id=began.id, form=_filled(), checklist=CHECKLIST)
    assert whole.missing == ()
    submitted = await applicant.ask(SubmitApplication, ApplicationView, review_id=began.id)
    assert submitted.state == "submitted"
    assert submitted.due_at is not None
    assert submitted.due_at > datetime.now(UTC)
    with pytest.raises(Conflict, match="It was submitted at"):
        await applicant.ask(EditApplication, ApplicationView, review_id=began.id, model="LK-D2")

    (waiting,) = (await reviewer.ask(ListReviews, ReviewPage, reviewer=reviewer.actor)).reviews
    assert (waiting.id, waiting.state, waiting.account, waiting.app_name) == (began.id, "submitted", "acme", "helper")
    rejected = await reviewer.decide(began.id, "rejected")
    assert rejected.state == "rejected"
    seen = await applicant.ask(GetApplication, ApplicationView, review_id=began.id)
    assert seen.decision is not None
    assert [finding.criterion for finding in seen.decision.findings if not finding.met] == ["monitoring"]
    assert seen.may == ("edit",)

    revised = await applicant.ask(
        EditApplication, ApplicationView, review_id=began.id, form={"abuse_monitoring": "Somebody looks at night, too."}
    )
    assert (revised.state, revised.revision) == ("draft", 2)
    still = await reviewer.ask(GetReview, ReviewView, reviewer=reviewer.actor, review_id=began.id)
    assert (still.state, still.revision) == ("rejected", 1)
    await applicant.ask(SubmitApplication, ApplicationView, review_id=began.id)
    approved = await reviewer.decide(began.id)
    assert (approved.state, approved.revision, approved.changed) == ("approved", 2, ("form.abuse_monitoring",))
    first = await applicant.ask(GetRevision, RevisionView, review_id=began.id, revision=1)
    assert first.form["abuse_monitoring"] == "Somebody looks at a sample each day."
    assert first.outcome == "rejected"
    done = await applicant.ask(GetApplication, ApplicationView, review_id=began.id)
    assert [step.what for step in done.history] == [
        "drafted", "submitted", "review_started", "rejected", "revised", "submitted", "review_started", "approved",
    ]  # fmt: skip
    assert reviewer.actor not in done.model_dump_json()
    assert [type(event).__name__ for event in await logged(schema)][-2:] == ["ReviewStarted", "ReviewDecided"]


def _filled() -> dict[str, object]:
    from tests.support.review_process import FORM

    return FORM
