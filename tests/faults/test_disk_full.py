"""The whole stack on disks that run full, first NATS's, then PostgreSQL's: nothing acknowledged is lost, errors say what is
wrong, and once there is room everything goes on without anybody starting anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.calling import BACK_WITHIN_S, Calling, until_answering
from tests.support.small_disk import MEGABYTE, SmallDisks
from tests.support.stack import Customer, StackProcess

HOME_MB, JETSTREAM_MB = 640, 64
ROOM = 48 * MEGABYTE
pytestmark = [pytest.mark.timeout(120)]


class Stage:
    """A stack on two small disks."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.jetstream = home / "jetstream"
        self.disks = SmallDisks({home: HOME_MB, self.jetstream: JETSTREAM_MB})
        self.stack = StackProcess(home, before=self.disks.inside, seen_at=self.disks.seen_from_outside(home))

    async def gate_says(self) -> str:
        """Why the gate is not ready; empty when it is."""
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = (await http.get(f"{self.stack.ready['gate_url']}/readyz", timeout=10)).json()
        return "; ".join(part["detail"] for part in answer["parts"].values() if not part["ready"])


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One stack for both tests: after the first it must be as good as new anyway."""
    stage = Stage(tmp_path_factory.mktemp("full") / "home")
    try:
        stage.stack.start()
        yield stage
    finally:
        if stage.stack.process is not None:
            stage.stack.stop()
        stage.disks.close()


@pytest.fixture
async def owner(stage: Stage) -> AsyncIterator[Customer]:
    async with Customer(stage.stack) as customer:
        yield customer


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(BACK_WITHIN_S):
            while not await condition():  # noqa: ASYNC110 - the condition is asked of servers
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


async def test_the_disk_of_nats_is_full_for_a_while(stage: Stage, owner: Customer) -> None:
    client_id, secret = await owner.register("Before")
    calling = Calling(owner, client_id, secret)
    await calling.until_passing()
    stage.disks.leave(stage.jetstream, 16 * 1024)

    async def refused() -> bool:
        return calling.answers[503] > 20

    await until(refused, f"calls to be refused: {calling.answers}")

    async def said() -> bool:
        return "usage cannot be recorded: the USAGE stream did not acknowledge" in await stage.gate_says()

    await until(said, "the gate to say why")
    assert "no space left on device" in stage.stack.output()
    registered = await owner.http.post("/v1/apps", json=app("Meanwhile"))
    assert registered.status_code == 201, "a command needs no room in JetStream: the log is in PostgreSQL"

    stage.disks.leave(stage.jetstream, ROOM)
    await calling.until_passing()
    await _calls_of(owner, registered.json())
    answers = await calling.stop()
    assert set(answers) == {200, 503}, answers
    assert "nats cannot go on as it is: killed, to start anew" in stage.stack.output()
    await owner.wait_used(client_id, answers[200], BACK_WITHIN_S)


async def test_the_disk_of_postgresql_is_full_for_a_while(stage: Stage, owner: Customer) -> None:
    client_id, secret = await owner.register("Before")
    calling = Calling(owner, client_id, secret)
    await calling.until_passing()
    stage.disks.leave(stage.home, 16 * 1024)
    await exhaust_wal(stage.stack.ready["postgres_dsn"])

    accepted, refusals = {"Before"}, []
    while len(refusals) < 3:
        name = f"Meanwhile {len(accepted) + len(refusals)}"
        answer = await owner.http.post("/v1/apps", json=app(name))
        if answer.status_code == 201:
            accepted.add(name)
        else:
            refusals.append(answer.json())
            assert answer.status_code == 503, answer.text
    assert all(refusal["detail"] for refusal in refusals), refusals
    await calling.until_passing()
    assert "PANIC:  could not write" in stage.stack.output()
    assert "No space left on device" in stage.stack.output()

    stage.disks.leave(stage.home, ROOM)
    await until_answering(owner)

    async def commands_again() -> bool:
        return (await owner.http.post("/v1/apps", json=app("After"))).status_code == 201

    await until(commands_again, "commands to be accepted")
    answers = await calling.stop()
    assert set(answers) == {200}, "calls pass without PostgreSQL"
    await owner.wait_used(client_id, answers[200], BACK_WITHIN_S)
    listed = (await owner.http.get("/v1/apps", params={"limit": 100})).json()
    assert accepted | {"After"} <= {item["name"] for item in listed["apps"]}, listed


def app(name: str) -> dict[str, Any]:
    return {"name": name, "services": ["csr"], "environments": {"android": ["com.example.recorder"]}}


async def _calls_of(owner: Customer, issued: dict[str, str]) -> None:
    """The gate learns of the application, through the stream that could not be written to."""
    deadline = asyncio.get_running_loop().time() + BACK_WITHIN_S
    while (await owner.call(issued["client_id"], issued["client_secret"])).status_code != 200:
        assert asyncio.get_running_loop().time() < deadline, "the registry's stream does not go on"
        await asyncio.sleep(0.1)
    await owner.wait_used(issued["client_id"], 1, BACK_WITHIN_S)


async def exhaust_wal(dsn: str) -> None:
    """Have PostgreSQL want new WAL files until it gives up: a log that cannot grow is a panic."""
    connection: asyncpg.Connection[asyncpg.Record] | None = None
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
        for _ in range(20):
            await connection.execute("SELECT pg_logical_emit_message(false, 'fill', 'x'), pg_switch_wal()", timeout=10)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        return
    finally:
        if connection is not None:
            connection.terminate()
    raise AssertionError("PostgreSQL found room for 20 more WAL files")
