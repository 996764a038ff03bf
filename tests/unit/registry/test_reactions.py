"""What the decisions of reviews do to applications: given what the registry decided, when it hears of one, then its events."""

from __future__ import annotations

from typing import Any

import pytest

from services.registry.domain import App, delete_app, edit_app, evolve_app
from services.registry.reactions import FollowReview, follow_review, heard_as, react
from shared.commands.registry import DeleteApp, EditApp
from shared.events.registry import (
    AppDeleted,
    AppEdited,
    RegistryEvent,
    SecretRevoked,
    SelectedService,
    ServiceActivated,
    ServiceResumed,
    ServiceSuspended,
)
from shared.events.review import (
    ApplicationSuperseded,
    ApplicationWithdrawn,
    ApprovalGiven,
    Outcome,
    ReviewDecided,
    ReviewEvent,
    ServiceAppRetired,
    ServiceAppSuspended,
    SuspensionLifted,
)
from tests.support.registry_examples import ACCOUNT, CLIENT_ID, FIRST, RULES, app_facts, command, registered
from tests.support.scenario import Outcome as Decided
from tests.support.scenario import Scenario

APPS: Scenario[App | None] = Scenario(None, evolve_app)
STUDIO = {"account": ACCOUNT, "client_id": CLIENT_ID, "service": "studio"}
ACTIVATED = ServiceActivated(**STUDIO)
SUSPENDED = ServiceSuspended(**STUDIO, review_id="r1")
RESUMED = ServiceResumed(**STUDIO, review_id="r1")
DELETED = AppDeleted(account=ACCOUNT, client_id=CLIENT_ID)


def decided(decision: Outcome = "approved", **extra: Any) -> ReviewDecided:
    fields: dict[str, Any] = {
        **STUDIO,
        "review_id": "r1",
        "revision": 1,
        "decision": decision,
        "findings": (),
        "reviewers": ("token:t9",),
        "model": "HCX",
        "task": "summary",
        "form_version": "1",
        "form_hash": "0" * 64,
        "content_hash": "1" * 64,
    }
    return ReviewDecided(**{**fields, **extra})


def suspends(**extra: Any) -> ServiceAppSuspended:
    return ServiceAppSuspended(**{**STUDIO, "review_id": "r1", "reviewer": "token:t9", "reason": "Misuse.", **extra})


def lifts(**extra: Any) -> SuspensionLifted:
    return SuspensionLifted(**{**STUDIO, "review_id": "r1", "reviewer": "token:t9", **extra})


def edited(*services: SelectedService) -> AppEdited:
    first = registered()
    return AppEdited(account=ACCOUNT, client_id=CLIENT_ID, name=first.name, services=services, environments=first.environments)


def heard(event: ReviewEvent) -> FollowReview:
    command = react(event, "review-1-00")
    assert command is not None
    return command


def when_heard(event: ReviewEvent, *past: RegistryEvent) -> Decided[App | None]:
    return APPS.given(*past).when(lambda state: follow_review(state, heard(event)))


def test_an_approval_activates_the_service() -> None:
    decision = when_heard(decided(), registered()).then(ACTIVATED)
    assert decision.reply.changed
    when_heard(decided(), registered(), edited(SelectedService("studio", "test"))).then(ACTIVATED)


def test_a_suspension_suspends_it_and_a_lifting_resumes_it() -> None:
    when_heard(suspends(), registered(), ACTIVATED).then(SUSPENDED)
    when_heard(lifts(), registered(), ACTIVATED, SUSPENDED).then(RESUMED)
    when_heard(suspends(review_id="r2"), registered(), ACTIVATED, SUSPENDED, RESUMED).then(
        ServiceSuspended(**STUDIO, review_id="r2")
    )


@pytest.mark.parametrize(
    ("event", "past"),
    [
        pytest.param(decided(), (registered(), ACTIVATED), id="activated before"),
        pytest.param(decided(), (registered(), ACTIVATED, SUSPENDED), id="activated and suspended"),
        pytest.param(suspends(), (registered(), ACTIVATED, SUSPENDED), id="suspended before"),
        pytest.param(lifts(), (registered(), ACTIVATED), id="never suspended"),
        pytest.param(lifts(), (registered(), ACTIVATED, SUSPENDED, RESUMED), id="resumed before"),
        pytest.param(suspends(), (registered(),), id="a selection that began anew, in tier test"),
        pytest.param(lifts(), (registered(), ACTIVATED, SUSPENDED, edited(SelectedService("studio", "test"))), id="left since"),
    ],
)
def test_what_is_already_so_is_no_event(event: ReviewEvent, past: tuple[RegistryEvent, ...]) -> None:
    assert not when_heard(event, *past).then_nothing().reply.changed


@pytest.mark.parametrize("event", [decided(), suspends(), lifts()])
@pytest.mark.parametrize(
    "past",
    [
        pytest.param((), id="no application"),
        pytest.param((registered(account="other"), ACTIVATED), id="of another account"),
        pytest.param((registered(), ACTIVATED, SUSPENDED, DELETED), id="deleted"),
        pytest.param((registered(), edited(SelectedService("csr"))), id="not selected any more"),
        pytest.param((registered(services=(SelectedService("csr"),)),), id="never selected"),
    ],
)
def test_what_is_not_there_is_left_alone(event: ReviewEvent, past: tuple[RegistryEvent, ...]) -> None:
    when_heard(event, *past).then_nothing()


@pytest.mark.parametrize(
    "event",
    [
        decided("rejected"),
        ApprovalGiven(**STUDIO, review_id="r1", revision=1, reviewer="token:t9", findings=()),
        ApplicationWithdrawn(**STUDIO, review_id="r1", revision=1),
        ApplicationSuperseded(**STUDIO, review_id="r1", by="r2"),
        ServiceAppRetired(**STUDIO),
    ],
)
def test_nothing_else_that_happens_in_reviews_concerns_the_registry(event: ReviewEvent) -> None:
    assert react(event, "review-1-00") is None


def test_the_command_is_another_one_for_each_message_and_each_history() -> None:
    ids = {heard_as(sequence, bytes([of]) * 32) for sequence in (1, 11) for of in (1, 2)}
    assert len(ids) == 4
    assert heard_as(1, b"\x01" * 32) == heard_as(1, b"\x01" * 32)
    assert all(heard(decided()).model_copy(update={"command_id": one}).command_id == one for one in ids)


def test_a_suspension_is_kept_by_edits_and_dropped_with_the_service() -> None:
    past = (registered(), ACTIVATED, SUSPENDED)
    asked = command(EditApp, client_id=CLIENT_ID, services=["studio", "papago"])
    still = SelectedService("studio", "live", suspended=True)
    decision = APPS.given(*past).when(lambda state: edit_app(state, app_facts(), asked, RULES))
    shown = decision.then(edited(still, SelectedService("papago"))).reply.services
    assert [(one.service, one.suspended) for one in shown] == [("studio", True), ("papago", False)]
    dropped = edited(SelectedService("csr"))
    back = command(EditApp, client_id=CLIENT_ID, services=["csr", "studio"])
    APPS.given(*past, dropped).when(lambda state: edit_app(state, app_facts(), back, RULES)).then(
        edited(SelectedService("csr"), SelectedService("studio", "test"))
    )


def test_a_suspension_is_about_one_service_and_nothing_else() -> None:
    before, after = (APPS.given(registered(), ACTIVATED, *more).state for more in ((), (SUSPENDED,)))
    assert before is not None
    assert after is not None
    assert after.services == (SelectedService("csr"), SelectedService("studio", "live", suspended=True))
    assert (after.secrets, after.environments, after.name) == (before.secrets, before.environments, before.name)
    assert APPS.given(registered(), ACTIVATED, SUSPENDED, RESUMED).state == before
    revoked = SecretRevoked(account=ACCOUNT, client_id=CLIENT_ID, secret_id=FIRST)
    kept = APPS.given(registered(), ACTIVATED, SUSPENDED, revoked).state
    assert kept is not None
    assert kept.services == after.services


def test_a_suspended_application_can_be_deleted() -> None:
    asked = command(DeleteApp, client_id=CLIENT_ID)
    APPS.given(registered(), ACTIVATED, SUSPENDED).when(lambda state: delete_app(state, asked)).then(DELETED)
