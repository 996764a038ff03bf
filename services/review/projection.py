"""Events of review as changes of its read tables, and of the keys of the KV bucket `reviews` that show them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

from services.review.dashboard import BUCKET, key_of
from services.review.states import LIVE, OPEN
from shared.eventlog.changes import Change, Write, delete, insert, update
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
from shared.streams.marks import mark_dirty

if TYPE_CHECKING:
    from shared.eventlog.log import Placed

Reviewed: TypeAlias = (
    ApplicationWithdrawn
    | ReviewStarted
    | ReviewReleased
    | ChangesRequested
    | ApprovalGiven
    | ReviewDecided
    | ServiceAppSuspended
    | SuspensionLifted
)
Applied: TypeAlias = (
    ApplicationDrafted
    | ApplicationEdited
    | ApplicationRevised
    | ApplicationSubmitted
    | ReviewDueSoon
    | ApplicationSuperseded
    | Reviewed
)
"""Events of one application."""

TABLES: Final = ("application", "tuned_task", "form")
"""What a rebuild empties first."""

_ID: Final = {"review_id": "text"}
_POSITION: Final = {"position": "bigint"}
_STATE: Final = {"state": "text", "seen_state": "text", **_POSITION}
_WRITTEN: Final = {
    "revision": "integer",
    "model": "text",
    "task": "text",
    "vault_id": "text",
    "edited_at": "timestamptz",
    **_POSITION,
}
_CLAIMED: Final = {"claimed_by": "text", "claimed_at": "timestamptz"}
_TIMES: Final = {"submitted_at": "timestamptz", "due_at": "timestamptz", "decided_at": "timestamptz"}
# Columns and their types.

_PUBLISH: Final = insert(
    "form", {"form_version": "text", "definition": "text", "form_hash": "text", "published_at": "timestamptz"}
)
_SAVE_TASK: Final = insert(
    "tuned_task",
    {"task_id": "text", "account": "text", "name": "text", "model": "text", "task": "text", "saved_at": "timestamptz"},
)
_REMOVE_TASK: Final = delete("tuned_task", {"task_id": "text"})
_DRAFT: Final = insert(
    "application",
    {
        **_ID,
        "account": "text",
        "client_id": "text",
        "service": "text",
        "amends": "text",
        "superseded_by": "text",
        "state": "text",
        **_WRITTEN,
        "drafted": "bigint",
        "drafted_at": "timestamptz",
        "approvals": "integer",
        "due_soon": "boolean",
        **dict.fromkeys(("seen_state", "claimed_by"), "text"),
        "claimed_at": "timestamptz",
        **_TIMES,
    },
)
_EDIT: Final = update("application", _ID, _WRITTEN)
_REVISE: Final = update("application", _ID, {"state": "text", **_WRITTEN, **_TIMES, "approvals": "integer"})
_SUBMIT: Final = Write(
    "application",
    """
    UPDATE application AS a SET state = 'submitted', submitted_at = n.at, due_at = n.due_at, position = n.position,
        seen_state = 'submitted', seen_revision = n.revision, seen_model = a.model, seen_task = a.task, seen_submitted_at = n.at,
        seen_due_at = n.due_at, claimed_by = NULL, claimed_at = NULL, approvals = 0, due_soon = false
    FROM unnest($1::text[], $2::integer[], $3::timestamptz[], $4::timestamptz[], $5::bigint[])
        AS n(review_id, revision, at, due_at, position)
    WHERE a.review_id = n.review_id
    """,
)
_MOVE: Final = update("application", _ID, _STATE)
_CLAIM: Final = update("application", _ID, {**_STATE, **_CLAIMED})
_APPROVE_ONCE: Final = update("application", _ID, {**_STATE, **_CLAIMED, "approvals": "integer"})
_DECIDE: Final = update("application", _ID, {**_STATE, **_CLAIMED, "decided_at": "timestamptz"})
_SUPERSEDE: Final = update("application", _ID, {**_STATE, "superseded_by": "text"})
_DUE_SOON: Final = update("application", _ID, {"due_soon": "boolean"})
_RETIRE: Final = Write(
    "application",
    f"""
    UPDATE application AS a SET state = 'retired', position = n.position, claimed_by = NULL, claimed_at = NULL,
        seen_state = CASE WHEN seen_state IS NOT NULL THEN 'retired' END
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS n(client_id, service, position)
    WHERE a.client_id = n.client_id AND a.service = n.service
        AND a.state IN ({", ".join(f"'{state}'" for state in sorted(OPEN | LIVE))})
    """,  # noqa: S608 - constants
)


def project(recorded: Placed, event: ReviewEvent) -> list[Change]:
    """The changes that `event` makes."""
    match event:
        case FormPublished():
            form = (event.form_version, event.definition, event.form_hash, recorded.recorded_at)
            return [Change(_PUBLISH, form, event.form_version)]
        case TunedTaskSaved():
            task = (event.task_id, event.account, event.name, event.model, event.task, recorded.recorded_at)
            return [Change(_SAVE_TASK, task, event.task_id)]
        case TunedTaskRemoved():
            return [Change(_REMOVE_TASK, (event.task_id,), event.task_id)]
        case ServiceAppRetired():
            retired = (event.client_id, event.service, recorded.position)
            return [Change(_RETIRE, retired, _about(event)), _shown(event)]
        case ReviewDueSoon():
            return [_of_application(recorded, event)]
        case _:
            return [_of_application(recorded, event), _shown(event)]


def _of_application(recorded: Placed, event: Applied) -> Change:
    at, position = recorded.recorded_at, recorded.position
    match event:
        case ApplicationDrafted():
            app = (event.account, event.client_id, event.service, event.amends, "", "draft")
            written = (1, event.model, event.task, event.vault_id, at, position)
            return _change(event, _DRAFT, *app, *written, position, at, 0, False, *[None] * 6)
        case ApplicationEdited():
            return _change(event, _EDIT, event.revision, event.model, event.task, event.vault_id, at, position)
        case ApplicationRevised():
            written = (event.revision, event.model, event.task, event.vault_id, at, position)
            return _change(event, _REVISE, "draft", *written, None, None, None, 0)
        case ApplicationSubmitted():
            return _change(event, _SUBMIT, event.revision, at, event.due_at, position)
        case ReviewDueSoon():
            return _change(event, _DUE_SOON, True)
        case ApplicationSuperseded():
            return _change(event, _SUPERSEDE, "superseded", "superseded", position, event.by)
        case _:
            return _by_reviewers(recorded, event)


def _by_reviewers(recorded: Placed, event: Reviewed) -> Change:
    at, position = recorded.recorded_at, recorded.position
    match event:
        case ReviewStarted():
            return _change(event, _CLAIM, "in_review", "in_review", position, event.reviewer, at)
        case ReviewReleased():
            return _change(event, _CLAIM, "submitted", "submitted", position, None, None)
        case ApprovalGiven():
            return _change(event, _APPROVE_ONCE, "submitted", "submitted", position, None, None, 1)
        case ChangesRequested():
            return _change(event, _CLAIM, "changes_requested", "changes_requested", position, None, None)
        case ApplicationWithdrawn():
            return _change(event, _CLAIM, "withdrawn", "withdrawn", position, None, None)
        case ReviewDecided():
            return _change(event, _DECIDE, event.decision, event.decision, position, None, None, at)
        case ServiceAppSuspended():
            return _change(event, _MOVE, "suspended", "suspended", position)
        case SuspensionLifted():
            return _change(event, _MOVE, "approved", "approved", position)
        case _:
            assert_never(event)


def _change(event: Applied, statement: str, *args: object) -> Change:
    return Change(statement, (event.review_id, *args), _about(event))


def _about(event: Applied | ServiceAppRetired) -> str:
    """All applications for one service app, because retiring changes several at once."""
    return f"{event.client_id}/{event.service}"


def _shown(event: Applied | ServiceAppRetired) -> Change:
    return mark_dirty(BUCKET, key_of(event.account, event.client_id, event.service))
