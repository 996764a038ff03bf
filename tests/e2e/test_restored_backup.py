"""Copies of another moment are put back: the database under a newer NATS, NATS under a newer database. Both are refused, in words
that say what happened, and what they say to do is done here."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.chaos import quiet, rebuilds
from tests.chaos.faults import Processes
from tests.support.stack import Customer, StackProcess


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[StackProcess]:
    process = StackProcess(tmp_path / "home")
    yield process.start()
    process.stop()


def put_back(stack: StackProcess, copy: str, name: str) -> None:
    """Have the folder `name` as `copy` holds it; both stay."""
    shutil.rmtree(stack.home / name, ignore_errors=True)
    shutil.copytree(stack.home / copy, stack.home / name)


def delete_streams(stack: StackProcess, *names: str) -> None:
    """As docs/reliability.md tells it, while the stack is stopped."""
    for name in names:
        folders = list((stack.home / "jetstream").glob(f"jetstream/*/streams/{name}"))
        assert folders
        for folder in folders:
            shutil.rmtree(folder)


async def says(processes: Processes, service: str, *words: str) -> str:
    """Wait until the service's /readyz says these words; all that it says."""

    async def missing() -> str:
        ready, why = await quiet.readiness(processes, service)
        return "" if not ready and all(word in why for word in words) else f"{service}: {why or 'is ready'}"

    await quiet.until(f"{service} said {words}", missing, 60)
    return (await quiet.readiness(processes, service))[1]


async def whole(processes: Processes) -> None:
    await quiet.until("all was ready", partial(quiet.all_ready, processes), 60)


async def names(stack: StackProcess) -> set[str]:
    async with Customer(stack) as owner:
        answer = await owner.http.get("/v1/apps")
        assert answer.status_code == 200, answer.text
        return {app["name"] for app in answer.json()["apps"]}


async def stopped_and_started(stack: StackProcess, *changes: partial[None]) -> None:
    await asyncio.to_thread(stack.stop)
    for change in changes:
        await asyncio.to_thread(change)
    await asyncio.to_thread(stack.start)


@pytest.mark.timeout(300)
async def test_a_database_from_an_older_backup_is_refused_until_it_is_replaced_or_the_rest_is_given_up(
    stack: StackProcess,
) -> None:
    processes = Processes(stack.home)
    async with Customer(stack) as owner:
        kept, secret = await owner.register("Kept")
        assert (await owner.call(kept, secret)).status_code == 200
        await owner.wait_used(kept, 1, 10)
    await stopped_and_started(stack, partial(shutil.copytree, stack.home / "postgres", stack.home / "older"))
    async with Customer(stack) as owner:
        lost, lost_secret = await owner.register("Lost")
        for key in ((kept, secret), (lost, lost_secret)):
            assert (await owner.call(*key)).status_code == 200
        await owner.wait_used(lost, 1, 10)
    older = partial(put_back, stack, "older", "postgres")
    await stopped_and_started(stack, partial(shutil.copytree, stack.home / "postgres", stack.home / "newer"), older)
    why = await says(processes, "registry", "restored from an older copy than NATS", "Restore the newer copy of the database")
    assert "relay of REGISTRY: The stream REGISTRY ends at" in stack.output()
    assert "registry is not ready, the others are not kept waiting" in stack.output()
    async with Customer(stack) as owner:
        assert (await owner.call(kept, secret)).status_code == 200, "calls go on meanwhile"

    assert "delete the stream REGISTRY and the KV buckets of registry" in why

    # The first way out: the newer copy.
    newer = partial(put_back, stack, "newer", "postgres")
    await stopped_and_started(stack, *(partial(put_back, stack, name, f"as-{name}") for name in ("postgres", "jetstream")), newer)
    await whole(processes)
    assert {"Kept", "Lost"} <= await names(stack)

    # The second: what the copy does not hold is given up. Which streams, the text says.
    back = [partial(put_back, stack, f"as-{name}", name) for name in ("postgres", "jetstream")]
    await stopped_and_started(stack, *back, partial(delete_streams, stack, "REGISTRY", "KV_apps"))
    await says(processes, "metering", "--rebuild")
    assert "read again" in await rebuilds.rebuild(stack.home, "metering")
    await whole(processes)
    assert "Lost" not in await names(stack)
    async with Customer(stack) as owner:
        assert (await owner.call(lost, lost_secret)).status_code == 401
        new, new_secret = await owner.register("New")
        assert (await owner.call(new, new_secret)).status_code == 200
        await owner.wait_used(new, 1, 10)
        used = await owner.used(kept)
        assert used == 3, "every call of what was kept is counted, also from after the backup"


@pytest.mark.timeout(300)
async def test_a_usage_stream_from_an_older_backup_is_refused_until_it_is_replaced_or_begun_anew(stack: StackProcess) -> None:
    processes = Processes(stack.home)
    async with Customer(stack) as owner:
        client_id, secret = await owner.register("Caller")
        assert (await owner.call(client_id, secret)).status_code == 200
        await owner.wait_used(client_id, 1, 10)
    await stopped_and_started(stack, partial(shutil.copytree, stack.home / "jetstream", stack.home / "older"))
    async with Customer(stack) as owner:
        await owner.register("Later")
        for _ in range(4):
            assert (await owner.call(client_id, secret)).status_code == 200
        await owner.wait_used(client_id, 5, 10)
    older = partial(put_back, stack, "older", "jetstream")
    await stopped_and_started(stack, partial(shutil.copytree, stack.home / "jetstream", stack.home / "newer"), older)
    refused = (
        "The stream USAGE ends at",
        "NATS was restored from an older copy than this database",
        "begins again above what was counted",
    )
    await says(processes, "metering", *refused)
    assert "NATS was restored from an older copy" in stack.output()
    async with Customer(stack) as owner:
        assert await owner.used(client_id) == 5, "what was counted stays counted"
        assert "Later" in await names(stack), "a log's stream is simply continued"

    await stopped_and_started(stack, partial(put_back, stack, "newer", "jetstream"))
    await whole(processes)

    await stopped_and_started(stack, older, partial(delete_streams, stack, "USAGE"))
    await whole(processes)
    async with Customer(stack) as owner:
        assert await owner.used(client_id) == 5
        assert (await owner.call(client_id, secret)).status_code == 200
        await owner.wait_used(client_id, 6, 10)
