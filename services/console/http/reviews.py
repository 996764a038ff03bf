"""/v1/reviews: applications of all accounts as reviewers see them, claim them, and decide about them."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body, Query
from pydantic import Field

from services.console.http.apps import PageQuery
from services.console.http.bodies import AsBody, addressed, empty, example
from services.console.http.request import Behind, CommandId, NeverNull, NothingAsked, Reviewer, ReviewIdInPath
from shared.commands import review, reviews

router = APIRouter(prefix="/v1/reviews", tags=["reviews"])

CHANGES: Final = example(
    "What is to be changed before a decision",
    comments=[{"field": "form.abuse_monitoring", "comment": "Who looks at the reports on weekends?"}],
)
DECIDE: Final = example(
    "Rejected, with its reason; every criterion of the form is named",
    decision="rejected",
    criteria={
        "code_of_ethics": {"met": True},
        "safe_case": {"met": True},
        "risk_response": {"met": True},
        "monitoring": {"met": False, "reason": "Nobody would notice abuse on a weekend."},
        "accuracy_and_fairness": {"met": True},
    },
)
SUSPEND: Final = example("Calls are refused from now on", reason="Output that harms users was reported.")
LIFT: Final = example("Calls pass again", reason="The filter of its output was mended.")


class QueueQuery(PageQuery):
    """Which reviews, and how they page."""

    state: Annotated[review.State | None, NeverNull(), Field(description="Left out: those that are to be decided")] = None
    mine: Annotated[bool, Field(description="Those that the asking reviewer has claimed")] = False
    overdue: Annotated[bool, Field(description="Those that should have been decided by now")] = False


@router.get("", operation_id="listReviews")
async def list_reviews(principal: Reviewer, behind: Behind, asked: Annotated[QueueQuery, Query()]) -> reviews.ReviewPage:
    """The queue: what is to be decided, the first due first, with its age."""
    query = reviews.ListReviews(account=principal.account, reviewer=principal.actor, **asked.model_dump())
    return await behind.ask(review.SERVICE, query, reviews.ReviewPage)


@router.get("/{review_id}", operation_id="getReview")
async def get_review(principal: Reviewer, behind: Behind, review_id: ReviewIdInPath, _: NothingAsked) -> reviews.ReviewView:
    """All that is decided about: the application, its form, checklist and criteria, what changed, and what `may` be done now."""
    query = reviews.GetReview(account=principal.account, reviewer=principal.actor, review_id=review_id)
    return await behind.ask(review.SERVICE, query, reviews.ReviewView)


@router.put("/{review_id}/claim", operation_id="claimReview")
async def claim_review(
    principal: Reviewer, behind: Behind, command_id: CommandId, review_id: ReviewIdInPath, _: NothingAsked
) -> reviews.ReviewView:
    """Take it, so that nobody else decides. 409 when somebody has it; 403 when it is one's own account's."""
    command = addressed(empty(reviews.ClaimReview), principal, command_id, review_id=review_id)
    return await behind.ask(review.SERVICE, command, reviews.ReviewView)


@router.delete("/{review_id}/claim", operation_id="releaseReview")
async def release_review(
    principal: Reviewer, behind: Behind, command_id: CommandId, review_id: ReviewIdInPath, _: NothingAsked
) -> reviews.ReviewView:
    """Give it back to the queue."""
    command = addressed(empty(reviews.ReleaseReview), principal, command_id, review_id=review_id)
    return await behind.ask(review.SERVICE, command, reviews.ReviewView)


@router.post("/{review_id}/changes", operation_id="requestChanges")
async def request_changes(
    principal: Reviewer,
    behind: Behind,
    command_id: CommandId,
    review_id: ReviewIdInPath,
    _: NothingAsked,
    body: Annotated[reviews.RequestChanges, AsBody(), Body(openapi_examples=CHANGES)],
) -> reviews.ReviewView:
    """Ask for changes before deciding, field by field. It is the applicant's again until it is submitted again."""
    command = addressed(body, principal, command_id, review_id=review_id)
    return await behind.ask(review.SERVICE, command, reviews.ReviewView)


@router.post("/{review_id}/decision", operation_id="decideReview")
async def decide_review(
    principal: Reviewer,
    behind: Behind,
    command_id: CommandId,
    review_id: ReviewIdInPath,
    _: NothingAsked,
    body: Annotated[reviews.DecideReview, AsBody(), Body(openapi_examples=DECIDE)],
) -> reviews.ReviewView:
    """Decide, criterion by criterion, about what one has claimed. Approved: all are met, and the application is live within a
    second. Rejected: each criterion that is not met has its reason. 409 says what happened when somebody was faster."""
    command = addressed(body, principal, command_id, review_id=review_id)
    return await behind.ask(review.SERVICE, command, reviews.ReviewView)


@router.put("/{review_id}/suspension", operation_id="suspendServiceApp")
async def suspend(
    principal: Reviewer,
    behind: Behind,
    command_id: CommandId,
    review_id: ReviewIdInPath,
    _: NothingAsked,
    body: Annotated[reviews.SuspendServiceApp, AsBody(), Body(openapi_examples=SUSPEND)],
) -> reviews.ReviewView:
    """Have the calls of an approved service app refused at once. The applicant reads the reason."""
    command = addressed(body, principal, command_id, review_id=review_id)
    return await behind.ask(review.SERVICE, command, reviews.ReviewView)


@router.delete("/{review_id}/suspension", operation_id="liftSuspension")
async def lift(
    principal: Reviewer,
    behind: Behind,
    command_id: CommandId,
    review_id: ReviewIdInPath,
    _: NothingAsked,
    body: Annotated[
        reviews.LiftSuspension, AsBody(), Body(default_factory=lambda: empty(reviews.LiftSuspension), openapi_examples=LIFT)
    ],
) -> reviews.ReviewView:
    """Let the calls pass again. The body, with a reason, may be left out."""
    command = addressed(body, principal, command_id, review_id=review_id)
    return await behind.ask(review.SERVICE, command, reviews.ReviewView)
