"""Many at once, and the same thing twice: one wins, and the other is told what happened."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.reviews import ClaimReview, DecideReview, ReviewView
from shared.commands.service_apps import (
    ApplicationPage,
    ApplicationView,
    DraftApplication,
    EditApplication,
    ListApplications,
    SubmitApplication,
    WithdrawApplication,
)
from shared.errors import CommandReused, Conflict
from shared.ids import new_id
from tests.support.review_process import APP, MET, NOT_MET, STUDIO, Applicant, Reviewer, ReviewProcess, logged


@pytest.fixture
async def second(nats_url: str, schema: ServiceDsn, review: ReviewProcess, tmp_path: Path) -> AsyncIterator[ReviewProcess]:
    """Another process that answers too."""
    process = ReviewProcess(nats_url, schema, tmp_path, "two")
    try:
        await process.start()
        yield process
    finally:
        process.kill()


async def test_a_command_that_is_repeated_is_done_once(applicant: Applicant, second: ReviewProcess, schema: ServiceDsn) -> None:
    command_id = new_id()
    drafts = await asyncio.gather(*(applicant.draft(command_id=command_id) for _ in range(6)))
    assert len({draft.id for draft in drafts}) == 1
    review_id = drafts[0].id
    again = new_id()
    for _ in range(2):
        submitted = await applicant.ask(SubmitApplication, ApplicationView, review_id=review_id, command_id=again)
        assert submitted.state == "submitted"
    with pytest.raises(CommandReused):
        await applicant.ask(WithdrawApplication, ApplicationView, review_id=review_id, command_id=again)
    counted = Counter(type(event).__name__ for event in await logged(schema))
    assert counted == {"FormPublished": 1, "ApplicationDrafted": 1, "ApplicationSubmitted": 1}


async def test_of_many_drafts_for_one_service_app_one_is_begun(applicant: Applicant, second: ReviewProcess) -> None:
    asked = [applicant.ask(DraftApplication, ApplicationView, client_id=APP, service=STUDIO) for _ in range(8)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    begun = [one for one in found if isinstance(one, ApplicationView)]
    assert len(begun) == 1
    for other in found:
        assert other is begun[0] or (isinstance(other, Conflict) and begun[0].id in str(other))
    assert len((await applicant.ask(ListApplications, ApplicationPage)).service_apps) == 1


async def test_of_two_who_decide_at_once_one_wins_and_the_other_is_told(
    applicant: Applicant, second: ReviewProcess, nc: Client, schema: ServiceDsn
) -> None:
    reviewers = [Reviewer(nc, name) for name in ("one", "two")]
    review_id = (await applicant.submitted()).id
    claims = await asyncio.gather(*(one.claim(review_id) for one in reviewers), return_exceptions=True)
    assert sum(isinstance(claim, ReviewView) for claim in claims) == 1
    winner = next(one for one, claim in zip(reviewers, claims, strict=True) if isinstance(claim, ReviewView))
    decisions = [("approved", MET), ("rejected", NOT_MET)]
    decided = await asyncio.gather(
        *(
            winner.ask(DecideReview, ReviewView, review_id=review_id, decision=decision, criteria=criteria)
            for decision, criteria in decisions
        ),
        return_exceptions=True,
    )
    (won,) = [one for one in decided if isinstance(one, ReviewView)]
    (lost,) = [one for one in decided if isinstance(one, Conflict)]
    assert str(lost).startswith(f"It was {won.state} at "), lost
    loser = next(one for one in reviewers if one is not winner)
    with pytest.raises(Conflict, match=rf"It was {won.state} at .*, by another reviewer\."):
        await loser.ask(ClaimReview, ReviewView, review_id=review_id)
    assert len(await logged(schema, "ReviewDecided")) == 1


async def test_pieces_that_are_saved_at_once_are_all_there(applicant: Applicant, second: ReviewProcess) -> None:
    draft = await applicant.draft(form={})
    pieces = {
        f"{name}": f"Some text about {name}." for name in ("purpose", "intended_users", "abuse_monitoring", "abuse_response")
    }
    await asyncio.gather(
        *(applicant.ask(EditApplication, ApplicationView, review_id=draft.id, form={name: text}) for name, text in pieces.items())
    )
    (found,) = (await applicant.ask(ListApplications, ApplicationPage)).service_apps
    whole = await applicant.ask(EditApplication, ApplicationView, review_id=found.id)
    assert whole.form == pieces
