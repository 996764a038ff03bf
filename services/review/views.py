"""Applications as they are shown, to applicants and to reviewers: from their story, what the vault has, and the form. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.review.applying import missing
from services.review.content import Content, changed, encode
from services.review.domain import Rules, lapsed
from services.review.forms import Form
from services.review.history import Revision, Story
from services.review.models import Models, Tuned, model_views
from services.review.refusals import Asking, possible
from services.review.states import WAITING
from shared.commands.review import (
    CommentView,
    DecisionView,
    FindingView,
    FormView,
    RevisionSummary,
    TunedTask,
)
from shared.commands.reviews import ReviewView
from shared.commands.service_apps import ApplicationView, Lack, RevisionView
from shared.events.review import ServiceAppSuspended


def form_view(form: Form, models: Models, tuned: Sequence[TunedTask]) -> FormView:
    """The form of today, with what the account can choose."""
    return FormView(
        version=form.version,
        schema_=dict(form.schema),
        checklist=form.checklist,
        criteria=form.criteria,
        models=model_views(models, {one.task_id: Tuned(one.model, one.task) for one in tuned}),
        tasks=tuple(models.tasks.values()),
        tuned_tasks=tuple(tuned),
    )


def application_view(
    story: Story, content: Content, app_name: str, rules: Rules, tuned: Mapping[str, Tuned], asking: Asking
) -> ApplicationView:
    """The application as its applicant sees it. `content` is what the vault has of `story.present`.

    Comments and decision are those of the last revision that was submitted: what the present one, if it is another, answers.
    """
    lacking = missing(content, tuned, rules) if story.application.state == "draft" else []
    return ApplicationView(
        **_summary(story, app_name),
        form_version=content.form_version,
        form=content.form,
        checklist=content.checklist,
        content_hash=story.present.content_hash,
        missing=tuple(Lack(field=one.field, problem=one.problem, hint=one.hint) for one in lacking),
        may=possible(story.service_app, story.application, asking, lapsed=False),
        comments=comments(story.submitted),
        decision=decision(story.submitted),
        suspension_reason=_suspension(story),
        revisions=tuple(revision_summary(one) for one in story.revisions),
        history=story.steps,
    )


def review_view(
    story: Story,
    content: Content,
    before: Content | None,
    app_name: str,
    form: Form,
    rules: Rules,
    asking: Asking,
    now: datetime,
) -> ReviewView:
    """The application as a reviewer sees it. `content` is what the vault has of `story.submitted`, `form` is the one that it was
    written on, and `before` what it is compared with (history.before), if there is anything."""
    seen = _seen(story)
    late = lapsed(story.application, story.since, now, rules)
    return ReviewView(
        **_item(story, app_name, rules, asking, now),
        form_version=content.form_version,
        form=content.form,
        checklist=content.checklist,
        schema_=dict(form.schema),
        items=form.checklist,
        criteria=form.criteria,
        content_hash=seen.content_hash,
        form_hash=form.form_hash,
        may=possible(story.service_app, story.application, asking, late),
        comments=comments(seen),
        decision=decision(seen),
        suspension_reason=_suspension(story),
        revisions=tuple(revision_summary(one) for one in story.revisions if one.number <= seen.number),
        history=tuple(step for step in story.steps if step.revision <= seen.number),
        changed=() if before is None else changed(content, before),
    )


def revision_view(story: Story, revision: Revision, content: Content, form: Form) -> RevisionView:
    """A revision as it was written. `content` is what the vault has of it, `form` the one that it was written on."""
    return RevisionView(
        **revision_summary(revision).model_dump(),
        id=story.application.review_id,
        model=revision.model or None,
        task=revision.task or None,
        form_version=revision.form_version,
        form=content.form,
        checklist=content.checklist,
        content=encode(content).decode(),
        content_hash=revision.content_hash,
        definition=form.definition,
        form_hash=form.form_hash,
        comments=comments(revision),
        decision=decision(revision),
    )


# -- parts


def revision_summary(revision: Revision) -> RevisionSummary:
    """A revision in a list of them."""
    return RevisionSummary(
        revision=revision.number,
        begun_at=revision.begun_at,
        submitted_at=revision.submitted_at,
        outcome=revision.outcome,
        ended_at=revision.ended_at,
    )


def comments(revision: Revision | None) -> tuple[CommentView, ...]:
    """What a reviewer wanted changed about it."""
    return () if revision is None else tuple(CommentView(field=one.field, comment=one.comment) for one in revision.comments)


def decision(revision: Revision | None) -> DecisionView | None:
    """What was decided about it."""
    if revision is None or revision.decided is None:
        return None
    assert revision.ended_at is not None, "a decision ends a revision"
    decided = revision.decided
    return DecisionView(
        decision=decided.decision,
        findings=tuple(FindingView(criterion=one.criterion, met=one.met, reason=one.reason) for one in decided.findings),
        revision=revision.number,
        decided_at=revision.ended_at,
        content_hash=decided.content_hash,
        form_hash=decided.form_hash,
    )


def _summary(story: Story, app_name: str) -> dict[str, Any]:
    application, present = story.application, story.present
    return {
        "id": application.review_id,
        "client_id": story.service_app.client_id,
        "app_name": app_name,
        "service": story.service_app.service,
        "state": application.state,
        "revision": application.revision,
        "model": present.model or None,
        "task": present.task or None,
        "amends": application.amends or None,
        "superseded_by": application.superseded_by or None,
        "drafted_at": story.revisions[0].begun_at,
        "edited_at": present.edited_at,
        "submitted_at": present.submitted_at,
        "due_at": present.due_at,
        "decided_at": present.ended_at if present.decided is not None else None,
    }


def _item(story: Story, app_name: str, rules: Rules, asking: Asking, now: datetime) -> dict[str, Any]:
    application, seen, state = story.application, _seen(story), story.shown_state
    assert seen.submitted_at is not None, "it was submitted"
    return {
        "id": application.review_id,
        "account": story.service_app.account,
        "client_id": story.service_app.client_id,
        "app_name": app_name,
        "service": story.service_app.service,
        "model": seen.model or None,
        "task": seen.task or None,
        "state": state,
        "revision": seen.number,
        "amends": application.amends or None,
        "submitted_at": seen.submitted_at,
        "due_at": seen.due_at,
        "age_s": max(0, int((now - seen.submitted_at).total_seconds())),
        "overdue": state in WAITING and seen.due_at is not None and seen.due_at < now,
        "claimed_by": application.claimer or None,
        "claimed_at": story.since if application.claimer else None,
        "approvals": len(application.approvals),
        "approvals_needed": rules.reviewers.get(story.service_app.service, 1),
        "own": story.service_app.account == asking.account,
    }


def _seen(story: Story) -> Revision:
    seen = story.submitted
    assert seen is not None, "an application that was never submitted does not exist for reviewers"
    return seen


def _suspension(story: Story) -> str | None:
    last = story.application.last
    return last.reason if isinstance(last, ServiceAppSuspended) else None
