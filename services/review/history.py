"""What became of applications, told from the events of their stream: revisions with what was said of each, and every step. Pure.

Reading an application is loading its stream and telling it: no table keeps what the log has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from services.review.domain import Application, ServiceApp, evolve
from services.review.states import LIVE, OPEN
from shared.commands.review import Happened, RevisionOutcome, State
from shared.events.review import (
    ApplicationDrafted,
    ApplicationEdited,
    ApplicationRevised,
    ApplicationSubmitted,
    ApplicationSuperseded,
    ApplicationWithdrawn,
    ApprovalGiven,
    ChangesRequested,
    Comment,
    ReviewDecided,
    ReviewDueSoon,
    ReviewEvent,
    ReviewReleased,
    ReviewStarted,
    ServiceAppRetired,
    ServiceAppSuspended,
    SuspensionLifted,
)


class Recorded(NamedTuple):
    """An event, and when it was recorded."""

    at: datetime
    event: ReviewEvent


class Revision(msgspec.Struct, frozen=True):
    """One revision, as it was last written; `vault_id` has it. `outcome` None: it is the present one, and open. `decided` is the
    event that decided about it, `comments` what a reviewer wanted changed."""

    number: int
    model: str
    task: str
    form_version: str
    vault_id: str
    content_hash: str
    begun_at: datetime
    edited_at: datetime
    submitted_at: datetime | None = None
    due_at: datetime | None = None
    outcome: RevisionOutcome | None = None
    ended_at: datetime | None = None
    comments: tuple[Comment, ...] = ()
    decided: ReviewDecided | None = None


class Story(msgspec.Struct, frozen=True):
    """One application: how it stands, since when, its revisions from the first to the present one, and what happened."""

    service_app: ServiceApp
    application: Application
    since: datetime
    revisions: tuple[Revision, ...]
    steps: tuple[Happened, ...]

    @property
    def present(self) -> Revision:
        """The revision that its applicant sees first."""
        return self.revisions[-1]

    @property
    def submitted(self) -> Revision | None:
        """The revision that reviewers see, the last one that was submitted; None: the application does not exist for them."""
        return next((one for one in reversed(self.revisions) if one.submitted_at is not None), None)

    @property
    def shown_state(self) -> State:
        """Its state as reviewers see it: of the revision that they see, while its applicant writes at another one."""
        seen = self.submitted
        outcome = None if seen is None else seen.outcome
        return self.application.state if self.application.state != "draft" or outcome is None else outcome

    def revision(self, number: int) -> Revision | None:
        """That revision."""
        return self.revisions[number - 1] if 1 <= number <= len(self.revisions) else None


def stories(events: Iterable[Recorded]) -> dict[str, Story]:
    """The applications of a service app by review id, told from all events of its stream."""
    state: ServiceApp | None = None
    revisions: dict[str, list[Revision]] = {}
    steps: dict[str, list[Happened]] = {}
    times: list[datetime] = []
    for at, event in events:
        before, state = state, evolve(state, event)
        if state is None or state is before:  # of another stream
            continue
        times.append(at)
        if isinstance(event, ServiceAppRetired):
            ended = () if before is None else _ended(before)
            concerned = tuple(one.review_id for one in ended)
        else:
            concerned = (event.review_id,)  # type: ignore[union-attr]  # only those of a service app change its state
        for review_id in concerned:
            written = revisions.setdefault(review_id, [])
            _write(written, at, event)
            steps.setdefault(review_id, []).extend(_step(at, event, written[-1].number))
    if state is None:
        return {}
    told = {id_: (tuple(revisions[id_]), tuple(steps[id_])) for id_ in state.applications}
    return {id_: Story(state, one, times[one.since], *told[id_]) for id_, one in state.applications.items()}


def before(of_service_app: Mapping[str, Story], story: Story) -> Revision | None:
    """What a reviewer compares the shown revision with: the one that was submitted before it, or what it amends."""
    seen = story.submitted
    earlier = [one for one in story.revisions if one.submitted_at is not None and one is not seen]
    if earlier:
        return earlier[-1]
    amended = of_service_app.get(story.application.amends)
    return None if amended is None else amended.submitted


def _ended(state: ServiceApp) -> tuple[Application, ...]:
    """Those that end when the service app is retired."""
    return tuple(one for one in state.applications.values() if one.state in OPEN | LIVE)


def _write(written: list[Revision], at: datetime, event: ReviewEvent) -> None:
    """What an event says of revisions."""
    match event:
        case ApplicationDrafted():
            written.append(_begun(1, at, event))
        case ApplicationRevised():
            written.append(_begun(event.revision, at, event))
        case ApplicationEdited():
            begun_at = written[-1].begun_at
            written[-1] = msgspec.structs.replace(_begun(event.revision, at, event), begun_at=begun_at)
        case ApplicationSubmitted():
            written[-1] = msgspec.structs.replace(written[-1], submitted_at=at, due_at=event.due_at)
        case ApplicationWithdrawn():
            _end(written, at, "withdrawn")
        case ChangesRequested():
            _end(written, at, "changes_requested")
            written[-1] = msgspec.structs.replace(written[-1], comments=event.comments)
        case ReviewDecided():
            _end(written, at, event.decision)
            written[-1] = msgspec.structs.replace(written[-1], decided=event)
        case ServiceAppRetired() if written[-1].outcome is None:
            _end(written, at, "retired")
        case _:
            pass


def _begun(number: int, at: datetime, event: ApplicationDrafted | ApplicationEdited | ApplicationRevised) -> Revision:
    return Revision(
        number, event.model, event.task, event.form_version, event.vault_id, event.content_hash, begun_at=at, edited_at=at
    )


def _end(written: list[Revision], at: datetime, outcome: RevisionOutcome) -> None:
    written[-1] = msgspec.structs.replace(written[-1], outcome=outcome, ended_at=at)


_STEPS: Final[Mapping[type[ReviewEvent], tuple[str, str]]] = {
    ApplicationDrafted: ("drafted", "applicant"),
    ApplicationRevised: ("revised", "applicant"),
    ApplicationSubmitted: ("submitted", "applicant"),
    ApplicationWithdrawn: ("withdrawn", "applicant"),
    ReviewStarted: ("review_started", "reviewer"),
    ReviewReleased: ("review_released", "reviewer"),
    ReviewDueSoon: ("due_soon", "service"),
    ChangesRequested: ("changes_requested", "reviewer"),
    ApprovalGiven: ("first_approval", "reviewer"),
    ApplicationSuperseded: ("superseded", "reviewer"),
    ServiceAppSuspended: ("suspended", "reviewer"),
    SuspensionLifted: ("suspension_lifted", "reviewer"),
    ServiceAppRetired: ("retired", "service"),
}


def _step(at: datetime, event: ReviewEvent, revision: int) -> Iterable[Happened]:
    """The step that it was. Pieces of a draft that were saved are none."""
    if isinstance(event, ApplicationEdited):
        return
    what, by = (event.decision, "reviewer") if isinstance(event, ReviewDecided) else _STEPS[type(event)]
    yield Happened(at=at, what=what, revision=revision, by=by, note=getattr(event, "reason", ""))
