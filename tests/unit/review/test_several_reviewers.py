"""Several reviewers at one application: lost races, second reviewers; and amendments of what is live."""

from __future__ import annotations

from typing import Any

import pytest

from services.review.domain import AppRow
from shared.errors import Conflict
from shared.events.review import (
    ApplicationSuperseded,
    ApprovalGiven,
    ReviewDecided,
)
from tests.support.review_examples import (
    R1,
    R2,
    R3,
    SERVICE,
    TWO,
    Desk,
)

# -- lost races


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (lambda d, r: d.decide(r), lambda d, r: d.decide(r, "rejected"), "It was approved at 2026-11-24T03:00:04Z, by you."),
        (lambda d, r: d.decide(r, "rejected"), lambda d, r: d.decide(r), "It was rejected at 2026-11-24T03:00:04Z, by you."),
        (
            lambda d, r: d.decide(r),
            lambda d, r: d.decide(r, reviewer=R2),
            "It was approved at 2026-11-24T03:00:04Z, by another reviewer. You can suspend it now.",
        ),
        (
            lambda d, r: d.decide(r),
            lambda d, r: d.withdraw(r),
            "It was approved at 2026-11-24T03:00:04Z, by a reviewer. You can amend it",
        ),
        (lambda d, r: d.withdraw(r), lambda d, r: d.decide(r), "It was withdrawn at 2026-11-24T03:00:04Z. There is nothing"),
        (
            lambda d, r: d.request_changes(r),
            lambda d, r: d.decide(r),
            "Changes of it were requested at 2026-11-24T03:00:04Z, by you.",
        ),
        (
            lambda d, r: d.release(r),
            lambda d, r: d.decide(r),
            "It was released at 2026-11-24T03:00:04Z, by you. You can claim it now.",
        ),
        (lambda d, r: d.retire(), lambda d, r: d.decide(r), "It was retired"),
        (
            lambda d, r: None,
            lambda d, r: d.edit(r),
            "It was claimed at 2026-11-24T03:00:03Z, by a reviewer. You can withdraw it now.",
        ),
    ],
)
def test_who_comes_second_is_told_what_happened(first: Any, second: Any, says: str) -> None:
    desk = Desk()
    review_id = desk.in_review()
    first(desk, review_id)
    events = desk.events
    with pytest.raises(Conflict) as refused:
        second(desk, review_id)
    assert refused.value.detail.startswith(says)
    assert desk.events == events


def test_an_applicant_is_never_told_which_reviewer() -> None:
    for way in (Desk.in_review, Desk.approved, Desk.rejected):
        desk = Desk()
        review_id = way(desk)
        with pytest.raises(Conflict) as refused:
            desk.submit(review_id)
        assert "token" not in refused.value.detail


# -- two reviewers


def test_the_first_of_two_approvals_puts_it_back_and_the_second_decides() -> None:
    desk = Desk(TWO)
    review_id = desk.in_review()
    desk.decide(review_id)
    given = desk.events[-1]
    assert isinstance(given, ApprovalGiven)
    assert desk.of(review_id).state == "submitted"
    desk.decide(review_id)
    assert desk.events[-1] is given, "said twice, it is one approval"
    with pytest.raises(Conflict, match="second reviewer"):
        desk.claim(review_id, R1)
    desk.claim(review_id, R2)
    desk.decide(review_id, reviewer=R2)
    decided = desk.events[-1]
    assert isinstance(decided, ReviewDecided)
    assert (decided.decision, decided.reviewers) == ("approved", (R1, R2))


def test_one_rejection_is_enough() -> None:
    for before in (False, True):
        desk = Desk(TWO)
        review_id = desk.in_review()
        if before:
            desk.decide(review_id)
            desk.claim(review_id, R2)
        desk.decide(review_id, "rejected", reviewer=R2 if before else R1)
        assert desk.of(review_id).state == "rejected"
        assert desk.events[-1].reviewers == ((R2,) if before else (R1,))


def test_an_approval_is_of_one_revision() -> None:
    desk = Desk(TWO)
    review_id = desk.in_review()
    desk.decide(review_id)
    desk.claim(review_id, R2)
    desk.request_changes(review_id, R2)
    desk.edit(review_id, task="completion")
    desk.submit(review_id)
    desk.claim(review_id, R1)
    desk.decide(review_id, reviewer=R1)
    assert desk.of(review_id).state == "submitted"
    assert desk.of(review_id).approvals == (R1,)


def test_an_approval_outlives_a_release() -> None:
    desk = Desk(TWO)
    review_id = desk.in_review()
    desk.decide(review_id)
    desk.claim(review_id, R2)
    desk.release(review_id, R2)
    with pytest.raises(Conflict, match="You have approved it"):
        desk.claim(review_id, R1)
    desk.claim(review_id, R3)
    desk.decide(review_id, reviewer=R3)
    assert desk.events[-1].reviewers == (R1, R3)


# -- amendments


def amended(desk: Desk) -> tuple[str, str]:
    approved = desk.approved()
    desk.app = AppRow("speech", {SERVICE: "live"})
    amendment = desk.amend(approved)
    desk.submit(amendment)
    desk.claim(amendment)
    return approved, amendment


def test_an_approved_amendment_takes_the_place_at_once() -> None:
    desk = Desk()
    approved, amendment = amended(desk)
    desk.decide(amendment)
    decided, superseded = desk.events[-2:]
    assert isinstance(decided, ReviewDecided)
    assert decided.supersedes == approved
    assert isinstance(superseded, ApplicationSuperseded)
    assert (superseded.review_id, superseded.by) == (approved, amendment)
    assert desk.state is not None
    assert desk.state.live == amendment
    assert desk.of(approved).superseded_by == amendment
    desk.check_hashes()


def test_a_rejected_amendment_leaves_the_other_live_and_can_be_revised() -> None:
    desk = Desk()
    approved, amendment = amended(desk)
    desk.decide(amendment, "rejected")
    assert desk.events[-1].supersedes == ""
    assert desk.of(approved).state == "approved"
    desk.edit(amendment, form={"purpose": "Another purpose."})
    desk.submit(amendment)
    desk.claim(amendment)
    desk.decide(amendment)
    assert desk.of(approved).state == "superseded"


def test_while_the_live_one_is_suspended_its_amendment_is_not_approved() -> None:
    desk = Desk()
    approved, amendment = amended(desk)
    desk.suspend(approved)
    with pytest.raises(Conflict, match="suspended"):
        desk.decide(amendment)
    desk.lift(approved)
    desk.decide(amendment)
    assert desk.of(amendment).state == "approved"


def test_while_the_live_one_is_suspended_its_amendment_can_be_rejected() -> None:
    desk = Desk()
    approved, amendment = amended(desk)
    desk.suspend(approved)
    desk.decide(amendment, "rejected")
    assert desk.of(approved).state == "suspended"
