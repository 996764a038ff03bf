"""Service apps as their applicants see them: applying, revising, amending, and the code that calls what was approved."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints

from shared.commands.base import Command, Query, Reply
from shared.commands.registry import PAGE_DEFAULT, PAGE_MAX, ClientId, ServiceId
from shared.commands.review import (
    ChecklistEntered,
    CommentView,
    DecisionView,
    FormEntered,
    FormVersion,
    Happened,
    ModelId,
    ReviewId,
    RevisionSummary,
    State,
    TaskId,
    TestAppStatus,
)


class DraftApplication(Command):
    """Begin to apply. `form_version` None: the newest. -> ApplicationView

    NotFound: no such application. Conflict: it does not have the service in test tier, has made no successful call to it yet, or
    applies for it already. InvalidInput: what is written does not fit; what is missing is told when it is submitted.
    """

    client_id: ClientId
    service: ServiceId
    model: ModelId | None = None
    task: TaskId | None = None
    form: FormEntered = Field(default_factory=dict)
    checklist: ChecklistEntered = Field(default_factory=dict)
    form_version: FormVersion | None = None


class EditApplication(Command):
    """Save a piece of it: fields and items that are given replace those that are there, null removes a field of the form.

    A rejected one, a withdrawn one, and one of which changes are requested goes on as a new revision. -> ApplicationView
    Conflict: it cannot be changed now. InvalidInput as in DraftApplication.
    """

    review_id: ReviewId
    model: ModelId | None = None
    task: TaskId | None = None
    form: FormEntered | None = None
    checklist: ChecklistEntered | None = None
    form_version: FormVersion | None = None


class SubmitApplication(Command):
    """Have it reviewed. InvalidInput names all that is missing at once. -> ApplicationView"""

    review_id: ReviewId


class WithdrawApplication(Command):
    """Take it back before it is decided. -> ApplicationView"""

    review_id: ReviewId


class AmendApplication(Command):
    """Begin another application with what an approved one says, to take its place; until then the old one stays live.
    -> ApplicationView"""

    review_id: ReviewId


class RetireServiceApp(Command):
    """Of the service itself: the application was deleted, or has given up the service. -> Retired"""

    client_id: ClientId
    service: ServiceId


class ListApplications(Query):
    """The account's applications, the newest first. -> ApplicationPage

    `deprecated`: only those that are superseded or retired (true), or only the others (false).
    """

    state: State | None = None
    client_id: ClientId | None = None
    service: ServiceId | None = None
    deprecated: bool | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, strict=True)] = PAGE_DEFAULT
    cursor: Annotated[str, StringConstraints(max_length=200)] | None = None


class GetApplication(Query):
    """-> ApplicationView"""

    review_id: ReviewId


class GetRevision(Query):
    """A revision as it was written. -> RevisionView"""

    review_id: ReviewId
    revision: Annotated[int, Field(ge=1, strict=True)]


class GetCode(Query):
    """Samples that call the service as the approved service app, without its secret. Conflict: it is not live. -> CodeView"""

    review_id: ReviewId


class ListTestApps(Query):
    """Applications that have, or once had, a service in test tier; `deprecated`: those that are live, retired or deleted by now
    (true), or that still test (false). -> TestApps"""

    deprecated: bool = False


class Lack(Reply):
    """Something that is missing before an application can be submitted, as in the error of submitting it."""

    field: str
    problem: str
    hint: str = ""


class ApplicationSummary(Reply):
    """An application as a list shows it. `app_name` is what the application is called now, or was last."""

    id: str
    client_id: str
    app_name: str
    service: str
    state: State
    revision: int
    model: str | None
    task: str | None
    amends: str | None
    superseded_by: str | None
    drafted_at: datetime
    edited_at: datetime
    submitted_at: datetime | None
    due_at: datetime | None
    decided_at: datetime | None


class ApplicationView(ApplicationSummary):
    """An application, whole. `missing`: what is missing before it can be submitted (of a draft only). `may`: what its applicant
    can do now. `content_hash` is of the present revision."""

    form_version: str
    form: dict[str, JsonValue]
    checklist: dict[str, bool]
    content_hash: str
    missing: tuple[Lack, ...] = ()
    may: tuple[str, ...] = ()
    comments: tuple[CommentView, ...] = ()
    decision: DecisionView | None = None
    suspension_reason: str | None = None
    revisions: tuple[RevisionSummary, ...] = ()
    history: tuple[Happened, ...] = ()


class ApplicationPage(Reply):
    service_apps: tuple[ApplicationSummary, ...]
    next_cursor: str | None = None


class RevisionView(RevisionSummary):
    """A revision as it was written, with the form that it was written on.

    `content` is the canonical JSON text (UTF-8, fields sorted, no spaces) whose SHA-256 is `content_hash`; `definition` that of
    `form_hash`: anybody can check that what was decided about is this.
    """

    id: str
    model: str | None
    task: str | None
    form_version: str
    form: dict[str, JsonValue]
    checklist: dict[str, bool]
    content: str
    content_hash: str
    definition: str
    form_hash: str
    comments: tuple[CommentView, ...] = ()
    decision: DecisionView | None = None


class Sample(Reply):
    """`language`: curl, python or javascript."""

    language: str
    title: str
    code: str


class CodeView(Reply):
    """How to call the service. The Client Secret is not in it: samples read it from the environment variable that `secret_from`
    names. `headers` are those of every call, the secret's with a placeholder."""

    id: str
    client_id: str
    service: str
    method: str
    endpoint: str
    headers: dict[str, str]
    secret_from: str
    samples: tuple[Sample, ...]


class TestAppView(Reply):
    """An application at a service that is reviewed. `until`: since when it is live, or gone; `service_app`: the newest
    application for it."""

    client_id: str
    app_name: str
    service: str
    status: TestAppStatus
    since: datetime
    until: datetime | None
    service_app: str | None


class TestApps(Reply):
    test_apps: tuple[TestAppView, ...]


class Retired(Reply):
    client_id: str
    service: str
