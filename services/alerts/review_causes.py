"""What happens in a review, as what is to be told of it: to the applicant, and to who reviews. Pure.

Nothing of the form, and nothing that a reviewer wrote, is told: that is to be read in the console, by whom it is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, assert_never

from services.alerts.telling import STALE, Cause
from shared.events.alerts import (
    ChangesWanted,
    DueSoon,
    Resumed,
    Reviewed,
    Submitted,
    Suspended,
    Withdrawn,
    told_to_reviewers,
)
from shared.events.review import (
    ApplicationDrafted,
    ApplicationEdited,
    ApplicationRevised,
    ApplicationSubmitted,
    ApplicationSuperseded,
    ApplicationWithdrawn,
    ApprovalGiven,
    ChangesRequested,
    FormPublished,
    ReviewDecided,
    ReviewDueSoon,
    ReviewEvent,
    ReviewReleased,
    ReviewStarted,
    ServiceAppRetired,
    ServiceAppSuspended,
    SuspensionLifted,
    TunedTaskRemoved,
    TunedTaskSaved,
)

if TYPE_CHECKING:
    from shared.events.alerts import AboutReview

Told: TypeAlias = (
    ApplicationSubmitted
    | ApplicationWithdrawn
    | ChangesRequested
    | ReviewDecided
    | ReviewDueSoon
    | ServiceAppSuspended
    | SuspensionLifted
)


class _Occasion(NamedTuple):
    """What happened, under a name of its own within the review, and what is told of it."""

    event: Told
    which: str
    abouts: Sequence[AboutReview]


def of_review(event: ReviewEvent, recorded_at: datetime, now: datetime, heard_as: str, reviewers: str | None) -> list[Cause]:
    """What is to be told of it, if it is of today. `reviewers`: the account whose contacts are told what reviewers are.

    What the applicant is told comes first, under the same name: who is a contact in both ways is told once, as an applicant.
    """
    occasion = None if recorded_at + STALE < now else _occasion(event, recorded_at)
    if occasion is None:
        return []
    event, which, abouts = occasion
    causes: list[Cause] = []
    for about in abouts:
        account = reviewers if told_to_reviewers(about) else event.account
        if account is not None:
            name = f"{about.__struct_config__.tag}/{event.review_id}/{which}"
            causes.append(Cause(name, account, event.client_id, event.service, about, heard_as))
    return causes


def _occasion(event: ReviewEvent, at: datetime) -> _Occasion | None:
    """A revision is submitted, decided and so on once. A service app may be suspended again: what tells one time from the other
    is when it was recorded."""
    match event:
        case ApplicationSubmitted(review_id=id_, due_at=due_at):
            both = (Submitted(at, id_, due_at), Submitted(at, id_, due_at, to_reviewers=True))
            return _Occasion(event, str(event.revision), both)
        case ApplicationWithdrawn(review_id=id_):  # reviewers were told that it waits for them
            return _Occasion(event, str(event.revision), (Withdrawn(at, id_),))
        case ChangesRequested(review_id=id_):
            return _Occasion(event, str(event.revision), (ChangesWanted(at, id_),))
        case ReviewDecided(review_id=id_, decision=decision):
            return _Occasion(event, str(event.revision), (Reviewed(at, id_, decision),))
        case ReviewDueSoon(review_id=id_, due_at=due_at):
            return _Occasion(event, str(event.revision), (DueSoon(at, id_, due_at),))
        case ServiceAppSuspended(review_id=id_):
            return _Occasion(event, at.isoformat(), (Suspended(at, id_), Suspended(at, id_, to_reviewers=True)))
        case SuspensionLifted(review_id=id_):
            return _Occasion(event, at.isoformat(), (Resumed(at, id_),))
        case (
            ApplicationDrafted()
            | ApplicationEdited()
            | ApplicationRevised()
            | ReviewStarted()
            | ReviewReleased()
            | ApprovalGiven()
            | ApplicationSuperseded()
            | ServiceAppRetired()
            | FormPublished()
            | TunedTaskSaved()
            | TunedTaskRemoved()
        ):
            return None
        case _:
            assert_never(event)
