"""Reviewers: what a decision has to say, who decides, suspensions, and what is due soon."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from services.review import deciding
from services.review.content import content_hash
from services.review.domain import ReviewerFacts
from shared.commands.reviews import ClaimReview
from shared.errors import Conflict, Forbidden, InvalidInput, NotFound, TollbookError
from shared.events.review import (
    ReviewDecided,
    ReviewDueSoon,
    ReviewReleased,
    ReviewStarted,
    ServiceAppSuspended,
    SuspensionLifted,
)
from tests.support.review_examples import (
    ACCOUNT,
    ALL_MET,
    FORM,
    HOUSE,
    NOT_MET,
    OTHER,
    R1,
    R2,
    R3,
    TWO,
    Desk,
)


def fields(refused: pytest.ExceptionInfo[TollbookError]) -> list[str]:
    return [problem.field for problem in refused.value.fields]


# -- what is decided


def test_a_decision_fixes_what_the_reviewer_saw() -> None:
    desk = Desk()
    review_id = desk.in_review()
    seen = desk.of(review_id)
    desk.decide(review_id, "rejected")
    decided = desk.events[-1]
    assert isinstance(decided, ReviewDecided)
    assert decided.content_hash == content_hash(desk.vault[seen.vault_id])
    assert (decided.form_version, decided.form_hash) == (FORM.version, FORM.form_hash)
    assert (decided.revision, decided.decision, decided.reviewers) == (1, "rejected", (R1,))
    assert [finding.criterion for finding in decided.findings] == [criterion.id for criterion in FORM.criteria]
    assert {finding.reason for finding in decided.findings if not finding.met} == {"Nobody would notice."}


@pytest.mark.parametrize(
    ("decision", "criteria", "wrong"),
    [
        ("approved", {}, [f"criteria.{criterion.id}" for criterion in FORM.criteria]),
        ("approved", NOT_MET, ["criteria.monitoring.met"]),
        ("approved", {**ALL_MET, "nope": {"met": True}}, ["criteria.nope"]),
        ("rejected", ALL_MET, ["decision"]),
        ("rejected", {**ALL_MET, "monitoring": {"met": False}}, ["criteria.monitoring.reason"]),
        ("rejected", {**ALL_MET, "monitoring": {"met": False, "reason": "  "}}, ["criteria.monitoring.reason"]),
        ("approved", {**ALL_MET, "safe_case": {"met": False}}, ["criteria.safe_case.reason", "criteria.safe_case.met"]),
        (
            "rejected",
            {"safe_case": {"met": False, "reason": "No."}},
            [f"criteria.{one.id}" for one in FORM.criteria if one.id != "safe_case"],
        ),
    ],
)
def test_each_criterion_is_judged_once_and_what_is_not_met_has_its_reason(
    decision: str, criteria: dict[str, Any], wrong: list[str]
) -> None:
    desk = Desk()
    review_id = desk.in_review()
    command = {"decision": decision, "criteria": criteria, "review_id": review_id}
    with pytest.raises(InvalidInput) as refused:
        desk.review(deciding.decide, deciding.DecideReview, R1, HOUSE, **command)
    assert fields(refused) == wrong
    assert desk.of(review_id).state == "in_review"


def test_comments_are_about_fields_of_the_form() -> None:
    desk = Desk()
    review_id = desk.in_review()
    named = [
        "form.purpose",
        "form.samples[0].prompt",
        "model",
        "checklist.told",
        "form.nope",
        "checklist.nope",
        "checklist.told.x",
    ]
    with pytest.raises(InvalidInput) as refused:
        desk.request_changes(review_id, comments=[{"field": field, "comment": "Say more."} for field in named])
    assert fields(refused) == ["comments[4].field", "comments[5].field", "comments[6].field"]


def test_a_reason_is_plain_text_that_is_kept_as_it_is() -> None:
    desk = Desk()
    review_id = desk.approved()
    desk.suspend(review_id, reason="<b>Abuse</b> & more\nof it")
    assert desk.events[-1].reason == "<b>Abuse</b> & more\nof it"


# -- who decides


@pytest.mark.parametrize("act", ["claim", "release", "decide", "request_changes", "suspend", "lift"])
@pytest.mark.parametrize("way", [Desk.submitted, Desk.in_review, Desk.approved, Desk.rejected])
def test_nobody_decides_about_the_own_account(act: str, way: Callable[[Desk], str]) -> None:
    desk = Desk()
    review_id = way(desk)
    events = desk.events
    with pytest.raises(Forbidden):
        getattr(desk, act)(review_id, account=ACCOUNT)
    assert desk.events == events


@pytest.mark.parametrize("act", ["claim", "release", "decide", "request_changes", "suspend", "lift"])
def test_what_was_never_submitted_is_not_there(act: str) -> None:
    desk = Desk()
    review_id = desk.draft()
    for account in (HOUSE, ACCOUNT):
        with pytest.raises(NotFound):
            getattr(desk, act)(review_id, account=account)
    with pytest.raises(NotFound):
        getattr(desk, act)("f" * 32)


def test_a_claim_can_be_taken_over_once_it_has_lapsed() -> None:
    desk = Desk()
    review_id = desk.in_review()
    claimed_at = desk.now
    desk.now = claimed_at + timedelta(hours=24, seconds=-1)
    with pytest.raises(Conflict, match="by another reviewer"):
        desk.claim(review_id, R2)
    desk.now = claimed_at + timedelta(hours=24)
    desk.claim(review_id, R2)
    assert desk.of(review_id).claimer == R2
    with pytest.raises(Conflict, match="by another reviewer"):
        desk.decide(review_id, reviewer=R1)
    desk.decide(review_id, reviewer=R2)


def test_who_has_claimed_may_decide_late_if_nobody_has_taken_over() -> None:
    desk = Desk()
    review_id = desk.in_review()
    desk.now += timedelta(days=30)
    desk.decide(review_id)
    assert desk.of(review_id).state == "approved"


def test_a_claim_of_this_very_transaction_has_not_lapsed() -> None:
    """Another account's facts may not know yet when the last events were recorded."""
    desk = Desk()
    review_id = desk.in_review()
    facts = ReviewerFacts(desk.now, [], desk.forms)
    command = desk.command(ClaimReview, OTHER, R2, review_id=review_id)
    with pytest.raises(Conflict, match=f"claimed at {desk.now:%Y-%m-%dT%H:%M:%SZ}"):
        deciding.claim(desk.state, facts, command, desk.rules)


def test_released_it_waits_again_for_anybody() -> None:
    desk = Desk()
    review_id = desk.in_review()
    due_at = desk.of(review_id).due_at
    desk.release(review_id)
    desk.release(review_id)
    assert [type(event) for event in desk.events[-2:]] == [ReviewStarted, ReviewReleased]
    desk.claim(review_id, R2)
    assert (desk.of(review_id).claimer, desk.of(review_id).due_at) == (R2, due_at)


# -- suspensions


def test_a_suspension_and_its_end() -> None:
    desk = Desk()
    review_id = desk.approved()
    desk.suspend(review_id)
    desk.suspend(review_id)
    assert desk.state is not None
    assert desk.state.live == review_id
    with pytest.raises(Conflict, match="suspended at"):
        desk.suspend(review_id, reason="Something else.")
    with pytest.raises(Conflict, match="suspended at"):
        desk.suspend(review_id, R2)
    desk.lift(review_id, R2, reason="It was stopped.")
    desk.lift(review_id, R2, reason="It was stopped.")
    assert [type(event) for event in desk.events[-2:]] == [ServiceAppSuspended, SuspensionLifted]
    with pytest.raises(Conflict, match=r"suspension was lifted at .*, by another reviewer"):
        desk.lift(review_id, R1)
    desk.suspend(review_id)
    assert desk.of(review_id).state == "suspended"


# -- due soon


def test_that_it_is_due_soon_is_told_once_for_each_revision() -> None:
    desk = Desk()
    review_id = desk.submitted()
    desk.note_due_soon(review_id)
    desk.claim(review_id)
    desk.note_due_soon(review_id)
    told = [event for event in desk.events if isinstance(event, ReviewDueSoon)]
    assert [event.due_at for event in told] == [desk.of(review_id).due_at]
    desk.decide(review_id, "rejected")
    desk.edit(review_id)
    desk.submit(review_id)
    desk.note_due_soon(review_id, 1)
    assert len([event for event in desk.events if isinstance(event, ReviewDueSoon)]) == 1
    desk.note_due_soon(review_id, 2)
    desk.note_due_soon(review_id, 2)
    assert len([event for event in desk.events if isinstance(event, ReviewDueSoon)]) == 2


@pytest.mark.parametrize("way", [Desk.draft, Desk.approved, Desk.rejected])
def test_what_waits_for_nobody_is_not_due(way: Callable[[Desk], str]) -> None:
    desk = Desk()
    review_id = way(desk)
    events = desk.events
    desk.note_due_soon(review_id)
    assert desk.events == events
    with pytest.raises(NotFound):
        desk.note_due_soon("f" * 32)


def test_a_claim_lasts_as_long_as_the_deployment_says() -> None:
    desk = Desk(msgspec.structs.replace(TWO, claim_lasts=timedelta(minutes=5)))
    review_id = desk.in_review()
    desk.now += timedelta(minutes=5)
    desk.claim(review_id, R3)
    assert desk.of(review_id).claimer == R3
