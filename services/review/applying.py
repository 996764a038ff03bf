"""What applicants do: begin an application, write it piece by piece, submit it, take it back, amend what was approved. Pure.

What they write goes sealed into the vault, each revision as it was last written; what was submitted is never touched again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from services.review import forms
from services.review.business_days import due_at
from services.review.content import Content, content_hash, encode, same
from services.review.domain import (
    ApplicantFacts,
    Application,
    Done,
    New,
    Rules,
    ServiceApp,
    moment,
    own_application,
)
from services.review.models import Tuned, choice_problems, choices_missing
from services.review.refusals import Asking, refused
from services.review.states import Act
from shared.commands.base import Command
from shared.commands.service_apps import (
    AmendApplication,
    DraftApplication,
    EditApplication,
    Retired,
    RetireServiceApp,
    SubmitApplication,
    WithdrawApplication,
)
from shared.errors import Conflict, FieldProblem, InvalidInput, NotFound
from shared.eventlog.decision import Decision
from shared.events.review import (
    ApplicationDrafted,
    ApplicationEdited,
    ApplicationRevised,
    ApplicationSubmitted,
    ApplicationWithdrawn,
    ReviewEvent,
    ServiceAppRetired,
)

D = Decision[ReviewEvent, Done]


def draft(state: ServiceApp | None, facts: ApplicantFacts, command: DraftApplication, rules: Rules, new: New) -> D:
    """Begin to apply, if the application tests the service, has called it, and neither is nor applies to be live."""
    if facts.app is None or facts.app.deleted or (state is not None and state.account != command.account):
        raise NotFound("There is no such application.")
    _check_none_is_there(state)
    _check_tests(facts, command.service)
    if not facts.called:
        raise Conflict("The application has made no successful call to the service yet. Make a test call first, then apply.")
    _check_form_version(command.form_version or rules.form.version, rules)
    content = Content(
        salt=new.salt,
        review_id=new.review_id,
        revision=1,
        client_id=command.client_id,
        service=command.service,
        model=command.model or "",
        task=command.task or "",
        form_version=rules.form.version,
        form=_merged({}, command.form),
        checklist=dict(command.checklist),
    )
    _check_written(content, command, facts, rules)
    return _begun(command, content, new, "")


def amend(state: ServiceApp | None, facts: ApplicantFacts, command: AmendApplication, new: New) -> D:
    """Begin an application with what an approved one says, to take its place once it is approved itself."""
    service_app, application = own_application(state, command, command.review_id)
    _check_may("amend", service_app, application, facts, command)
    assert facts.content is not None, "the read tables and the vault are never behind the log"
    content = msgspec.structs.replace(facts.content, salt=new.salt, review_id=new.review_id, revision=1)
    return _begun(command, content, new, application.review_id)


def edit(state: ServiceApp | None, facts: ApplicantFacts, command: EditApplication, rules: Rules, new: New) -> D:
    """Save a piece of a draft; what is no draft any more goes on as a new revision, even if nothing is other than before."""
    service_app, application = own_application(state, command, command.review_id)
    _check_may("edit", service_app, application, facts, command)
    assert facts.content is not None, "the read tables and the vault are never behind the log"
    before, drafted = facts.content, application.state == "draft"
    _check_form_version(command.form_version or before.form_version, rules)
    if not drafted:
        _check_still_there(facts, service_app.service, application)
    content = msgspec.structs.replace(
        before,
        revision=application.revision if drafted else application.revision + 1,
        model=command.model or before.model,
        task=command.task or before.task,
        form_version=rules.form.version,
        form=_merged(before.form, command.form or {}),
        checklist={**before.checklist, **(command.checklist or {})},
    )
    _check_written(content, command, facts, rules)
    if same(content, before):
        return Decision([], Done(review_id=application.review_id, revision=application.revision))
    content = msgspec.structs.replace(content, salt=new.salt)
    encoded = encode(content)
    event = (ApplicationEdited if drafted else ApplicationRevised)(
        account=service_app.account,
        review_id=application.review_id,
        client_id=service_app.client_id,
        service=service_app.service,
        revision=content.revision,
        model=content.model,
        task=content.task,
        form_version=content.form_version,
        vault_id=new.vault_id,
        content_hash=content_hash(encoded),
    )
    reply = Done(review_id=application.review_id, revision=content.revision)
    shred = [application.vault_id] if drafted else []
    return Decision([event], reply, seal={new.vault_id: encoded}, shred=shred)


def submit(state: ServiceApp | None, facts: ApplicantFacts, command: SubmitApplication, rules: Rules) -> D:
    """Have it reviewed. Raises InvalidInput with all that is missing."""
    service_app, application = own_application(state, command, command.review_id)
    reply = Done(review_id=application.review_id, revision=application.revision)
    if application.state == "submitted":
        return Decision([], reply)
    _check_may("submit", service_app, application, facts, command)
    _check_still_there(facts, service_app.service, application)
    assert facts.content is not None, "the read tables and the vault are never behind the log"
    lacking = missing(facts.content, facts.tuned, rules)
    if lacking:
        raise InvalidInput("Something is missing or does not fit before this can be submitted.", lacking)
    event = ApplicationSubmitted(
        account=service_app.account,
        review_id=application.review_id,
        client_id=service_app.client_id,
        service=service_app.service,
        revision=application.revision,
        content_hash=application.content_hash,
        due_at=due_at(facts.now, rules.calendar),
    )
    return Decision([event], reply, at=facts.now)


def withdraw(state: ServiceApp | None, facts: ApplicantFacts, command: WithdrawApplication) -> D:
    """Take it back before it is decided."""
    service_app, application = own_application(state, command, command.review_id)
    reply = Done(review_id=application.review_id, revision=application.revision)
    if application.state == "withdrawn":
        return Decision([], reply)
    _check_may("withdraw", service_app, application, facts, command)
    event = ApplicationWithdrawn(
        account=service_app.account,
        review_id=application.review_id,
        client_id=service_app.client_id,
        service=service_app.service,
        revision=application.revision,
    )
    return Decision([event], reply)


def retire(state: ServiceApp | None, command: RetireServiceApp) -> Decision[ReviewEvent, Retired]:
    """End what is open, and what stands: the application was deleted, or has given up the service. Once more changes nothing."""
    reply = Retired(client_id=command.client_id, service=command.service)
    if state is None or not (state.open or state.live):
        return Decision([], reply)
    event = ServiceAppRetired(account=state.account, client_id=state.client_id, service=state.service)
    return Decision([event], reply)


def missing(content: Content, tuned: Mapping[str, Tuned], rules: Rules) -> list[FieldProblem]:
    """All that a draft lacks, or has wrong, before it can be submitted."""
    lacking = [] if content.form_version == rules.form.version else [_other_form(rules)]
    lacking += choices_missing(rules.models, tuned, content.service, content.model, content.task)
    return lacking + forms.missing(rules.form, content)


# -- what the commands have in common


def _begun(command: Command, content: Content, new: New, amends: str) -> D:
    encoded = encode(content)
    drafted = ApplicationDrafted(
        account=command.account,
        review_id=content.review_id,
        client_id=content.client_id,
        service=content.service,
        model=content.model,
        task=content.task,
        form_version=content.form_version,
        vault_id=new.vault_id,
        content_hash=content_hash(encoded),
        amends=amends,
    )
    return Decision([drafted], Done(review_id=content.review_id, revision=1), seal={new.vault_id: encoded})


def _merged(before: Mapping[str, Any], entered: Mapping[str, Any]) -> dict[str, Any]:
    """The form with what was entered in the place of what was there; null removes a field."""
    return {name: value for name, value in {**before, **entered}.items() if value is not None}


def _check_may(act: Act, service_app: ServiceApp, application: Application, facts: ApplicantFacts, command: Command) -> None:
    asking = Asking(command.account, command.actor, reviewer=False)
    refusal = refused(service_app, application, act, asking, moment(facts, application), lapsed=False)
    if refusal is not None:
        raise refusal


def _check_none_is_there(state: ServiceApp | None) -> None:
    if state is None:
        return
    if state.live:
        raise Conflict(f"An application for this service is approved: {state.live}. Amend that one instead.")
    if state.open is not None:
        raise Conflict(f"An application for this service is open already: {state.open.review_id}. Go on with that one.")


def _check_tests(facts: ApplicantFacts, service: str) -> None:
    """Raises Conflict unless the application has the service, in test tier."""
    tier = facts.app.services.get(service) if facts.app is not None and not facts.app.deleted else None
    if tier is None:
        raise Conflict(f"The application has not selected {service}. Select it, make a test call, then apply.")
    if tier != "test":
        raise Conflict("The application calls the service live already: there is nothing to apply for.")


def _check_still_there(facts: ApplicantFacts, service: str, application: Application) -> None:
    """The same again, of one that was begun. What an amendment is to follow has made the service live, or is about to."""
    if not application.amends:
        _check_tests(facts, service)
    elif facts.app is None or facts.app.deleted or service not in facts.app.services:
        raise Conflict(f"The application has given up {service}, or was deleted: there is nothing to amend any more.")


def _check_form_version(version: str, rules: Rules) -> None:
    if version != rules.form.version:
        raise InvalidInput("Another version of the form is in use by now.", [_other_form(rules)])


def _other_form(rules: Rules) -> FieldProblem:
    problem = f"The form in use is version {rules.form.version}."
    return FieldProblem("form_version", problem, f"Read it, and give form_version {rules.form.version} with your answers.")


def _check_written(content: Content, command: DraftApplication | EditApplication, facts: ApplicantFacts, rules: Rules) -> None:
    """Raises InvalidInput with all that does not fit. A choice that was made before is looked at when it is submitted."""
    problems = forms.draft_problems(rules.form, content)
    if command.model is not None or command.task is not None:
        problems = choice_problems(rules.models, facts.tuned, content.service, content.model, content.task) + problems
    if problems:
        raise InvalidInput("Something of it does not fit the form.", problems)
