"""A tiny deciding service of the tests' own: accounts of pebbles. It exercises the event log without knowing any real service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from deploy.servers.roles import ServiceDsn
from shared.clock import Clock, SystemClock
from shared.commands.base import Command, Reply
from shared.errors import Conflict
from shared.eventlog.changes import Change
from shared.eventlog.decision import Decision
from shared.eventlog.log import EventLog, Head, Placed
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.codec import Codec, Event
from shared.postgres import Connection, Pool
from tests.support.servers import PostgresDatabase

ROOT = Path(__file__).parents[2]
EVENT_LOG_MIGRATIONS = ROOT / "shared" / "eventlog" / "migrations"
VAULT_KEY = SecretStr("00" * 32)


class PebblesAdded(Event, frozen=True, kw_only=True):
    bowl: str
    count: int


class PebblesTaken(Event, frozen=True, kw_only=True):
    bowl: str
    count: int


LedgerEvent = PebblesAdded | PebblesTaken
CODEC: Codec[LedgerEvent] = Codec("ledger", LedgerEvent)


class Add(Command):
    bowl: str
    count: int


class Split(Command):
    """Pebbles for a bowl, of which some begin another."""

    bowl: str
    count: int
    begun: str


class Take(Command):
    bowl: str
    count: int
    note: str = ""


class Bowl(Reply):
    bowl: str
    count: int
    all_bowls: int = 0
    note: str = ""


def evolve(state: int, event: LedgerEvent) -> int:
    match event:
        case PebblesAdded(count=count):
            return state + count
        case PebblesTaken(count=count):
            return state - count


def project(recorded: Placed, event: LedgerEvent) -> list[Change]:
    sign = 1 if isinstance(event, PebblesAdded) else -1
    return [
        Change(
            "INSERT INTO bowl (bowl, count, position) VALUES ($1, $2, $3) ON CONFLICT (bowl)"
            " DO UPDATE SET count = bowl.count + excluded.count, position = excluded.position",
            (event.bowl, sign * event.count, recorded.position),
        )
    ]


async def all_pebbles(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT coalesce(sum(count), 0) FROM bowl"))


def decide_add(command: Add) -> Callable[[int, int], Decision[LedgerEvent, Bowl]]:
    def decide(state: int, everywhere: int) -> Decision[LedgerEvent, Bowl]:
        if command.count < 0:
            raise Conflict("no negative pebbles")
        events = [PebblesAdded(bowl=command.bowl, count=command.count)] if command.count else []
        return Decision(events, Bowl(bowl=command.bowl, count=state + command.count, all_bowls=everywhere + command.count))

    return decide


def decide_split(command: Split) -> Callable[[int, int], Decision[LedgerEvent, Bowl]]:
    def decide(state: int, everywhere: int) -> Decision[LedgerEvent, Bowl]:
        begun = PebblesAdded(bowl=command.begun, count=3)
        added = PebblesAdded(bowl=command.bowl, count=command.count)
        reply = Bowl(bowl=command.bowl, count=state + command.count, all_bowls=everywhere + command.count + 3)
        return Decision([added], reply, begins={f"bowl/{command.begun}": [begun]})

    return decide


def decide_take(command: Take) -> Callable[[int, None], Decision[LedgerEvent, Bowl]]:
    def decide(state: int, _: None) -> Decision[LedgerEvent, Bowl]:
        if state < command.count:
            raise Conflict("not so many pebbles")
        events = [PebblesTaken(bowl=command.bowl, count=command.count)]
        reply = Bowl(bowl=command.bowl, count=state - command.count, note=command.note)
        if not command.note:
            return Decision(events, reply)
        return Decision(
            events, reply, seal={f"note:{command.command_id}": command.note.encode()}, reveals=f"note:{command.command_id}"
        )

    return decide


class Ledger:
    """The composition root that a service's app.py would be."""

    def __init__(self, pool: Pool, clock: Clock | None = None, guard: Callable[[Head], None] = lambda _: None) -> None:
        self.pool = pool
        self.wakes = 0
        self.log = EventLog(CODEC, clock or SystemClock())
        self.log.guard = guard
        self.vault = Vault(VAULT_KEY)
        self.transactor = Transactor(pool, self.log, self.vault, project, clock or SystemClock(), self._woken)

    def _woken(self) -> None:
        self.wakes += 1

    async def add(self, command_id: str, count: int, bowl: str = "blue", account: str = "acme") -> Bowl:
        command = Add(command_id=command_id, account=account, actor="test", bowl=bowl, count=count)
        return await self.transactor.run(command, f"bowl/{bowl}", 0, evolve, decide_add(command), Bowl, all_pebbles)

    async def split(self, command_id: str, count: int, begun: str) -> Bowl:
        command = Split(command_id=command_id, account="acme", actor="test", bowl="blue", count=count, begun=begun)
        return await self.transactor.run(command, "bowl/blue", 0, evolve, decide_split(command), Bowl, all_pebbles)

    async def take(self, command_id: str, count: int, bowl: str = "blue", note: str = "") -> Bowl:
        command = Take(command_id=command_id, account="acme", actor="test", bowl=bowl, count=count, note=note)
        return await self.transactor.run(command, f"bowl/{bowl}", 0, evolve, decide_take(command), Bowl)


async def ledger_schema(database: PostgresDatabase) -> ServiceDsn:
    """The ledger's schema, roles and read table."""
    import asyncpg

    dsn = await database.service_schema("ledger", [EVENT_LOG_MIGRATIONS])
    owner = await asyncpg.connect(dsn.owner_dsn)
    await owner.execute(
        "SET search_path = ledger; CREATE TABLE bowl (bowl text PRIMARY KEY, count bigint NOT NULL CHECK (count < 1000000),"
        " position bigint NOT NULL); GRANT SELECT, INSERT, UPDATE, DELETE ON bowl TO ledger"
    )
    await owner.close()
    return dsn
