"""Limits, counting and evaluators on a real PostgreSQL, step by step, without the processes around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.metering.directory import Directory
from services.metering.evaluation import Evaluator
from services.metering.ingest import Ingest
from services.metering.limit_handlers import LimitHandlers
from services.metering.metrics import Metrics
from services.metering.projection import project
from services.metering.schedules import carry_out
from services.metering.serving import Started
from shared.catalog import load_catalog
from shared.clock import FixedClock
from shared.commands.limits import AccountLimitView, LimitsView, SetAccountLimit, SetLimits
from shared.eventlog.log import EventLog, Recorded
from shared.eventlog.transact import Transactor
from shared.eventlog.vault import Vault
from shared.events.metering import CODEC, MeteringEvent, QuotaExhausted, ThresholdCrossed
from shared.events.usage import MSGPACK, UsageBatch, UsageRecord
from shared.ids import new_id
from shared.postgres import Pool
from shared.streams.message import Message
from shared.windows import to_us

ROOT = Path(__file__).parents[2]
CATALOG: Final = load_catalog(ROOT / "deploy" / "catalog.yaml")
NOON: Final = datetime(2026, 11, 22, 3, tzinfo=UTC)
"""Noon in Seoul, on the 22nd of a month."""
A, B, N = "a" * 20, "b" * 20, "n" * 20
VAULT_KEY: Final = SecretStr("00" * 32)

Told = tuple[str, str, str, datetime, int, int]
"""(client_id, service, period, window start, version, percent)"""


def _no_nats() -> Client:
    raise AssertionError("nothing here needs NATS")


class Limiting:
    """Two applications (A, B) of the account `acme` in Seoul, one (N) of `globex` in New York, and a clock that stands."""

    def __init__(self, pool: Pool, now: datetime = NOON) -> None:
        self.pool = pool
        self.clock = FixedClock(now)
        self.log: EventLog[MeteringEvent] = EventLog(CODEC, self.clock)
        self.directory = Directory(_no_nats, self.clock)
        self.transactor = Transactor(pool, self.log, Vault(VAULT_KEY), project, self.clock)
        self.handlers = LimitHandlers(CATALOG, self.clock)
        self.handlers.start(Started(pool, self.directory, self.transactor))
        self.evaluator = self.another_evaluator()
        self._ingest = Ingest(CATALOG, self.directory, _no_nats, Metrics(CollectorRegistry()))
        self._publisher = new_id()
        self._sequence = 0

    def another_evaluator(self) -> Evaluator:
        """One that remembers nothing."""
        return Evaluator(self.pool, self.log, self.clock)

    async def begin(self) -> Limiting:
        """The accounts and applications, as if the registry had told them."""
        async with self.pool.acquire() as connection:
            await connection.execute("INSERT INTO account VALUES ('acme', 'Asia/Seoul'), ('globex', 'America/New_York')")
            await connection.executemany(
                "INSERT INTO app (client_id, account, services, test_services, registered_at, position)"
                " VALUES ($1, $2, $3, $4, $5, $6)",
                [
                    (A, "acme", ["csr", "clova-studio"], ["clova-studio"], NOON, 1),
                    (B, "acme", ["csr"], [], NOON, 2),
                    (N, "globex", ["csr"], [], NOON, 3),
                ],
            )
        return self

    async def set(self, client_id: str = A, service: str = "csr", account: str = "acme", **fields: Any) -> LimitsView:
        """SetLimits."""
        given = {"command_id": new_id(), "actor": "token:t1", **fields}
        return await self.handlers.set_limits(SetLimits(account=account, client_id=client_id, service=service, **given))

    async def set_account(self, account: str = "acme", service: str = "csr", **fields: Any) -> AccountLimitView:
        """SetAccountLimit."""
        given = {"command_id": new_id(), "actor": "token:t1", **fields}
        return await self.handlers.set_account_limit(SetAccountLimit(account=account, service=service, **given))

    def message(self, records: Sequence[UsageRecord], recorded_at: datetime | None = None) -> Message:
        """The next message of USAGE: a batch of this one's own publisher."""
        self._sequence += 1
        batch = UsageBatch(publisher=self._publisher, seq=self._sequence, records=list(records))
        headers, data = {"content-type": MSGPACK}, msgspec.msgpack.encode(batch)
        return Message("USAGE", "usage.records.0", self._sequence, headers, data, recorded_at or self.clock.now())

    async def count(self, *records: UsageRecord, recorded_at: datetime | None = None) -> None:
        """Count them as one transaction."""
        async with self.pool.acquire() as connection, connection.transaction():
            await self._ingest.handle(connection, [self.message(records, recorded_at)])

    async def use(self, units: int, client_id: str = A, at: datetime | None = None, recorded_at: datetime | None = None) -> None:
        """Count one record of `units`."""
        record = UsageRecord(client_id, "csr", to_us(at or self.clock.now()), units)
        await self.count(record, recorded_at=recorded_at)

    async def handle(self, connection: Any, records: Sequence[UsageRecord]) -> None:
        """Count them in a transaction that the caller has begun and ends."""
        await self._ingest.handle(connection, [self.message(records)])

    async def evaluate(self) -> None:
        """A round of the evaluator that looks at accounts' limits, too."""
        self.clock.advance(1)
        await self.evaluator.round()

    async def due(self) -> int:
        """Carry out what is due."""
        async with self.pool.acquire() as connection:
            return await carry_out(connection, self.log, self.clock.now())

    async def recorded(self) -> list[Recorded]:
        """The whole log."""
        async with self.pool.acquire() as connection:
            return [event async for page in self.log.pages(connection) for event in page]

    async def events(self) -> list[MeteringEvent]:
        """The whole log, as events."""
        return [self.log.decode(event) for event in await self.recorded()]

    async def crossings(self) -> list[ThresholdCrossed]:
        return [event for event in await self.events() if isinstance(event, ThresholdCrossed)]

    async def exhaustions(self) -> list[QuotaExhausted]:
        return [event for event in await self.events() if isinstance(event, QuotaExhausted)]

    async def told(self) -> list[Told]:
        """What was told, in the order of the log."""
        return [told_of(event) for event in await self.crossings()]

    async def percents(self, period: str = "daily", client_id: str = A) -> list[int]:
        """What was told of the scope, in the order of the log."""
        return [event.percent for event in await self.crossings() if (event.period, event.client_id) == (period, client_id)]

    async def marks(self) -> int:
        async with self.pool.acquire() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM limit_mark"))


def told_of(event: ThresholdCrossed) -> Told:
    return event.client_id, event.service, event.period, event.window_start, event.limit_version, event.percent


def record(client_id: str, us: int, units: int = 1) -> UsageRecord:
    return UsageRecord(client_id, "csr", us, units)


def in_order(told: Iterable[Told]) -> bool:
    """Whether the percentages of each window and version came in ascending order, each once."""
    last: dict[tuple[object, ...], int] = {}
    for *window, percent in told:
        if last.get(tuple(window), 0) >= percent:
            return False
        last[tuple(window)] = percent
    return True
