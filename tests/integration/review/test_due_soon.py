"""That a decision is due soon is said once for each revision, however many processes look."""

from __future__ import annotations

import asyncio
from pathlib import Path

from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.service_apps import ApplicationView, EditApplication, SubmitApplication
from shared.events.review import ReviewDueSoon
from tests.support.metering_process import RegistryFeed, eventually
from tests.support.review_process import Applicant, Calls, Reviewer, ReviewProcess, logged, review_file


async def test_it_is_said_once_for_each_revision(
    nats_url: str, nc: Client, schema: ServiceDsn, registry: RegistryFeed, calls: Calls, tmp_path: Path
) -> None:
    calendar = {"zone": "Asia/Seoul", "country": "KR", "closes": "18:00", "business_days": 1}
    path = review_file(tmp_path, calendar={**calendar, "due_soon_hours": 720})  # whatever is submitted is due soon
    processes = [ReviewProcess(nats_url, schema, tmp_path, name, TOLLBOOK_REVIEW=path) for name in ("one", "two")]

    async def said() -> list[int]:
        found = await logged(schema, "ReviewDueSoon")
        assert all(isinstance(event, ReviewDueSoon) for event in found)
        return [event.revision for event in found if isinstance(event, ReviewDueSoon)]

    try:
        await asyncio.gather(*(process.start() for process in processes))
        applicant, reviewer = Applicant(nc), Reviewer(nc)
        review_id = (await applicant.submitted()).id
        await eventually(said, [1])
        await reviewer.decide(review_id, "rejected")
        await applicant.ask(EditApplication, ApplicationView, review_id=review_id)
        await applicant.ask(SubmitApplication, ApplicationView, review_id=review_id)
        await eventually(said, [1, 2])
        await reviewer.decide(review_id)
        assert await said() == [1, 2]
    finally:
        for process in processes:
            process.kill()
