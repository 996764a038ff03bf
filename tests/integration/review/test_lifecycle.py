"""The life of an application over NATS: written, submitted, reviewed, rejected, revised, approved, suspended, amended."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.review import (
    FormView,
    GetForm,
    ListTunedTasks,
    RemoveTunedTask,
    SaveTunedTask,
    TunedTask,
    TunedTaskRemovedReply,
    TunedTasks,
)
from shared.commands.reviews import (
    GetReview,
    LiftSuspension,
    ListReviews,
    ReleaseReview,
    RequestChanges,
    ReviewItem,
    ReviewPage,
    ReviewView,
    SuspendServiceApp,
)
from shared.commands.service_apps import (
    AmendApplication,
    ApplicationPage,
    ApplicationSummary,
    ApplicationView,
    EditApplication,
    GetApplication,
    GetRevision,
    ListApplications,
    RevisionView,
    SubmitApplication,
    WithdrawApplication,
)
from shared.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from tests.support.metering_process import RegistryFeed
from tests.support.review_process import CHECKLIST, FORM, STUDIO, Applicant, Calls, Reviewer, logged, registered


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
    whole = await applicant.ask(EditApplication, ApplicationView, review_id=began.id, form=FORM, checklist=CHECKLIST)
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


async def test_changes_that_are_requested_are_made_in_a_new_revision(applicant: Applicant, reviewer: Reviewer) -> None:
    submitted = await applicant.submitted()
    await reviewer.claim(submitted.id)
    comments = [{"field": "form.purpose", "comment": "For which products?"}]
    await reviewer.ask(RequestChanges, ReviewView, review_id=submitted.id, comments=comments)
    asked = await applicant.ask(GetApplication, ApplicationView, review_id=submitted.id)
    assert asked.state == "changes_requested"
    assert [(one.field, one.comment) for one in asked.comments] == [("form.purpose", "For which products?")]
    revised = await applicant.ask(
        EditApplication, ApplicationView, review_id=submitted.id, form={"purpose": "Answers questions about our shoes."}
    )
    assert (revised.state, revised.revision) == ("draft", 2)
    assert revised.comments == asked.comments, "they say what is still to be answered"


async def test_it_is_withdrawn_and_given_back(applicant: Applicant, reviewer: Reviewer, nc: Client) -> None:
    submitted = await applicant.submitted()
    claimed = await reviewer.claim(submitted.id)
    assert (claimed.state, claimed.claimed_by) == ("in_review", reviewer.actor)
    with pytest.raises(Conflict, match="by another reviewer"):
        await Reviewer(nc, "two").claim(submitted.id)
    released = await reviewer.ask(ReleaseReview, ReviewView, review_id=submitted.id)
    assert (released.state, released.claimed_by) == ("submitted", None)
    withdrawn = await applicant.ask(WithdrawApplication, ApplicationView, review_id=submitted.id)
    assert (withdrawn.state, withdrawn.may) == ("withdrawn", ("edit",))
    assert (await reviewer.ask(ListReviews, ReviewPage, reviewer=reviewer.actor)).reviews == ()


async def test_what_is_approved_is_suspended_resumed_and_followed_by_an_amendment(
    applicant: Applicant, reviewer: Reviewer
) -> None:
    old = await applicant.submitted()
    await reviewer.decide(old.id)
    suspended = await reviewer.ask(SuspendServiceApp, ReviewView, review_id=old.id, reason="It sends spam.")
    assert (suspended.state, suspended.suspension_reason) == ("suspended", "It sends spam.")
    seen = await applicant.ask(GetApplication, ApplicationView, review_id=old.id)
    assert (seen.state, seen.suspension_reason, seen.may) == ("suspended", "It sends spam.", ())
    await reviewer.ask(LiftSuspension, ReviewView, review_id=old.id)
    amendment = await applicant.ask(AmendApplication, ApplicationView, review_id=old.id)
    assert (amendment.amends, amendment.state, amendment.form) == (old.id, "draft", old.form)
    assert amendment.content_hash != old.content_hash, "it has another salt"
    await applicant.ask(EditApplication, ApplicationView, review_id=amendment.id, task="summarization")
    await applicant.ask(SubmitApplication, ApplicationView, review_id=amendment.id)
    assert (await reviewer.ask(GetReview, ReviewView, reviewer=reviewer.actor, review_id=amendment.id)).changed == ("task",)
    assert (await applicant.ask(GetApplication, ApplicationView, review_id=old.id)).state == "approved", "it stays live"
    await reviewer.decide(amendment.id)
    superseded = await applicant.ask(GetApplication, ApplicationView, review_id=old.id)
    assert (superseded.state, superseded.superseded_by) == ("superseded", amendment.id)
    page = await applicant.ask(ListApplications, ApplicationPage, deprecated=True)
    assert [one.id for one in page.service_apps] == [old.id]


async def test_who_may_not(applicant: Applicant, reviewer: Reviewer, nc: Client) -> None:
    draft = await applicant.draft()
    stranger = Applicant(nc, "globex")
    for message in (SubmitApplication, WithdrawApplication, AmendApplication, EditApplication):
        with pytest.raises(NotFound):
            await stranger.ask(message, ApplicationView, review_id=draft.id)
    with pytest.raises(NotFound):
        await stranger.ask(GetApplication, ApplicationView, review_id=draft.id)
    with pytest.raises(NotFound):
        await stranger.draft()
    with pytest.raises(NotFound):  # a draft is its applicant's own
        await reviewer.claim(draft.id)
    with pytest.raises(NotFound):
        await reviewer.ask(GetReview, ReviewView, reviewer=reviewer.actor, review_id=draft.id)
    await applicant.ask(SubmitApplication, ApplicationView, review_id=draft.id)
    colleague = Reviewer(nc, "colleague", account="acme")
    with pytest.raises(Forbidden):
        await colleague.claim(draft.id)
    own = await colleague.ask(GetReview, ReviewView, reviewer=colleague.actor, review_id=draft.id)
    assert (own.own, own.may) == (True, ())


async def test_an_application_that_cannot_be_applied_for(applicant: Applicant, calls: Calls, registry: RegistryFeed) -> None:
    calls.made.clear()
    with pytest.raises(Conflict, match="no successful call"):
        await applicant.draft()
    calls.as_of = datetime(2026, 1, 1, tzinfo=UTC)  # metering lags behind, and the call may be among what it has not counted
    before = calls.asked
    with pytest.raises(Unavailable, match="has not counted the calls of this moment yet"):
        await applicant.draft()
    assert calls.asked > before + 1
    asked = calls.asked
    with pytest.raises(Conflict, match="has not selected csr"):
        await applicant.draft(service="csr", model=None, task=None)
    with pytest.raises(NotFound):
        await applicant.draft(client_id="z" * 20)
    assert calls.asked == asked, "metering is not asked for what is refused anyway"
    calls.made.add(("b" * 20, STUDIO))
    await registry.publish(registered("b" * 20))
    assert (await applicant.draft(client_id="b" * 20)).state == "draft", "registered a moment ago is registered"


async def test_lists_are_paged_and_say_what_the_applications_say(
    applicant: Applicant, reviewer: Reviewer, calls: Calls, registry: RegistryFeed
) -> None:
    apps = [f"{letter * 20}" for letter in "bcdef"]
    calls.made |= {(app, STUDIO) for app in apps}
    await registry.publish(*(registered(app) for app in apps))
    ids = [(await applicant.submitted(client_id=app)).id for app in apps]
    await reviewer.decide(ids[0])
    await reviewer.decide(ids[1], "rejected")
    await applicant.ask(EditApplication, ApplicationView, review_id=ids[1], task="summarization")
    await reviewer.claim(ids[2])
    found: list[ApplicationSummary] = []
    cursor = None
    while True:
        page = await applicant.ask(ListApplications, ApplicationPage, limit=2, cursor=cursor)
        found += page.service_apps
        if (cursor := page.next_cursor) is None:
            break
    assert [one.id for one in found] == ids[::-1]
    for summary in found:
        whole = await applicant.ask(GetApplication, ApplicationView, review_id=summary.id)
        assert summary == ApplicationSummary.model_validate(whole.model_dump())
    queue: list[ReviewItem] = []
    cursor = None
    while True:
        queued = await reviewer.ask(ListReviews, ReviewPage, reviewer=reviewer.actor, limit=2, cursor=cursor)
        queue += queued.reviews
        if (cursor := queued.next_cursor) is None:
            break
    assert [one.id for one in queue] == ids[2:], "due at the same time, they come in the order in which they were begun"
    rejected = await reviewer.ask(ListReviews, ReviewPage, reviewer=reviewer.actor, state="rejected")
    for item in (*queue, *rejected.reviews):
        view = await reviewer.ask(GetReview, ReviewView, reviewer=reviewer.actor, review_id=item.id)
        shown = ReviewItem.model_validate(view.model_dump())
        assert item.model_copy(update={"age_s": 0}) == shown.model_copy(update={"age_s": 0})
    mine = await reviewer.ask(ListReviews, ReviewPage, reviewer=reviewer.actor, mine=True)
    assert [one.id for one in mine.reviews] == [ids[2]]
    assert (await reviewer.ask(ListReviews, ReviewPage, reviewer=reviewer.actor, overdue=True)).reviews == ()
    with pytest.raises(InvalidInput):
        await reviewer.ask(ListReviews, ReviewPage, reviewer=reviewer.actor, cursor="AAAA")


async def test_tuned_tasks_are_chosen_like_others(applicant: Applicant, nc: Client) -> None:
    saved = await applicant.ask(SaveTunedTask, TunedTask, name="ours", model="HCX-003", task="chat")
    form = await applicant.ask(GetForm, FormView)
    assert [model.id for model in form.models if saved.task_id in model.tasks] == ["HCX-003"]
    draft = await applicant.draft(task=saved.task_id)
    assert draft.missing == ()
    with pytest.raises(NotFound):
        await Applicant(nc, "globex").ask(RemoveTunedTask, TunedTaskRemovedReply, task_id=saved.task_id)
    await applicant.ask(RemoveTunedTask, TunedTaskRemovedReply, task_id=saved.task_id)
    assert (await applicant.ask(ListTunedTasks, TunedTasks)).tuned_tasks == ()
    with pytest.raises(InvalidInput) as refused:
        await applicant.ask(SubmitApplication, ApplicationView, review_id=draft.id)
    assert [problem.field for problem in refused.value.fields] == ["task"]
