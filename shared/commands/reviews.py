"""Reviews as reviewers do them: the queue, claiming, deciding, suspending.

The commands have the reviewer's own account; whose application it is follows from its id.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

from shared.commands.base import ActorId, Command, Message, Query, Reply, Shaped
from shared.commands.registry import PAGE_DEFAULT, PAGE_MAX
from shared.commands.review import (
    ChecklistItem,
    CommentView,
    Criterion,
    DecisionView,
    Happened,
    ItemId,
    Reason,
    ReviewId,
    RevisionSummary,
    Said,
    State,
    YesOrNo,
    few,
)
from shared.events.review import Outcome

COMMENTS_MAX: Final = 100
FieldPath = Annotated[
    str,
    Shaped(
        r"(model|task|(form|checklist)\.[A-Za-z0-9_.\[\]-]{1,120})",
        "This names no field of an application.",
        "Name one: model, task, form.<field> or checklist.<item>.",
    ),
]


class Judgement(Message):
    """What a reviewer says about one criterion."""

    met: YesOrNo
    reason: Said = ""


class CommentEntered(Message):
    """What a reviewer wants changed about one field."""

    field: FieldPath
    comment: Reason


class ClaimReview(Command):
    """Take it, so that nobody else decides. Conflict: somebody has it. Forbidden: it is one's own account's. -> ReviewView"""

    review_id: ReviewId


class ReleaseReview(Command):
    """Give it back. -> ReviewView"""

    review_id: ReviewId


class RequestChanges(Command):
    """Ask the applicant for changes before deciding. -> ReviewView"""

    review_id: ReviewId
    comments: Annotated[tuple[CommentEntered, ...], Field(min_length=1, max_length=COMMENTS_MAX)]


class DecideReview(Command):
    """Decide about an application that one has claimed: each of the form's criteria, no other. -> ReviewView

    Approved: all are met. Rejected: one at least is not, and each that is not has its reason.
    """

    review_id: ReviewId
    decision: Outcome
    criteria: Annotated[dict[ItemId, Judgement], BeforeValidator(few)]


class SuspendServiceApp(Command):
    """Have the calls of an approved service app refused at once. -> ReviewView"""

    review_id: ReviewId
    reason: Reason


class LiftSuspension(Command):
    """Let the calls pass again. -> ReviewView"""

    review_id: ReviewId
    reason: Said = ""


class NoteDueSoon(Command):
    """Of the service itself: say that a decision is due soon, once for each revision. -> Noted"""

    review_id: ReviewId
    revision: int


class ListReviews(Query):
    """For reviewers: applications of all accounts in order of their due time. `mine`: those that the asking reviewer has claimed.
    Without `state`: those that are to be decided, so submitted or in review. -> ReviewPage"""

    reviewer: ActorId
    state: State | None = None
    mine: bool = False
    overdue: bool = False
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, strict=True)] = PAGE_DEFAULT
    cursor: Annotated[str, StringConstraints(max_length=200)] | None = None


class GetReview(Query):
    """For reviewers: all of an application, whoever's it is, that was ever submitted. -> ReviewView"""

    reviewer: ActorId
    review_id: ReviewId


class ReviewItem(Reply):
    """An application in the queue. `approvals`: how many reviewers have approved this revision, of `approvals_needed`.
    `age_s`: seconds since it was submitted. `own`: it is the asking reviewer's own account's, who may not decide about it."""

    id: str
    account: str
    client_id: str
    app_name: str
    service: str
    model: str | None
    task: str | None
    state: State
    revision: int
    amends: str | None
    submitted_at: datetime | None
    due_at: datetime | None
    age_s: int | None
    overdue: bool
    claimed_by: str | None
    claimed_at: datetime | None
    approvals: int
    approvals_needed: int
    own: bool


class ReviewPage(Reply):
    reviews: tuple[ReviewItem, ...]
    next_cursor: str | None = None


class ReviewView(ReviewItem):
    """An application with everything that is decided about. `may`: what the asking reviewer can do now; `changed`: the fields
    that are other than in the revision, or the approved application, before."""

    form_version: str
    form: dict[str, JsonValue]
    checklist: dict[str, bool]
    schema_: dict[str, JsonValue] = Field(alias="schema")
    items: tuple[ChecklistItem, ...]
    criteria: tuple[Criterion, ...]
    content_hash: str
    form_hash: str
    may: tuple[str, ...] = ()
    comments: tuple[CommentView, ...] = ()
    decision: DecisionView | None = None
    suspension_reason: str | None = None
    revisions: tuple[RevisionSummary, ...] = ()
    history: tuple[Happened, ...] = ()
    changed: tuple[str, ...] = ()

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True, serialize_by_alias=True)


class Noted(Reply):
    id: str
