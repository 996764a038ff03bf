"""What the decisions of reviews do to applications. Pure.

Each becomes a command of the registry's own, whose id follows from the message that it was heard of by: hearing of it again, in a
stream that is read from an earlier place or from its beginning, repeats that command, and changes nothing.
"""

from __future__ import annotations

from typing import Final, Literal

from services.registry.domain import App
from shared.commands.base import Command, Reply
from shared.eventlog.decision import Decision
from shared.events.registry import RegistryEvent, SelectedService, ServiceActivated, ServiceResumed, ServiceSuspended
from shared.events.review import ReviewDecided, ReviewEvent, ServiceAppSuspended, SuspensionLifted

ACTOR: Final = "service:registry"


class FollowReview(Command):
    """Do what a review has decided about an application at a service. The registry asks itself. -> ReviewFollowed"""

    client_id: str
    service: str
    review_id: str
    verdict: Literal["approved", "suspended", "lifted"]


class ReviewFollowed(Reply):
    """Whether it changed anything."""

    changed: bool


def heard_as(sequence: int, hash_: bytes) -> str:
    """The command id for what was heard by that message. With its hash, because in a stream that has another history since
    another message may have its place."""
    return f"review-{sequence}-{hash_.hex()}"


def react(event: ReviewEvent, command_id: str) -> FollowReview | None:
    """What the registry does because of it; None for nothing."""
    match event:
        case ReviewDecided(decision="approved"):
            verdict: Literal["approved", "suspended", "lifted"] = "approved"
        case ServiceAppSuspended():
            verdict = "suspended"
        case SuspensionLifted():
            verdict = "lifted"
        case _:
            return None
    return FollowReview(
        command_id=command_id,
        account=event.account,
        actor=ACTOR,
        client_id=event.client_id,
        service=event.service,
        review_id=event.review_id,
        verdict=verdict,
    )


def follow_review(state: App | None, command: FollowReview) -> Decision[RegistryEvent, ReviewFollowed]:
    """Activate, suspend or resume the service. Nothing, if the application is gone or another account's, if it has the service no
    longer, or if that is already so.

    Approval is for what waits in tier test, and only what is live is suspended: a service that left the application and came back
    has begun anew, and what is decided about the one before is not about it.
    """
    selected = None if state is None else _selected(state, command)
    events: list[RegistryEvent] = []
    if selected is not None:
        about = {"account": command.account, "client_id": command.client_id, "service": command.service}
        match command.verdict:
            case "approved" if selected.tier == "test":
                events = [ServiceActivated(**about)]
            case "suspended" if selected.tier == "live" and not selected.suspended:
                events = [ServiceSuspended(**about, review_id=command.review_id)]
            case "lifted" if selected.suspended:
                events = [ServiceResumed(**about, review_id=command.review_id)]
            case _:
                pass  # it is already so, or is about a selection that has ended
    return Decision(events, ReviewFollowed(changed=bool(events)))


def _selected(app: App, command: FollowReview) -> SelectedService | None:
    if app.deleted or app.account != command.account:
        return None
    return next((one for one in app.services if one.service == command.service), None)
