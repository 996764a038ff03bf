"""Metering as a process of its own on a real NATS and PostgreSQL, and those who feed it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import msgspec
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.metering import GetUsage, Usage
from shared.commands.requester import ask
from shared.errors import Unavailable
from shared.events.codec import Codec, Event
from shared.events.registry import (
    CODEC,
    AccountOpened,
    AppDeleted,
    AppEdited,
    AppRegistered,
    Environments,
    SecretIssued,
    SelectedService,
    Tier,
)
from shared.events.usage import MSGPACK, RECORDS_SUBJECT, UsageBatch, UsageRecord, partition_of
from shared.streams.cloudevents import cloudevent_headers
from shared.streams.declare import ensure_stream, log_stream
from shared.streams.publish import Outgoing, publish_batch
from shared.windows import to_us
from tests.support.service_process import RunningService

PARTITIONS: Final = 4
VAULT_KEY: Final = "b6" * 32
LOOK_S: Final = 0.05
T = TypeVar("T")


class MeteringProcess(RunningService):
    """A worker of metering; `name` is its name among them."""

    service = "metering"

    def __init__(self, nats_url: str, dsn: ServiceDsn, folder: Path, name: str = "one", **settings: str) -> None:
        told = {"TOLLBOOK_PARTITIONS": str(PARTITIONS), "TOLLBOOK_VAULT_KEY": VAULT_KEY, "TOLLBOOK_WORKER": name}
        super().__init__(nats_url, dsn, folder, name, **{**told, "TOLLBOOK_LOG_LEVEL": "INFO", **settings})

    def is_up(self, readiness: dict[str, Any]) -> bool:
        """It is ready, and follows something."""
        return super().is_up(readiness) and bool(_followed(readiness))

    async def follows(self) -> set[str]:
        """The subjects of USAGE that this worker counts."""
        return _followed(await self.readiness())


def _followed(readiness: dict[str, Any]) -> set[str]:
    return {label.removeprefix("USAGE ") for label in readiness["parts"]["usage"]["lag"]}


class LogFeed:
    """Publishes another service's events as its relay would. Another `history`: the log of which went another
    way `after` that position."""

    def __init__(self, nc: Client, codec: Codec[Any], history: int = 0, after: int = 0) -> None:
        self._nc = nc
        self._codec = codec
        self._history = history
        self._position = after

    async def publish(self, *events: Event) -> None:
        for event in events:
            await self.send(type(event).__name__, self._codec.encode(event))

    async def send(self, name: str, data: bytes, schema: int = 1) -> None:
        """One message; `data` may be nothing that the event could be."""
        await ensure_stream(self._nc, log_stream(self._codec.service))
        outgoing = self._next(name, data, schema)
        await publish_batch(self._nc, [outgoing], expected_last_sequence=self._position - 1)

    async def flood(self, events: Sequence[Event]) -> None:
        """Many events, as fast as it goes."""
        await ensure_stream(self._nc, log_stream(self._codec.service))
        waiting = [self._next(type(event).__name__, self._codec.encode(event), 1) for event in events]
        for start in range(0, len(waiting), 500):
            await publish_batch(self._nc, waiting[start : start + 500], expected_last_sequence=None)

    def _next(self, name: str, data: bytes, schema: int) -> Outgoing:
        service = self._codec.service
        self._position += 1
        headers = cloudevent_headers(
            id_=f"{service}-{self._position}",
            source=f"/tollbook/{service}",
            type_=self._codec.ce_type(name, schema),
            time=datetime.now(UTC),
            extensions={"hash": f"{self._history:032x}{self._position:032x}"},
        )
        return Outgoing(f"{service}.events.{name}", data, headers)


class RegistryFeed(LogFeed):
    """Publishes the registry's events."""

    def __init__(self, nc: Client) -> None:
        super().__init__(nc, CODEC)

    async def open_account(self, account: str = "acme", zone: str = "Asia/Seoul") -> None:
        await self.publish(AccountOpened(account=account, zone=zone))

    async def register(
        self, client_id: str, account: str = "acme", services: Sequence[str] = ("csr",), tier: Tier = "live"
    ) -> None:
        await self.publish(
            AppRegistered(
                account=account,
                client_id=client_id,
                name="speech",
                services=tuple(SelectedService(service, tier) for service in services),
                environments=Environments(),
                secret=SecretIssued("s1", "00" * 32),
            )
        )

    async def edit(self, client_id: str, services: Sequence[str], account: str = "acme") -> None:
        selected = tuple(SelectedService(service) for service in services)
        await self.publish(
            AppEdited(account=account, client_id=client_id, name="speech", services=selected, environments=Environments())
        )

    async def delete(self, client_id: str, account: str = "acme") -> None:
        await self.publish(AppDeleted(account=account, client_id=client_id))


class Meter:
    """One publisher of batches."""

    def __init__(self, nc: Client, publisher: str = "gate-1", partitions: int = PARTITIONS) -> None:
        self._nc = nc
        self._publisher = publisher
        self._partitions = partitions
        self._seqs = [0] * partitions

    def batch(self, records: Sequence[UsageRecord], *, retracted: bool = False, again: bool = False) -> Outgoing:
        """The message with these records, all of one partition; the last one once more if it is `retracted` or `again`."""
        partition = partition_of(records[0].client_id, self._partitions)
        if not retracted and not again:
            self._seqs[partition] += 1
        content = UsageBatch(publisher=self._publisher, seq=self._seqs[partition], records=list(records), retracted=retracted)
        return Outgoing(f"{RECORDS_SUBJECT}.{partition}", msgspec.msgpack.encode(content), {"Content-Type": MSGPACK})

    async def count(self, *records: UsageRecord, retracted: bool = False, again: bool = False) -> int:
        """Publish them in one batch; its sequence in USAGE."""
        return await self.send(self.batch(records, retracted=retracted, again=again))

    async def send(self, outgoing: Outgoing) -> int:
        """Publish a message; its sequence."""
        return await publish_batch(self._nc, [outgoing], expected_last_sequence=None)


async def eventually(look: Callable[[], Awaitable[T]], wanted: T, output: Callable[[], str] = str, timeout_s: float = 30) -> None:
    """Look until it is as wanted."""
    found: object = "nothing"
    for _ in range(int(timeout_s / LOOK_S)):
        found = await look()
        if found == wanted:
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError(f"wanted {wanted!r}, found {found!r}\n{output()}")


async def usage(nc: Client, client_id: str, service: str = "csr", account: str = "acme", **fields: Any) -> Usage:
    """Ask for usage; an answer that a busy machine delays is asked for again."""
    query = GetUsage(account=account, client_id=client_id, service=service, **fields)
    for _ in range(5):
        try:
            return await ask(nc, "metering", query, Usage, timeout_s=10)
        except Unavailable:
            await asyncio.sleep(0.5)
    return await ask(nc, "metering", query, Usage, timeout_s=10)


async def used(nc: Client, client_id: str, service: str = "csr", account: str = "acme", **fields: Any) -> int:
    """Units used in the window that is open now."""
    return (await usage(nc, client_id, service, account, **fields)).used


async def rows(dsn: ServiceDsn, query: str, *args: object) -> list[tuple[Any, ...]]:
    """Rows of metering's schema."""
    connection = await asyncpg.connect(dsn.owner_dsn)
    try:
        await connection.execute("SET search_path = metering")
        return [tuple(row) for row in await connection.fetch(query, *args)]
    finally:
        await connection.close()


async def dead_letters(nc: Client) -> list[tuple[dict[str, str], bytes]]:
    """Headers and data of every dead letter, in order."""
    js = nc.jetstream()
    count = (await js.stream_info("DEADLETTER")).state.messages
    found = [await js.get_msg("DEADLETTER", sequence) for sequence in range(1, count + 1)]
    return [(dict(message.headers or {}), message.data or b"") for message in found]


def now_us() -> int:
    return to_us(datetime.now(UTC))
