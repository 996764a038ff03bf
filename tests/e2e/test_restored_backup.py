"""Copies of another moment are put back: the database under a newer NATS, NATS under a newer database. Both are refused, in words
that say what happened, and what they say to do is done here."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import asyncpg
import pytest

from tests.chaos import quiet, rebuilds
from tests.chaos.faults import Processes
from tests.chaos.usage_load import connect
from tests.support.stack import Customer, StackProcess

DATA = ("postgres", "jetstream")


class App(NamedTuple):
    """An application and its credentials."""

    client_id: str
    secret: str


class Backups(NamedTuple):
    """A stopped stack, whose folder has the data of two moments: `older`, and `newer`, which is all that happened.

    `kept` was called once before the older copy, and 4 times after it; `lost` was registered, and called once, after it.
    """

    stack: StackProcess
    kept: App
    lost: App


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backups]:
    stack = StackProcess(tmp_path_factory.mktemp("backups") / "home")
    try:
        stack.start()
        kept = asyncio.run(before(stack))
        stack.stop()
        keep_as(stack, "older")
        stack.start()
        lost = asyncio.run(after(stack, kept))
        stack.stop()
        keep_as(stack, "newer")
        yield Backups(stack, kept, lost)
    finally:
        stack.stop()


async def before(stack: StackProcess) -> App:
    """What the older copy has."""
    async with Customer(stack) as owner:
        kept = App(*await owner.register("Kept"))
        assert (await owner.call(*kept)).status_code == 200
        await owner.wait_used(kept.client_id, 1, 10)
    return kept


async def after(stack: StackProcess, kept: App) -> App:
    """What happens then."""
    async with Customer(stack) as owner:
        lost = App(*await owner.register("Lost"))
        for app in (kept, kept, lost, kept, kept):
            assert (await owner.call(*app)).status_code == 200
        await owner.wait_used(kept.client_id, 5, 10)
        await owner.wait_used(lost.client_id, 1, 10)
    return lost


@pytest.fixture
def backups(made: Backups) -> Iterator[Backups]:
    """What a test puts back is its own choice; it leaves the stack stopped."""
    yield made
    made.stack.stop()


def keep_as(stack: StackProcess, moment: str) -> None:
    """Copy the data of the stopped stack, to be put back as `<moment>-<folder>`."""
    for name in DATA:
        shutil.copytree(stack.home / name, stack.home / f"{moment}-{name}")


async def put_back(stack: StackProcess, *copies: str) -> None:
    """Stop the stack, and have its data as these copies hold it (`older-postgres`: the folder `postgres`)."""
    await asyncio.to_thread(stack.stop)
    for copy in copies:
        name = copy.partition("-")[2]
        shutil.rmtree(stack.home / name)
        shutil.copytree(stack.home / copy, stack.home / name)


def delete_streams(stack: StackProcess, *names: str) -> None:
    """As docs/reliability.md tells it, while the stack is stopped."""
    for name in names:
        folders = list((stack.home / "jetstream").glob(f"jetstream/*/streams/{name}"))
        assert folders
        for folder in folders:
            shutil.rmtree(folder)


async def says(stack: StackProcess, service: str, *words: str) -> str:
    """Wait until the service's /readyz says these words; all that it says."""
    processes = Processes(stack.home)

    async def missing() -> str:
        ready, why = await quiet.readiness(processes, service)
        return "" if not ready and all(word in why for word in words) else f"{service}: {why or 'is ready'}"

    await quiet.until(f"{service} said {words}", missing, 60)
    return (await quiet.readiness(processes, service))[1]


async def whole(stack: StackProcess) -> None:
    await quiet.until("all was ready", partial(quiet.all_ready, Processes(stack.home)), 60)


async def dashboards_are_right(stack: StackProcess) -> None:
    """Wait until the bucket of applications is what the registry's table says."""
    database = await asyncpg.connect(stack.ready["postgres_dsn"], timeout=20)
    seed = (stack.home / "secrets" / "nats-operator").read_text().strip()
    operator = await connect(stack.ready["nats_url"], "operator", seed)

    async def differs() -> str:
        return "; ".join(await rebuilds.bucket_of_apps(database, operator))

    try:
        await quiet.until("the dashboards were written again", differs, 10)
    finally:
        await operator.close()
        await database.close()


async def names(owner: Customer) -> set[str]:
    answer = await owner.http.get("/v1/apps")
    assert answer.status_code == 200, answer.text
    return {app["name"] for app in answer.json()["apps"]}


@pytest.mark.timeout(300)
async def test_a_database_from_an_older_backup_is_refused_until_it_is_replaced_or_the_rest_is_given_up(backups: Backups) -> None:
    stack, kept, lost = backups
    await put_back(stack, "older-postgres", "newer-jetstream")
    await asyncio.to_thread(stack.start)
    why = await says(stack, "registry", "restored from an older copy than NATS", "Restore the newer copy of the database")
    assert "delete the stream REGISTRY and the KV buckets of registry" in why
    assert "relay of REGISTRY: The stream REGISTRY ends at" in stack.output()
    assert "registry is not ready, the others are not kept waiting" in stack.output()
    async with Customer(stack) as owner:
        assert (await owner.call(*kept)).status_code == 200, "calls go on meanwhile"
        refused = await owner.http.post("/v1/apps", json={"name": "In vain", "services": ["csr"], "environments": {}})
        assert refused.status_code == 503
        assert refused.json()["detail"].startswith("Nothing was done. The stream REGISTRY ends at")
        assert {"Kept"} == await names(owner) & {"Kept", "Lost", "In vain"}, "queries are answered"
    await asyncio.to_thread(stack.stop)
    keep_as(stack, "since")

    # The first way out: the newer copy.
    await put_back(stack, "newer-postgres")
    stack.begin()
    await whole(stack)
    async with Customer(stack) as owner:
        assert {"Kept", "Lost"} <= await names(owner)

    # The second: what the copy does not hold is given up. Which streams, the text says.
    await put_back(stack, "since-postgres", "since-jetstream")
    delete_streams(stack, "REGISTRY", "KV_apps")
    stack.begin()
    await says(stack, "metering", "--rebuild")
    assert "read again" in await rebuilds.rebuild(stack.home, "metering")
    await says(stack, "alerts", "--rebuild")
    assert "read again" in await rebuilds.rebuild(stack.home, "alerts")
    await says(stack, "review", "--rebuild")
    assert "read again" in await rebuilds.rebuild(stack.home, "review")
    await asyncio.to_thread(stack.wait)
    await whole(stack)
    async with Customer(stack) as owner:
        assert "Lost" not in await names(owner)
        assert (await owner.call(*lost)).status_code == 401
        new = App(*await owner.register("New"))
        assert (await owner.call(*new)).status_code == 200
        await owner.wait_used(new.client_id, 1, 10)
        used = await owner.used(kept.client_id)
        assert used == 6, "every call of what was kept is counted, also from after the backup"


@pytest.mark.timeout(300)
async def test_a_usage_stream_from_an_older_backup_is_refused_until_it_is_replaced_or_begun_anew(backups: Backups) -> None:
    stack, kept, _ = backups
    await put_back(stack, "newer-postgres", "older-jetstream")
    stack.begin()
    refused = (
        "The stream USAGE ends at",
        "NATS was restored from an older copy than this database",
        "begins again above what was counted",
    )
    await says(stack, "metering", *refused)
    assert "NATS was restored from an older copy" in stack.output()
    await quiet.until("the API was there", partial(quiet.why_not_ready, Processes(stack.home), "registry", "console"), 60)
    async with Customer(stack) as owner:
        assert await owner.used(kept.client_id) == 5, "what was counted stays counted"
        assert "Lost" in await names(owner), "a log's stream is simply continued"
    await dashboards_are_right(stack)

    await put_back(stack, "newer-jetstream")
    stack.begin()
    await whole(stack)

    await put_back(stack, "older-jetstream")
    delete_streams(stack, "USAGE")
    await asyncio.to_thread(stack.start)
    await whole(stack)
    async with Customer(stack) as owner:
        assert await owner.used(kept.client_id) == 5
        assert (await owner.call(*kept)).status_code == 200
        await owner.wait_used(kept.client_id, 6, 10)
