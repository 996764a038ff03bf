"""Amending what was approved, and what ends when the service is given up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.review.domain import AppRow
from shared.errors import Conflict
from shared.events.review import (
    ApplicationDrafted,
    ServiceAppRetired,
)
from tests.support.review_examples import ACCOUNT, CLIENT_ID, FILLED, SERVICE, Desk

# -- amendments


def test_an_amendment_begins_with_what_was_approved_which_stays_live() -> None:
    desk = Desk()
    approved = desk.approved()
    desk.app = AppRow("speech", {SERVICE: "live"})
    amendment = desk.amend(approved)
    drafted = desk.events[-1]
    assert isinstance(drafted, ApplicationDrafted)
    assert drafted.amends == approved
    content = desk.content(amendment)
    assert (content.form, content.review_id, content.revision) == (FILLED, amendment, 1)
    desk.edit(amendment, form={"purpose": "Another purpose."})
    desk.submit(amendment)
    assert desk.of(approved).state == "approved"
    with pytest.raises(Conflict, match=amendment):
        desk.amend(approved)


def test_an_amendment_of_what_was_given_up_is_not_submitted() -> None:
    desk = Desk()
    amendment = desk.amend(desk.approved())
    desk.app = AppRow("speech", {"csr": "live"})
    with pytest.raises(Conflict, match="given up"):
        desk.submit(amendment)


def test_a_rejected_amendment_of_what_another_one_has_amended_rests() -> None:
    desk = Desk()
    approved = desk.approved()
    first = desk.amend(approved)
    desk.submit(first)
    desk.claim(first)
    desk.decide(first, "rejected")
    second = desk.amend(approved)
    desk.submit(second)
    desk.claim(second)
    desk.decide(second)
    with pytest.raises(Conflict, match=second):
        desk.edit(first, task="chat")


# -- the end of it


@pytest.mark.parametrize("way", [Desk.draft, Desk.submitted, Desk.in_review, Desk.approved])
def test_what_is_open_or_stands_ends_when_the_service_is_given_up(way: Callable[[Desk], str]) -> None:
    desk = Desk()
    review_id = way(desk)
    kept = dict(desk.vault)
    desk.retire()
    assert desk.events[-1] == ServiceAppRetired(account=ACCOUNT, client_id=CLIENT_ID, service=SERVICE)
    assert desk.of(review_id).state == "retired"
    assert desk.vault == kept
    desk.retire()
    assert len([event for event in desk.events if isinstance(event, ServiceAppRetired)]) == 1
    assert desk.draft() != review_id, "selected again, it can be applied for again"


def test_an_amendment_ends_with_what_it_amends() -> None:
    desk = Desk()
    approved = desk.approved()
    amendment = desk.amend(approved)
    desk.suspend(approved)
    desk.retire()
    assert {desk.of(approved).state, desk.of(amendment).state} == {"retired"}
    assert desk.state is not None
    assert not desk.state.live


def test_what_is_over_stays_as_it_is() -> None:
    desk = Desk()
    desk.retire()
    rejected = desk.rejected()
    desk.retire()
    assert desk.of(rejected).state == "rejected"
    desk.edit(rejected)
    desk.retire()
    assert desk.of(rejected).state == "retired"


def test_a_rejected_amendment_of_what_is_retired_does_not_go_on() -> None:
    desk = Desk()
    amendment = desk.amend(desk.approved())
    desk.submit(amendment)
    desk.claim(amendment)
    desk.decide(amendment, "rejected")
    desk.retire()
    with pytest.raises(Conflict, match="Begin a new application"):
        desk.edit(amendment)
