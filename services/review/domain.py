"""What has been decided about the applications for one service app, which is one application at one service. Pure.

All of them are on one stream, `service-app/<client_id>/<service>`, so every rule between them is decided there: at most one is
open, at most one stands (is approved or suspended), and an amendment follows the one that stands. Commands are decided in
applying.py (the applicant's) and deciding.py (the reviewers'); each function gives its Decision or raises its refusal.

Events have no times of their own; a command's facts bring those of its stream's events, by place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, assert_never

import msgspec

from services.review.business_days import Calendar
from services.review.content import Content
from services.review.forms import Form
from services.review.models import Models, Tuned
from services.review.states import LIVE, OPEN
from shared.commands.base import Command, Reply
from shared.commands.review import State
from shared.errors import NotFound
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

CLAIM_LASTS: Final = timedelta(hours=24)


class Application(msgspec.Struct, frozen=True):
    """One application. What it says is of its present `revision`; `submitted` is the last one that was submitted, or 0.

    `last` is the event that brought it into its state, `since` that event's place on the stream. `approvals` are those who have
    approved the present revision while another reviewer was needed. `told` is the revision that was told to be due soon.
    """

    review_id: str
    state: State
    revision: int
    model: str
    task: str
    form_version: str
    vault_id: str
    content_hash: str
    last: ReviewEvent
    since: int
    amends: str = ""
    submitted: int = 0
    due_at: datetime | None = None
    approvals: tuple[str, ...] = ()
    told: int = 0
    superseded_by: str = ""

    @property
    def claimer(self) -> str:
        """Who has claimed it, or ""."""
        return self.last.reviewer if isinstance(self.last, ReviewStarted) else ""


class ServiceApp(msgspec.Struct, frozen=True):
    """All applications for one service app, by review id in the order in which they were begun. `live`: the one that stands, or
    "". `length`: how many events were."""

    account: str
    client_id: str
    service: str
    applications: Mapping[str, Application] = {}
    live: str = ""
    length: int = 0

    @property
    def open(self) -> Application | None:
        """The one that is open."""
        return next((one for one in self.applications.values() if one.state in OPEN), None)


class AppRow(NamedTuple):
    """What REGISTRY says of the application behind it: its services with their tiers, and whether it was deleted."""

    name: str
    services: Mapping[str, str]
    deleted: bool = False


class New(NamedTuple):
    """Freshly made, in case the command is accepted: ids for an application and for the vault, and a salt of 32 hex digits."""

    review_id: str
    vault_id: str
    salt: str


class Rules(msgspec.Struct, frozen=True):
    """What the deployment decides. `form` is that of today; `reviewers`: how many have to approve, by service; else 1."""

    models: Models
    form: Form
    calendar: Calendar = Calendar()
    reviewers: Mapping[str, int] = {}
    claim_lasts: timedelta = CLAIM_LASTS


class ApplicantFacts(NamedTuple):
    """What an applicant's command needs besides its stream, all of it of the applicant's own account.

    `times`: when the stream's events were recorded, in their order. `app`: None when the account has no such application.
    `called`: it has made a successful call (DraftApplication asks). `content`: what the vault has of the application's present
    revision; None for DraftApplication. `tuned`: the account's tuned tasks by id.
    """

    now: datetime
    times: Sequence[datetime] = ()
    app: AppRow | None = None
    called: bool = False
    content: Content | None = None
    tuned: Mapping[str, Tuned] = {}


class ReviewerFacts(NamedTuple):
    """What a reviewer's command needs besides its stream: when its events were recorded, and the forms by version.

    It is of another account than the stream, so `times` can lack the last events: those that were decided in this very
    transaction, so now. Nothing else that an applicant's command changes may be in it.
    """

    now: datetime
    times: Sequence[datetime] = ()
    forms: Mapping[str, Form] = {}


class Done(Reply):
    """What a command's stored reply says: no more than which application it was about, for what an applicant wrote is not to lie
    about twice. Whoever answers reads the view after the commit."""

    review_id: str
    revision: int


def service_app_stream(client_id: str, service: str) -> str:
    """The stream of all applications for that service app."""
    return f"service-app/{client_id}/{service}"


def no_application() -> NotFound:
    """What is said about an application that is not there, and about another account's."""
    return NotFound("There is no such application for a service app.")


def moment(facts: ApplicantFacts | ReviewerFacts, application: Application) -> datetime:
    """Since when it is in its state."""
    return facts.times[application.since] if application.since < len(facts.times) else facts.now


def lapsed(application: Application, since: datetime, now: datetime, rules: Rules) -> bool:
    """Whether another reviewer may claim it from who has claimed it, `since` then."""
    return application.state == "in_review" and now >= since + rules.claim_lasts


def own_application(state: ServiceApp | None, command: Command, review_id: str) -> tuple[ServiceApp, Application]:
    """The applicant's own. Raises NotFound."""
    if state is None or state.account != command.account or review_id not in state.applications:
        raise no_application()
    return state, state.applications[review_id]


# -- its events


def evolve(state: ServiceApp | None, event: ReviewEvent) -> ServiceApp | None:
    """The service app after one more event of its stream. Those of other streams change nothing."""
    if isinstance(event, FormPublished | TunedTaskSaved | TunedTaskRemoved):
        return state
    if state is None:
        state = ServiceApp(event.account, event.client_id, event.service)
    if isinstance(event, ServiceAppRetired):
        after = _retired(state, event)
    else:
        application = _evolve(state, event)
        after = msgspec.structs.replace(state, applications={**state.applications, event.review_id: application})
    live = next((one.review_id for one in after.applications.values() if one.state in LIVE), "")
    return msgspec.structs.replace(after, live=live, length=state.length + 1)


def _retired(state: ServiceApp, event: ServiceAppRetired) -> ServiceApp:
    applications = {
        id_: msgspec.structs.replace(one, state="retired", last=event, since=state.length) if one.state in OPEN | LIVE else one
        for id_, one in state.applications.items()
    }
    return msgspec.structs.replace(state, applications=applications)


_OfOne = (
    ApplicationDrafted
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
)
_REACHED: Final[Mapping[type[ReviewEvent], State]] = {
    ApplicationSubmitted: "submitted",
    ApplicationWithdrawn: "withdrawn",
    ReviewStarted: "in_review",
    ReviewReleased: "submitted",
    ChangesRequested: "changes_requested",
    ApprovalGiven: "submitted",
    ApplicationSuperseded: "superseded",
    ServiceAppSuspended: "suspended",
    SuspensionLifted: "approved",
}


def _evolve(service_app: ServiceApp, event: _OfOne) -> Application:
    if isinstance(event, ApplicationDrafted):
        written = (event.model, event.task, event.form_version, event.vault_id, event.content_hash)
        return Application(event.review_id, "draft", 1, *written, event, service_app.length, event.amends)
    application = service_app.applications[event.review_id]
    if isinstance(event, ReviewDueSoon):
        return msgspec.structs.replace(application, told=event.revision)
    if isinstance(event, ReviewDecided):
        state: State = event.decision
    elif isinstance(event, ApplicationEdited | ApplicationRevised):
        state = "draft"
    else:
        state = _REACHED[type(event)]
    return _noted(msgspec.structs.replace(application, state=state, last=event, since=service_app.length), event)


def _noted(application: Application, event: _OfOne) -> Application:
    """What the event says besides the state."""
    match event:
        case ApplicationEdited() | ApplicationRevised():
            return msgspec.structs.replace(
                application,
                revision=event.revision,
                model=event.model,
                task=event.task,
                form_version=event.form_version,
                vault_id=event.vault_id,
                content_hash=event.content_hash,
                due_at=None,
                approvals=(),
            )
        case ApplicationSubmitted():
            return msgspec.structs.replace(application, submitted=event.revision, due_at=event.due_at)
        case ApprovalGiven():
            return msgspec.structs.replace(application, approvals=(*application.approvals, event.reviewer))
        case ApplicationSuperseded():
            return msgspec.structs.replace(application, superseded_by=event.by)
        case (
            ApplicationDrafted()
            | ApplicationWithdrawn()
            | ReviewStarted()
            | ReviewReleased()
            | ReviewDueSoon()
            | ChangesRequested()
            | ReviewDecided()
            | ServiceAppSuspended()
            | SuspensionLifted()
        ):
            return application
        case _:
            assert_never(event)
