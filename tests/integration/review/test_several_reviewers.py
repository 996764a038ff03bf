"""Where two have to approve they are two; and a claim that lapses is free to be taken over."""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.reviews import ListReviews, ReviewItem, ReviewPage
from shared.errors import Conflict
from shared.events.review import ReviewDecided
from tests.support.metering_process import RegistryFeed, eventually
from tests.support.review_process import STUDIO, Applicant, Calls, Reviewer, ReviewProcess, logged, review_file


async def waiting(reviewer: Reviewer) -> ReviewItem:
    (item,) = (await reviewer.ask(ListReviews, ReviewPage, reviewer=reviewer.actor)).reviews
    return item


async def test_two_approve(
    nats_url: str, nc: Client, schema: ServiceDsn, registry: RegistryFeed, calls: Calls, tmp_path: Path
) -> None:
    two = review_file(tmp_path, reviewers={STUDIO: 2})
    process = ReviewProcess(nats_url, schema, tmp_path, TOLLBOOK_REVIEW=two, TOLLBOOK_CLAIM_HOURS="0.0001")
    try:
        await process.start()
        first, second, third = (Reviewer(nc, name) for name in ("one", "two", "three"))
        review_id = (await Applicant(nc).submitted()).id
        halfway = await first.decide(review_id)
        assert (halfway.state, halfway.approvals, halfway.approvals_needed) == ("submitted", 1, 2)
        queued = await waiting(first)
        assert (queued.state, queued.approvals, queued.claimed_by) == ("submitted", 1, None)
        with pytest.raises(Conflict, match="a second reviewer has to decide"):
            await first.claim(review_id)
        await second.claim(review_id)

        async def taken_over() -> bool:
            try:
                return (await third.claim(review_id)).claimed_by == third.actor
            except Conflict:  # until the claim has lapsed
                return False

        await eventually(taken_over, True)
        assert (await waiting(first)).claimed_by == third.actor
        assert (await third.decide(review_id)).state == "approved"
        (decided,) = await logged(schema, "ReviewDecided")
        assert isinstance(decided, ReviewDecided)
        assert decided.reviewers == (first.actor, third.actor)
    finally:
        process.kill()
