"""Who asks, what that makes of them, and what is said when the table of states does not let them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from services.review.domain import Application, ServiceApp
from services.review.states import MAY, Act, Who, may
from shared.errors import Conflict
from shared.events.review import (
    ApplicationDrafted,
    ApplicationEdited,
    ApplicationRevised,
    ApprovalGiven,
    ReviewEvent,
    ReviewReleased,
    SuspensionLifted,
)


class Asking(NamedTuple):
    """Who asks: an account and an actor, as a reviewer or as the applicant."""

    account: str
    actor: str
    reviewer: bool


_ACTS: Final[dict[Act, str]] = {
    "edit": "edit it",
    "submit": "submit it",
    "withdraw": "withdraw it",
    "amend": "amend it",
    "claim": "claim it",
    "release": "release it",
    "decide": "decide about it",
    "request_changes": "request changes",
    "suspend": "suspend it",
    "lift": "lift the suspension",
}
_STATES: Final[dict[str, str]] = {
    "submitted": "It was submitted",
    "in_review": "It was claimed",
    "changes_requested": "Changes of it were requested",
    "approved": "It was approved",
    "rejected": "It was rejected",
    "withdrawn": "It was withdrawn",
    "superseded": "An amendment took its place",
    "suspended": "It was suspended",
    "retired": "It was retired, for the application was deleted or has given up the service,",
}
_OTHERWISE: Final[dict[type[ReviewEvent], str]] = {
    ReviewReleased: "It was released",
    ApprovalGiven: "It was approved a first time, and waits for a second reviewer,",
    SuspensionLifted: "It is approved, and its suspension was lifted",
}
"""Where a state can be come to in more than one way."""


def roles(application: Application, asking: Asking, lapsed: bool) -> frozenset[Who]:
    """What they are to the application; `lapsed`: so is the claim that somebody has on it."""
    if not asking.reviewer:
        return frozenset({"applicant"})
    found: set[Who] = {"reviewer"}
    if application.claimer == asking.actor:
        found.add("claimer")
    if lapsed:
        found.add("successor")
    return frozenset(found)


def hindrance(service_app: ServiceApp, application: Application, act: Act, actor: str) -> str:
    """Why something that the table allows cannot be done now because of something besides the state; "" when nothing is."""
    if act == "claim" and actor in application.approvals:
        return "You have approved it; a second reviewer has to decide."
    if act not in ("edit", "amend"):
        return ""
    other = service_app.open
    if other is not None and other.review_id != application.review_id:
        return f"Another application for the same service is open: {other.review_id}."
    if act == "edit" and application.amends != service_app.live:
        if service_app.live:
            return f"Another application for the same service is approved by now: {service_app.live}. Amend that one."
        return "What it was to take the place of does not stand any more. Begin a new application."
    return ""


def possible(service_app: ServiceApp, application: Application, asking: Asking, lapsed: bool) -> tuple[Act, ...]:
    """What they can do with it now. An applicant asks about an application of the own account only."""
    if asking.reviewer and (asking.account == service_app.account or not application.submitted):
        return ()
    acts = may(application.state, roles(application, asking, lapsed))
    return tuple(act for act in acts if not hindrance(service_app, application, act, asking.actor))


def refused(
    service_app: ServiceApp, application: Application, act: Act, asking: Asking, since: datetime, lapsed: bool
) -> Conflict | None:
    """The refusal of an act, unless it can be done now. It says what happened, when, by whose hand, and what can be done."""
    if MAY[application.state].get(act) in roles(application, asking, lapsed):
        hindered = hindrance(service_app, application, act, asking.actor)
        return Conflict(hindered) if hindered else None
    acts = possible(service_app, application, asking, lapsed)
    then = f"You can {_either(acts)} now." if acts else "There is nothing that you can do with it now."
    return Conflict(f"{happened(application, asking, since)} {then}")


def happened(application: Application, asking: Asking, since: datetime) -> str:
    """What brought it into its state, as they may know it: an applicant is not told which reviewer, nor a reviewer."""
    last = application.last
    if isinstance(last, ApplicationDrafted | ApplicationEdited | ApplicationRevised):
        return "Its applicant is writing at it." if asking.reviewer else "It is a draft, which was not submitted yet."
    what = _OTHERWISE.get(type(last), _STATES[application.state])
    return f"{what} at {since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}{_by(last, asking)}."


def _by(event: ReviewEvent, asking: Asking) -> str:
    who = getattr(event, "reviewer", "") or next(iter(getattr(event, "reviewers", ())[-1:]), "")
    if not who:
        return ""
    if not asking.reviewer:
        return ", by a reviewer"
    return ", by you" if who == asking.actor else ", by another reviewer"


def _either(acts: tuple[Act, ...]) -> str:
    words = [_ACTS[act] for act in acts]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
