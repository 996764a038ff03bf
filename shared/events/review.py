"""What is applied for and decided about service apps. Stream REVIEW, subjects review.events.<Type>.

What an applicant wrote lies in the vault of review; events have the id under which, and its hash: `content_hash` is the SHA-256,
in hexadecimal digits, of exactly the bytes that are sealed there. A random salt is among them, so the hash tells nothing to
whoever does not have them. What a reviewer wrote (reasons, comments) is in the events, for both sides to read for ever.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

from shared.events.codec import Codec, Event

Outcome = Literal["approved", "rejected"]


class Finding(msgspec.Struct, frozen=True, gc=False):
    """What a reviewer found about one criterion, and why."""

    criterion: str
    met: bool
    reason: str = ""


class Comment(msgspec.Struct, frozen=True, gc=False):
    """What a reviewer wants changed about one field: `form.<field>`, `checklist.<item>`, `model` or `task`."""

    field: str
    comment: str


class FormPublished(Event, frozen=True, kw_only=True):
    """From now on applications are made with this form, until another version is published.

    `definition` is JSON: the JSON Schema of the form, the guide checklist and the criteria. `form_hash`: its SHA-256.
    """

    form_version: str
    definition: str
    form_hash: str


class TunedTaskSaved(Event, frozen=True, kw_only=True):
    """The account has tuned a task of a model, and can choose it in applications."""

    account: str
    task_id: str
    name: str
    model: str
    task: str


class TunedTaskRemoved(Event, frozen=True, kw_only=True):
    """The tuned task can be chosen no longer."""

    account: str
    task_id: str


class ApplicationDrafted(Event, frozen=True, kw_only=True):
    """An application to let an application call a service live was begun. `amends`: the approved one it is to follow, or "".

    `model` and `task` are "" until they are chosen. This is revision 1.
    """

    account: str
    review_id: str
    client_id: str
    service: str
    model: str
    task: str
    form_version: str
    vault_id: str
    content_hash: str
    amends: str = ""


class ApplicationEdited(Event, frozen=True, kw_only=True):
    """The draft is now this, whole."""

    account: str
    review_id: str
    client_id: str
    service: str
    revision: int
    model: str
    task: str
    form_version: str
    vault_id: str
    content_hash: str


class ApplicationRevised(Event, frozen=True, kw_only=True):
    """A new revision was begun, as a draft; the one before stays as it was."""

    account: str
    review_id: str
    client_id: str
    service: str
    revision: int
    model: str
    task: str
    form_version: str
    vault_id: str
    content_hash: str


class ApplicationSubmitted(Event, frozen=True, kw_only=True):
    """The revision waits for a reviewer, who is to have decided by `due_at`."""

    account: str
    review_id: str
    client_id: str
    service: str
    revision: int
    content_hash: str
    due_at: datetime


class ApplicationWithdrawn(Event, frozen=True, kw_only=True):
    """The applicant does not want a decision any more."""

    account: str
    review_id: str
    client_id: str
    service: str
    revision: int


class ReviewStarted(Event, frozen=True, kw_only=True):
    """A reviewer has claimed it. `reviewer` is who: `token:<id>`, never a name."""

    account: str
    review_id: str
    client_id: str
    service: str
    revision: int
    reviewer: str


class ReviewReleased(Event, frozen=True, kw_only=True):
    """The reviewer has given it back; it waits for another."""

    account: str
    review_id: str
    client_id: str
    service: str
    revision: int
    reviewer: str


class ReviewDueSoon(Event, frozen=True, kw_only=True):
    """It is not decided, and is to be soon. Once for each revision."""

    account: str
    review_id: str
    client_id: str
    service: str
    revision: int
    due_at: datetime


class ChangesRequested(Event, frozen=True, kw_only=True):
    """The reviewer wants changes before deciding."""

    account: str
    review_id: str
    client_id: str
    service: str
    revision: int
    reviewer: str
    comments: tuple[Comment, ...]


class ApprovalGiven(Event, frozen=True, kw_only=True):
    """A first reviewer would approve; it waits for a second one."""

    account: str
    review_id: str
    client_id: str
    service: str
    revision: int
    reviewer: str
    findings: tuple[Finding, ...]


class ReviewDecided(Event, frozen=True, kw_only=True):
    """Reviewers have decided about the service app of an application at a service: about this revision and no other.

    What they saw is fixed: `content_hash` of what was applied for, `form_hash` of the form, checklist and criteria. `reviewers`
    are those who agreed, the one who decided last. `findings` are the last one's. `supersedes`: the approved one that it follows.
    """

    account: str
    review_id: str
    client_id: str
    service: str
    revision: int
    decision: Outcome
    findings: tuple[Finding, ...]
    reviewers: tuple[str, ...]
    model: str
    task: str
    form_version: str
    form_hash: str
    content_hash: str
    supersedes: str = ""


class ApplicationSuperseded(Event, frozen=True, kw_only=True):
    """An amendment of this approved one was approved, and stands in its place."""

    account: str
    review_id: str
    client_id: str
    service: str
    by: str


class ServiceAppSuspended(Event, frozen=True, kw_only=True):
    """Calls of the application to the service are refused from now on."""

    account: str
    review_id: str
    client_id: str
    service: str
    reviewer: str
    reason: str


class SuspensionLifted(Event, frozen=True, kw_only=True):
    """Calls pass again."""

    account: str
    review_id: str
    client_id: str
    service: str
    reviewer: str
    reason: str = ""


class ServiceAppRetired(Event, frozen=True, kw_only=True):
    """The application was deleted, or has given up the service: none of its applications for it goes on."""

    account: str
    client_id: str
    service: str


ReviewEvent = (
    FormPublished
    | TunedTaskSaved
    | TunedTaskRemoved
    | ApplicationDrafted
    | ApplicationEdited
    | ApplicationRevised
    | ApplicationSubmitted
    | ApplicationWithdrawn
    | ReviewStarted
    | ReviewReleased
    | ReviewDueSoon
    | ChangesRequested
    | ApprovalGiven
    | ReviewDecided
    | ApplicationSuperseded
    | ServiceAppSuspended
    | SuspensionLifted
    | ServiceAppRetired
)

CODEC: Codec[ReviewEvent] = Codec("review", ReviewEvent)
STREAM: Final = "REVIEW"
SUBJECTS: Final = "review.events.>"
