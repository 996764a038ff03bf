"""What reviewers do: claim an application, ask for changes, decide, suspend what was approved. Pure.

No reviewer does any of this to an application of the own account. Two who decide at once are decided about one after the other on
the same stream: the first one wins, the other is told what happened.
"""

from __future__ import annotations

from typing import Any

from services.review.domain import (
    Application,
    Done,
    ReviewerFacts,
    Rules,
    ServiceApp,
    lapsed,
    moment,
    no_application,
)
from services.review.forms import Form
from services.review.refusals import Asking, refused
from services.review.states import WAITING, Act
from shared.commands.base import Command
from shared.commands.reviews import (
    ClaimReview,
    DecideReview,
    LiftSuspension,
    Noted,
    NoteDueSoon,
    ReleaseReview,
    RequestChanges,
    SuspendServiceApp,
)
from shared.errors import Conflict, FieldProblem, Forbidden, InvalidInput
from shared.eventlog.decision import Decision
from shared.events.review import (
    ApplicationSuperseded,
    ApprovalGiven,
    ChangesRequested,
    Comment,
    Finding,
    ReviewDecided,
    ReviewDueSoon,
    ReviewEvent,
    ReviewReleased,
    ReviewStarted,
    ServiceAppSuspended,
    SuspensionLifted,
)

D = Decision[ReviewEvent, Done]


def claim(state: ServiceApp | None, facts: ReviewerFacts, command: ClaimReview, rules: Rules) -> D:
    """Take it. Whoever has it keeps it until it is given back, decided, or the claim has lapsed and another takes it."""
    service_app, application = _submitted(state, command, command.review_id)
    mine = application.claimer == command.actor
    if mine and not lapsed(application, moment(facts, application), facts.now, rules):
        return _so_already(application)
    _check_may("claim", service_app, application, facts, command, rules)
    return _done(application, _said(ReviewStarted, service_app, application, command))


def release(state: ServiceApp | None, facts: ReviewerFacts, command: ReleaseReview, rules: Rules) -> D:
    """Give it back to the queue."""
    service_app, application = _submitted(state, command, command.review_id)
    event = _said(ReviewReleased, service_app, application, command)
    if application.last == event:
        return _so_already(application)
    _check_may("release", service_app, application, facts, command, rules)
    return _done(application, event)


def request_changes(state: ServiceApp | None, facts: ReviewerFacts, command: RequestChanges, rules: Rules) -> D:
    """Ask the applicant for changes, each of a field of the form."""
    service_app, application = _submitted(state, command, command.review_id)
    comments = tuple(Comment(one.field, one.comment) for one in command.comments)
    event = ChangesRequested(**_about(service_app, application), reviewer=command.actor, comments=comments)
    if application.last == event:
        return _so_already(application)
    _check_may("request_changes", service_app, application, facts, command, rules)
    form = facts.forms[application.form_version]
    unknown = [
        FieldProblem(f"comments[{place}].field", "The form has no such field.", "Name a field of the form or the checklist.")
        for place, comment in enumerate(comments)
        if not form.has_field(comment.field)
    ]
    if unknown:
        raise InvalidInput("A comment is about a field of the application.", unknown)
    return _done(application, event)


def decide(state: ServiceApp | None, facts: ReviewerFacts, command: DecideReview, rules: Rules) -> D:
    """Decide, criterion by criterion, about the revision that is there and no other.

    Where two have to approve, the first one's approval puts it back into the queue. An amendment that is approved takes the place
    of what it follows in the same decision.
    """
    service_app, application = _submitted(state, command, command.review_id)
    form = facts.forms[application.form_version]
    problems = judgement_problems(form, command)
    event = _decided(service_app, application, form, command, rules)
    if not problems and application.last == event:
        return _so_already(application)
    _check_may("decide", service_app, application, facts, command, rules)
    if problems:
        raise InvalidInput("The decision does not fit what was found.", problems)
    if not isinstance(event, ReviewDecided) or event.decision == "rejected" or not application.amends:
        return _done(application, event)
    if service_app.applications[application.amends].state == "suspended":
        raise Conflict("What it amends is suspended. Lift that suspension before the amendment is approved.")
    superseded = ApplicationSuperseded(
        account=service_app.account,
        review_id=application.amends,
        client_id=service_app.client_id,
        service=service_app.service,
        by=application.review_id,
    )
    return _done(application, event, superseded)


def suspend(state: ServiceApp | None, facts: ReviewerFacts, command: SuspendServiceApp, rules: Rules) -> D:
    """Have its calls refused at once, until the suspension is lifted."""
    service_app, application = _submitted(state, command, command.review_id)
    event = ServiceAppSuspended(
        account=service_app.account,
        review_id=application.review_id,
        client_id=service_app.client_id,
        service=service_app.service,
        reviewer=command.actor,
        reason=command.reason,
    )
    if application.last == event:
        return _so_already(application)
    _check_may("suspend", service_app, application, facts, command, rules)
    return _done(application, event)


def lift(state: ServiceApp | None, facts: ReviewerFacts, command: LiftSuspension, rules: Rules) -> D:
    """Let its calls pass again."""
    service_app, application = _submitted(state, command, command.review_id)
    event = SuspensionLifted(
        account=service_app.account,
        review_id=application.review_id,
        client_id=service_app.client_id,
        service=service_app.service,
        reviewer=command.actor,
        reason=command.reason,
    )
    if application.last == event:
        return _so_already(application)
    _check_may("lift", service_app, application, facts, command, rules)
    return _done(application, event)


def note_due_soon(state: ServiceApp | None, command: NoteDueSoon) -> Decision[ReviewEvent, Noted]:
    """Say that it is to be decided soon: of a revision that still waits, once."""
    if state is None or command.review_id not in state.applications:
        raise no_application()
    application = state.applications[command.review_id]
    reply = Noted(id=application.review_id)
    over = application.state not in WAITING or application.revision != command.revision
    if over or application.told == application.revision or application.due_at is None:
        return Decision([], reply)
    return Decision([ReviewDueSoon(**_about(state, application), due_at=application.due_at)], reply)


def judgement_problems(form: Form, command: DecideReview) -> list[FieldProblem]:
    """What is wrong with a decision: each criterion is judged once, and what is not met has its reason."""
    asked = [criterion.id for criterion in form.criteria]
    found = [
        FieldProblem(f"criteria.{id_}", "This criterion is not judged.", "Say whether it is met.")
        for id_ in asked
        if id_ not in command.criteria
    ]
    for id_, judgement in command.criteria.items():
        if id_ not in asked:
            found.append(FieldProblem(f"criteria.{id_}", "The form has no such criterion.", f"Judge these: {', '.join(asked)}."))
        elif not judgement.met:
            if not judgement.reason:
                found.append(FieldProblem(f"criteria.{id_}.reason", "There is no reason.", "Say why it is not met."))
            if command.decision == "approved":
                hint = "Reject the application, or find that this is met."
                found.append(FieldProblem(f"criteria.{id_}.met", "It is approved only if every criterion is met.", hint))
    if command.decision == "rejected" and all(judgement.met for judgement in command.criteria.values()):
        hint = "Approve it, or say what is not met."
        found.append(FieldProblem("decision", "It is rejected only if a criterion is not met.", hint))
    return found


# -- what the commands have in common


def _submitted(state: ServiceApp | None, command: Command, review_id: str) -> tuple[ServiceApp, Application]:
    """One that was ever submitted. Raises NotFound; Forbidden when it is of the reviewer's own account."""
    if state is None or review_id not in state.applications or not state.applications[review_id].submitted:
        raise no_application()
    if state.account == command.account:
        raise Forbidden("This application is of your own account: somebody else has to review it.")
    return state, state.applications[review_id]


def _check_may(
    act: Act, service_app: ServiceApp, application: Application, facts: ReviewerFacts, command: Command, rules: Rules
) -> None:
    asking = Asking(command.account, command.actor, reviewer=True)
    since = moment(facts, application)
    refusal = refused(service_app, application, act, asking, since, lapsed(application, since, facts.now, rules))
    if refusal is not None:
        raise refusal


def _decided(
    service_app: ServiceApp, application: Application, form: Form, command: DecideReview, rules: Rules
) -> ReviewDecided | ApprovalGiven:
    judged = [(criterion.id, command.criteria.get(criterion.id)) for criterion in form.criteria]
    findings = tuple(Finding(id_, judgement.met, judgement.reason) for id_, judgement in judged if judgement is not None)
    before = tuple(reviewer for reviewer in application.approvals if reviewer != command.actor)
    about = _about(service_app, application)
    if command.decision == "approved" and len(before) + 1 < rules.reviewers.get(service_app.service, 1):
        return ApprovalGiven(**about, reviewer=command.actor, findings=findings)
    return ReviewDecided(
        **about,
        decision=command.decision,
        findings=findings,
        reviewers=(*before, command.actor) if command.decision == "approved" else (command.actor,),
        model=application.model,
        task=application.task,
        form_version=application.form_version,
        form_hash=form.form_hash,
        content_hash=application.content_hash,
        supersedes=application.amends if command.decision == "approved" else "",
    )


def _said(
    event: type[ReviewStarted | ReviewReleased], service_app: ServiceApp, application: Application, command: Command
) -> ReviewEvent:
    return event(**_about(service_app, application), reviewer=command.actor)


def _about(service_app: ServiceApp, application: Application) -> Any:
    """The fields that say which revision of which application an event is about."""
    return {
        "account": service_app.account,
        "review_id": application.review_id,
        "client_id": service_app.client_id,
        "service": service_app.service,
        "revision": application.revision,
    }


def _done(application: Application, *events: ReviewEvent) -> D:
    return Decision(events, Done(review_id=application.review_id, revision=application.revision))


def _so_already(application: Application) -> D:
    return _done(application)
