"""A service of somebody else's that follows the events, as docs/how-to/follow-the-events.md shows it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from tests.support.crashes import until
from tests.support.pages import Programs
from tests.support.stack import Customer, StackProcess

PAGE = "follow-the-events.md"


class Follower:
    """The page's program, started and killed at will, and its database."""

    def __init__(self, programs: Programs, stack: StackProcess, database: Path) -> None:
        self.printed: list[tuple[int, str]] = []
        self._programs, self._database, self._account = programs, database, str(stack.ready["account"])
        self._told = {
            "NATS_URL": stack.ready["nats_url"],
            "NATS_SEED_FILE": str(stack.home / "secrets" / "nats-follower"),
            "DATABASE": str(database),
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *self._programs.command(PAGE, "python"),
            env=self._programs.environment(self._told),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        reading = asyncio.create_task(self._read(process))
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := (await process.stdout.readline()).decode().split():
            self.printed.append((int(line[0]), line[1]))

    def names(self) -> dict[str, str]:
        """What it knows of the stack's own account: names by Client ID."""
        with closing(sqlite3.connect(self._database)) as database:
            if not database.execute("SELECT name FROM sqlite_master WHERE name = 'app'").fetchone():
                return {}  # it has only just begun
            return dict(database.execute("SELECT client_id, name FROM app WHERE account = ?", (self._account,)))

    def change(self, statement: str) -> None:
        with closing(sqlite3.connect(self._database)) as database, database:
            database.execute(statement)

    async def knows(self, owner: Customer) -> None:
        """Wait until it knows exactly the applications that there are."""

        async def the_same() -> bool:
            listed = (await owner.http.get("/v1/apps", params={"limit": 100})).json()
            assert not listed.get("next_cursor")
            return self._database.exists() and self.names() == {app["client_id"]: app["name"] for app in listed["apps"]}

        await until(the_same, "the follower to know what there is")


async def test_a_follower_that_is_killed_again_and_again_knows_what_there_is(
    programs: Programs, stack: StackProcess, owner: Customer, tmp_path: Path
) -> None:
    follower = Follower(programs, stack, tmp_path / "follower.db")
    for turn in range(3):
        kept, _ = await owner.register(f"Followed {turn}")
        async with follower.running():
            await follower.knows(owner)
            gone, _ = await owner.register(f"Gone {turn}")
            edited = await owner.http.patch(f"/v1/apps/{kept}", json={"name": f"Renamed {turn}"})
            assert edited.status_code == 200, edited.text
            await follower.knows(owner)
            assert follower.names()[kept] == f"Renamed {turn}"
        assert (await owner.http.delete(f"/v1/apps/{gone}")).status_code == 204  # while nobody follows
    async with follower.running():
        await follower.knows(owner)
    sequences = [sequence for sequence, _ in follower.printed]
    assert sequences == list(range(1, len(sequences) + 1)), "each event once, from the first on"
    assert {"tollbook.registry.AppEdited.v1", "tollbook.registry.AppDeleted.v1"} <= {type_ for _, type_ in follower.printed}


async def test_a_follower_refuses_another_history_than_the_one_it_read(
    programs: Programs, stack: StackProcess, owner: Customer, tmp_path: Path
) -> None:
    follower = Follower(programs, stack, tmp_path / "follower.db")
    async with follower.running():
        await follower.knows(owner)
    follower.change("UPDATE checkpoint SET hash = 'of another history'")
    async with follower.running() as process:
        assert process.stderr is not None
        said = (await asyncio.wait_for(process.stderr.read(), 20)).decode()
        assert "REGISTRY has another history than the one that was read" in said
        assert await asyncio.wait_for(process.wait(), 20) == 1
