"""What the registry decides ends service apps: once each, however often it is heard, and whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from deploy.servers.roles import ServiceDsn
from services.review.following import CONSUMER, registry_consumer, retiring
from services.review.projection import project
from shared.clock import SystemClock
from shared.commands import service_apps  # pytest would take a name TestApps for tests
from shared.commands.service_apps import (
    ApplicationView,
    EditApplication,
    GetApplication,
    ListTestApps,
    SubmitApplication,
)
from shared.errors import Conflict
from shared.eventlog.changes import apply
from shared.eventlog.log import EventLog
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.registry import SelectedService, ServiceActivated
from shared.events.review import CODEC, ApplicationDrafted
from shared.ids import new_id
from shared.postgres import Pool, open_pool
from shared.streams.checkpoints import Source
from shared.streams.consumer import Consumer
from tests.support.crashes import Tripwire, TripwirePool, killed, until
from tests.support.metering_process import RegistryFeed, eventually
from tests.support.review_process import (
    APP,
    STUDIO,
    VAULT_KEY,
    Applicant,
    Reviewer,
    ReviewProcess,
    deleted,
    edited,
    logged,
    registered,
    rows,
)

TEST: Final = SelectedService(STUDIO, "test")
OTHER: Final = SelectedService("csr")


async def state_of(applicant: Applicant, review_id: str) -> str:
    return (await applicant.ask(GetApplication, ApplicationView, review_id=review_id)).state


async def test_an_application_that_gives_up_the_service_ends_what_it_applied_for(
    applicant: Applicant, reviewer: Reviewer, registry: RegistryFeed, schema: ServiceDsn
) -> None:
    review_id = (await applicant.submitted()).id
    await registry.publish(edited(TEST, OTHER))
    await registry.publish(edited(OTHER))
    await eventually(lambda: state_of(applicant, review_id), "retired")
    with pytest.raises(Conflict, match="It was retired"):
        await reviewer.claim(review_id)
    with pytest.raises(Conflict, match="has not selected"):
        await applicant.draft()
    await registry.publish(edited(TEST, OTHER))
    again = await applicant.draft()
    assert again.state == "draft"
    assert again.app_name == "renamed"
    await registry.publish(deleted())
    await eventually(lambda: state_of(applicant, again.id), "retired")
    assert len(await logged(schema, "ServiceAppRetired")) == 2


async def test_a_rejected_one_is_not_revised_once_the_service_was_given_up(
    applicant: Applicant, reviewer: Reviewer, registry: RegistryFeed, schema: ServiceDsn
) -> None:
    review_id = (await applicant.submitted()).id
    await reviewer.decide(review_id, "rejected")
    await registry.publish(edited(OTHER))

    async def gone() -> list[tuple[Any, ...]]:
        return await rows(schema, "SELECT service FROM app_service WHERE gone_at IS NOT NULL")

    await eventually(gone, [(STUDIO,)])
    with pytest.raises(Conflict, match="has not selected"):
        await applicant.ask(EditApplication, ApplicationView, review_id=review_id)
    assert await logged(schema, "ServiceAppRetired") == []
    await registry.publish(edited(OTHER, TEST))
    await applicant.draft()


async def test_test_apps_that_are_live_retired_or_superseded_are_deprecated(
    applicant: Applicant, reviewer: Reviewer, registry: RegistryFeed
) -> None:
    async def shown(deprecated: bool) -> list[tuple[str, str, bool]]:
        found = await applicant.ask(ListTestApps, service_apps.TestApps, deprecated=deprecated)
        return [(one.client_id[0], one.status, one.until is None) for one in found.test_apps]

    await registry.publish(registered("b" * 20), registered("c" * 20, services=("csr",), tier="live"))
    await eventually(lambda: shown(False), [("b", "test", True), ("a", "test", True)])
    assert await shown(True) == []
    review_id = (await applicant.submitted()).id
    await reviewer.decide(review_id)
    await registry.publish(ServiceActivated(account="acme", client_id=APP, service=STUDIO))
    await registry.publish(edited(OTHER, client_id="b" * 20), edited(OTHER, TEST, client_id="b" * 20))
    await eventually(lambda: shown(True), [("b", "superseded", False), ("a", "live", False)])
    assert await shown(False) == [("b", "test", True)]
    (_, of_a) = (await applicant.ask(ListTestApps, service_apps.TestApps, deprecated=True)).test_apps
    assert of_a.service_app == review_id
    await registry.publish(deleted("b" * 20))
    await eventually(lambda: shown(True), [("b", "retired", False), ("b", "superseded", False), ("a", "live", False)])


async def test_a_process_that_is_killed_goes_on_where_it_was(
    applicant: Applicant, review: ReviewProcess, registry: RegistryFeed, nats_url: str, schema: ServiceDsn, tmp_path: Path
) -> None:
    review_id = (await applicant.draft()).id
    review.kill()
    await registry.publish(deleted())
    processes = [ReviewProcess(nats_url, schema, tmp_path, name) for name in ("two", "three")]
    try:
        await asyncio.gather(*(process.start() for process in processes))
        await eventually(lambda: state_of(applicant, review_id), "retired")
        with pytest.raises(Conflict):
            await applicant.ask(SubmitApplication, ApplicationView, review_id=review_id)
        assert len(await logged(schema, "ServiceAppRetired")) == 1
    finally:
        for process in processes:
            process.kill()


class Room:
    """What follows the registry, in the test's own process, to die at any statement."""

    def __init__(self, pool: Pool, nc: Client) -> None:
        self.pool = pool
        self.nc = nc
        self.log = EventLog(CODEC, SystemClock())
        self.transactor = Transactor(pool, self.log, Vault(SecretStr(VAULT_KEY)), project, SystemClock())

    async def drafted(self, client_id: str) -> None:
        event = ApplicationDrafted(
            account="acme",
            review_id=new_id(),
            client_id=client_id,
            service=STUDIO,
            model="",
            task="",
            form_version="1",
            vault_id="v",
            content_hash="0" * 64,
        )
        async with self.pool.acquire() as connection, connection.transaction():
            (recorded,) = await self.log.append(connection, f"service-app/{client_id}/{STUDIO}", 0, [event])
            await apply(connection, project(recorded, event))

    async def following(self, pool: Any) -> tuple[Consumer, asyncio.Task[None]]:
        consumer = registry_consumer(
            pool, lambda: self.nc, SystemClock(), retiring(self.log, self.transactor), committed=lambda: None
        )
        await consumer.add(Source("REGISTRY"))
        return consumer, asyncio.create_task(consumer.run())


@pytest.fixture
async def room(schema: ServiceDsn, nc: Client) -> AsyncIterator[Room]:
    pool = await open_pool(schema.dsn, "review")
    yield Room(pool, nc)
    await pool.close()


async def test_whatever_statement_it_dies_at_each_is_retired_once(room: Room, nc: Client, schema: ServiceDsn) -> None:
    registry = RegistryFeed(nc)
    position = 0
    for step, after in ((step, after) for step in itertools.count(1) for after in (False, True)):
        client_id = f"{step:019d}{int(after)}"
        await room.drafted(client_id)
        await registry.publish(registered(client_id), edited(OTHER, client_id=client_id))
        position += 2
        wire = Tripwire(step, after=after, hang=True)
        consumer, task = await room.following(TripwirePool(room.pool, wire))

        async def died_or_done(consumer: Consumer = consumer, wire: Tripwire = wire, position: int = position) -> bool:
            query = "SELECT sequence FROM checkpoint WHERE consumer = $1"
            return wire.tripped.is_set() or await rows(schema, query, CONSUMER) == [(position,)]

        await until(died_or_done, "its end")
        await killed(task)
        consumer, task = await room.following(room.pool)
        await consumer.caught_up("REGISTRY", position, timeout_s=10)
        await killed(task)
        if not wire.tripped.is_set():
            break
    assert step > 10
    retired = Counter(getattr(event, "client_id", "") for event in await logged(schema, "ServiceAppRetired"))
    assert set(retired.values()) == {1}
    assert len(retired) == 2 * step - (0 if after else 1)
    assert await rows(schema, "SELECT DISTINCT state FROM application") == [("retired",)]
    async with room.pool.acquire() as connection:
        await room.log.verify(connection)
