"""A rebuild makes the same rows again, appends nothing, and tells nobody anything."""

from __future__ import annotations

from typing import Any

from deploy.servers.roles import ServiceDsn
from shared.commands.service_apps import AmendApplication, ApplicationView, EditApplication
from shared.events.registry import SelectedService, ServiceActivated
from tests.support.metering_process import RegistryFeed, eventually
from tests.support.review_process import (
    APP,
    STUDIO,
    Applicant,
    Calls,
    Reviewer,
    ReviewProcess,
    deleted,
    edited,
    logged,
    registered,
    rows,
)

TABLES = ("application", "tuned_task", "form", "app", "app_service", "checkpoint")


async def test_the_rows_are_what_they_were(
    applicant: Applicant, reviewer: Reviewer, review: ReviewProcess, registry: RegistryFeed, calls: Calls, schema: ServiceDsn
) -> None:
    apps = [letter * 20 for letter in "bcd"]
    calls.made |= {(app, STUDIO) for app in apps}
    await registry.publish(*(registered(app) for app in apps))
    live = await applicant.submitted()
    await reviewer.decide(live.id)
    await registry.publish(ServiceActivated(account="acme", client_id=APP, service=STUDIO))
    await applicant.ask(AmendApplication, ApplicationView, review_id=live.id)
    rejected = await applicant.submitted(client_id="b" * 20)
    await reviewer.decide(rejected.id, "rejected")
    await applicant.ask(EditApplication, ApplicationView, review_id=rejected.id, task="summarization")
    await reviewer.claim((await applicant.submitted(client_id="c" * 20)).id)
    await applicant.submitted(client_id="d" * 20)
    await registry.publish(edited(SelectedService("csr"), client_id="c" * 20), deleted("d" * 20))

    async def retired() -> int:
        return len(await logged(schema, "ServiceAppRetired"))

    await eventually(retired, 2)

    async def contents() -> dict[str, list[tuple[Any, ...]]]:
        return {table: sorted(await rows(schema, f"SELECT t::text FROM {table} AS t")) for table in TABLES}

    before, events = await contents(), await logged(schema)
    done = review.run("--rebuild")
    assert done.returncode == 0, done.stderr.decode()
    assert f"built again from {len(events)} events; the applications were read again from 8 events".encode() in done.stdout
    assert await contents() == before
    assert await logged(schema) == events
    assert review.run("--verify").returncode == 0
