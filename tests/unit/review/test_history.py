"""What applications come to, as they are shown: to the applicant, and to reviewers, who see what was submitted and no more."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest

from services.review.content import decode
from services.review.domain import AppRow
from services.review.forms import form_from_definition
from services.review.history import Recorded, before, stories
from services.review.refusals import Asking
from services.review.views import application_view, form_view, review_view, revision_view
from shared.commands.review import TunedTask
from shared.commands.reviews import ReviewView
from shared.commands.service_apps import ApplicationView
from shared.events.review import TunedTaskRemoved
from tests.support.review_examples import (
    ACCOUNT,
    FILLED,
    FORM,
    HOUSE,
    NOW,
    R1,
    R2,
    RULES,
    SERVICE,
    TUNED,
    TWO,
    Desk,
)

APPLICANT = Asking(ACCOUNT, "token:a1", reviewer=False)


def seen(desk: Desk, review_id: str) -> ApplicationView:
    story = desk.story(review_id)
    content = decode(desk.vault[story.present.vault_id])
    return application_view(story, content, "speech", desk.rules, desk.tuned, APPLICANT)


def reviewed(desk: Desk, review_id: str, reviewer: str = R1, account: str = HOUSE) -> ReviewView:
    told = stories(desk.log)
    story, compared = told[review_id], before(told, told[review_id])
    assert story.submitted is not None
    content = decode(desk.vault[story.submitted.vault_id])
    earlier = None if compared is None else decode(desk.vault[compared.vault_id])
    form = desk.forms[story.submitted.form_version]
    return review_view(story, content, earlier, "speech", form, desk.rules, Asking(account, reviewer, True), desk.now)


def lived(desk: Desk) -> str:
    """Changes requested, rejected, approved, suspended, resumed."""
    review_id = desk.in_review()
    desk.request_changes(review_id)
    desk.edit(review_id, form={"purpose": "Another purpose."})
    desk.edit(review_id, form={"purpose": "A better purpose."})
    desk.submit(review_id)
    desk.claim(review_id)
    desk.decide(review_id, "rejected")
    desk.edit(review_id, checklist={"told": True}, task="completion")
    desk.submit(review_id)
    desk.note_due_soon(review_id, 3)
    desk.claim(review_id, R2)
    desk.release(review_id, R2)
    desk.claim(review_id)
    desk.decide(review_id)
    desk.suspend(review_id)
    desk.lift(review_id, reason="It was stopped.")
    return review_id


def test_every_step_is_told_in_order_but_for_pieces_saved() -> None:
    desk = Desk()
    view = seen(desk, lived(desk))
    assert [(step.what, step.revision, step.by) for step in view.history] == [
        ("drafted", 1, "applicant"),
        ("submitted", 1, "applicant"),
        ("review_started", 1, "reviewer"),
        ("changes_requested", 1, "reviewer"),
        ("revised", 2, "applicant"),
        ("submitted", 2, "applicant"),
        ("review_started", 2, "reviewer"),
        ("rejected", 2, "reviewer"),
        ("revised", 3, "applicant"),
        ("submitted", 3, "applicant"),
        ("due_soon", 3, "service"),
        ("review_started", 3, "reviewer"),
        ("review_released", 3, "reviewer"),
        ("review_started", 3, "reviewer"),
        ("approved", 3, "reviewer"),
        ("suspended", 3, "reviewer"),
        ("suspension_lifted", 3, "reviewer"),
    ]
    assert [step.note for step in view.history if step.note] == ["Abuse.", "It was stopped."]
    assert [step.at for step in view.history] == sorted(step.at for step in view.history)
    assert [(one.revision, one.outcome) for one in view.revisions] == [
        (1, "changes_requested"),
        (2, "rejected"),
        (3, "approved"),
    ]


def test_an_applicant_never_reads_who_reviewed() -> None:
    desk = Desk()
    review_id = lived(desk)
    assert "token:" not in seen(desk, review_id).model_dump_json()
    story = desk.story(review_id)
    for revision in story.revisions:
        view = revision_view(story, revision, decode(desk.vault[revision.vault_id]), FORM)
        assert "token:" not in view.model_dump_json()


def test_each_revision_stays_readable_and_what_was_decided_is_provable() -> None:
    desk = Desk()
    story = desk.story(lived(desk))
    views = [revision_view(story, one, decode(desk.vault[one.vault_id]), FORM) for one in story.revisions]
    assert [view.form["purpose"] for view in views] == [FILLED["purpose"], "A better purpose.", "A better purpose."]
    assert [view.task for view in views] == ["chat", "chat", "completion"]
    assert [comment.field for comment in views[0].comments] == ["form.purpose"]
    assert [view.decision and view.decision.decision for view in views] == [None, "rejected", "approved"]
    for view in views:
        assert hashlib.sha256(view.content.encode()).hexdigest() == view.content_hash
        assert hashlib.sha256(view.definition.encode()).hexdigest() == view.form_hash
        if view.decision is not None:
            assert (view.decision.content_hash, view.decision.form_hash) == (view.content_hash, view.form_hash)


def test_a_revision_is_shown_with_the_form_that_it_was_written_on() -> None:
    desk = Desk()
    review_id = desk.rejected()
    newer = form_from_definition("2027-01", FORM.definition.replace('"maxLength":50', '"maxLength":60'))
    desk.rules = msgspec.structs.replace(desk.rules, form=newer)
    desk.forms["2027-01"] = newer
    desk.edit(review_id, form_version="2027-01")
    desk.submit(review_id)
    assert reviewed(desk, review_id).form_hash == newer.form_hash
    story = desk.story(review_id)
    assert [one.form_version for one in story.revisions] == [FORM.version, "2027-01"]


def test_a_draft_says_what_is_missing_and_nothing_else_does() -> None:
    desk = Desk()
    review_id = desk.draft(model=None, task=None, form={})
    view = seen(desk, review_id)
    assert {"model", "task", "form.name"} <= {one.field for one in view.missing}
    assert (view.model, view.task, view.submitted_at, view.due_at, view.decided_at) == (None, None, None, None, None)
    assert view.may == ("edit", "submit")
    other = Desk()
    assert seen(other, other.submitted()).missing == ()


def test_the_times_are_of_the_present_revision() -> None:
    desk = Desk()
    review_id = desk.rejected()
    rejected = seen(desk, review_id)
    assert (rejected.drafted_at, rejected.submitted_at, rejected.decided_at) == tuple(
        NOW + timedelta(seconds=seconds) for seconds in (1, 2, 4)
    )
    desk.edit(review_id)
    draft = seen(desk, review_id)
    assert (draft.edited_at, draft.submitted_at, draft.due_at, draft.decided_at) == (desk.now, None, None, None)
    assert desk.of(review_id).due_at is None
    begun_at = desk.now
    desk.edit(review_id, task="completion")
    assert (seen(desk, review_id).edited_at, seen(desk, review_id).revisions[-1].begun_at) == (desk.now, begun_at)
    draft = seen(desk, review_id)
    assert draft.decision is not None
    assert draft.decision.revision == 1, "what the new revision answers is still shown"


# -- reviewers


def test_reviewers_do_not_see_what_was_not_submitted() -> None:
    desk = Desk()
    review_id = desk.draft()
    assert desk.story(review_id).submitted is None
    desk.submit(review_id)
    desk.claim(review_id)
    desk.decide(review_id, "rejected")
    shown = reviewed(desk, review_id)
    desk.edit(review_id, form={"purpose": "Nobody's business yet."}, task="completion")
    after = reviewed(desk, review_id)
    assert after.model_copy(update={"age_s": shown.age_s}) == shown
    assert (after.state, after.revision, after.task) == ("rejected", 1, "chat")
    assert after.form == FILLED


@pytest.mark.parametrize(
    ("way", "state"),
    [
        (Desk.submitted, "submitted"),
        (Desk.in_review, "in_review"),
        (Desk.approved, "approved"),
        (lambda desk: revised(desk, "request_changes"), "changes_requested"),
        (lambda desk: revised(desk, "withdraw"), "withdrawn"),
    ],
)
def test_the_state_that_reviewers_see_is_of_what_they_see(way: Callable[[Desk], str], state: str) -> None:
    desk = Desk()
    review_id = way(desk)
    assert desk.story(review_id).shown_state == state
    assert reviewed(desk, review_id).state == state


def revised(desk: Desk, ended: str) -> str:
    review_id = desk.in_review()
    getattr(desk, ended)(review_id)
    desk.edit(review_id)
    return review_id


def test_the_fields_that_changed_are_marked() -> None:
    desk = Desk()
    review_id = desk.rejected()
    assert reviewed(desk, review_id).changed == ()
    desk.edit(review_id, form={"purpose": "Another purpose.", "service_url": "https://example.com"}, task="completion")
    desk.submit(review_id)
    assert set(reviewed(desk, review_id).changed) == {"task", "form.purpose", "form.service_url"}


def test_an_amendment_is_compared_with_what_it_amends() -> None:
    desk = Desk()
    approved = desk.approved()
    desk.app = AppRow("speech", {SERVICE: "live"})
    amendment = desk.amend(approved)
    desk.edit(amendment, model="LK-D2", task="completion")
    desk.submit(amendment)
    view = reviewed(desk, amendment)
    assert view.changed == ("model", "task")
    assert view.amends == approved
    desk.claim(amendment)
    desk.decide(amendment)
    assert seen(desk, approved).superseded_by == amendment
    assert (seen(desk, approved).state, seen(desk, approved).may) == ("superseded", ())


def test_the_queue_shows_age_and_lateness_and_who_has_it() -> None:
    desk = Desk(TWO)
    review_id = desk.in_review()
    claimed_at = desk.now
    desk.now += timedelta(days=1)
    item = reviewed(desk, review_id, R2)
    assert (item.age_s, item.overdue, item.own) == (86_401, False, False)
    assert (item.claimed_by, item.claimed_at, item.approvals, item.approvals_needed) == (R1, claimed_at, 0, 2)
    assert reviewed(desk, review_id).may == ("claim", "release", "decide", "request_changes"), "the own claim can be renewed"
    assert reviewed(desk, review_id, R2).may == ("claim",), "the claim has lapsed"
    desk.decide(review_id)
    desk.now += timedelta(days=9)
    item = reviewed(desk, review_id, R2, ACCOUNT)
    assert (item.overdue, item.own, item.claimed_by, item.claimed_at, item.approvals) == (True, True, None, None, 1)
    assert reviewed(desk, review_id, R1).may == ()
    assert reviewed(desk, review_id, R2).may == ("claim",)
    assert reviewed(desk, review_id, R2, ACCOUNT).may == ()


def test_what_is_decided_is_not_late() -> None:
    desk = Desk()
    review_id = desk.approved()
    desk.now += timedelta(days=30)
    assert not reviewed(desk, review_id).overdue


def test_the_reason_of_a_suspension_is_shown_while_it_lasts() -> None:
    desk = Desk()
    review_id = desk.approved()
    desk.suspend(review_id)
    assert seen(desk, review_id).suspension_reason == reviewed(desk, review_id).suspension_reason == "Abuse."
    desk.lift(review_id)
    assert seen(desk, review_id).suspension_reason is None


def test_what_was_open_when_the_service_was_given_up_is_readable_as_it_was() -> None:
    desk = Desk()
    approved = desk.approved()
    amendment = desk.amend(approved)
    desk.retire()
    assert [one.outcome for one in seen(desk, approved).revisions] == ["approved"]
    assert [one.outcome for one in seen(desk, amendment).revisions] == ["retired"]
    assert seen(desk, amendment).form == FILLED
    assert [step.what for step in seen(desk, amendment).history] == ["drafted", "retired"]
    later = desk.draft()
    desk.retire()
    assert [step.what for step in seen(desk, later).history] == ["drafted", "retired"]
    assert [step.what for step in seen(desk, amendment).history] == ["drafted", "retired"]


# -- the form of today


def test_the_form_shows_what_the_account_can_choose() -> None:
    tuned = TunedTask(task_id=TUNED, name="minutes", model="HCX-003", task="chat", saved_at=NOW)
    view = form_view(FORM, RULES.models, [tuned])
    assert view.schema_ == FORM.schema
    assert [model.id for model in view.models if TUNED in model.tasks] == ["HCX-003"]
    assert '"schema":{' in view.model_dump_json()
    assert {item.title_ko for item in view.checklist} >= {"AI 윤리 준칙을 확인했습니다"}


def test_there_is_no_story_of_nothing() -> None:
    assert stories([]) == {}
    assert stories([Recorded(NOW, TunedTaskRemoved(account=ACCOUNT, task_id=TUNED))]) == {}
