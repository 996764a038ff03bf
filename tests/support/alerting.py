"""Alerts in the test's own process, on a real PostgreSQL: contacts and rules from events, crossings, workers, and its log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from services.alerts.appending import append
from services.alerts.asking import Asking
from services.alerts.cards import Card, addresses, encode_card
from services.alerts.channels.breaker import Breaker
from services.alerts.contacts import contact_stream
from services.alerts.links import Links
from services.alerts.messages import Channel
from services.alerts.metrics import DeliveryMetrics
from services.alerts.rendering import Renderer
from services.alerts.sending import Sender, Way
from services.alerts.settling import Recorder
from services.alerts.worker import Limits, Worker
from shared.catalog import load_catalog
from shared.clock import Clock
from shared.eventlog.log import Entry, EventLog, Meta
from shared.eventlog.vault import Vault
from shared.events import metering
from shared.events.alerts import (
    CODEC,
    AlertsEvent,
    ContactAdded,
    ContactVerified,
    Method,
    NotificationDelivered,
    NotificationFailed,
    NotificationRuleChanged,
    QuietHours,
    Recipient,
    RecipientsChanged,
)
from shared.events.codec import Codec, Event
from shared.events.metering import MeteringEvent, QuotaExhausted, ThresholdCrossed
from shared.ids import new_id
from shared.postgres import Pool
from shared.streams.message import Message
from tests.support.alerts_process import VAULT_KEY
from tests.support.crashes import killed, until

ROOT: Final = Path(__file__).parents[2]
METHODS: Final[tuple[Method, ...]] = ("email", "sms", "webhook")
LIMIT_S: Final = 2.0
APP: Final = "a" * 20
CATALOG: Final = load_catalog(ROOT / "deploy" / "catalog.yaml")


def crossing(
    percent: int,
    window_start: datetime,
    *,
    client_id: str = APP,
    account: str = "acme",
    version: int = 1,
    length: timedelta = timedelta(days=1),
) -> ThresholdCrossed:
    """Of the daily limit at `csr`, of 1,000 units."""
    return ThresholdCrossed(
        account=account,
        client_id=client_id,
        service="csr",
        period="daily",
        window_start=window_start,
        window_end=window_start + length,
        percent=percent,
        used=10 * percent,
        limit=1000,
        limit_version=version,
    )


def exhausted(window_start: datetime, *, client_id: str = APP, account: str = "acme", version: int = 1) -> QuotaExhausted:
    """The first refusal under that limit."""
    return QuotaExhausted(
        account=account,
        client_id=client_id,
        service="csr",
        period="daily",
        window_start=window_start,
        window_end=window_start + timedelta(days=1),
        used=1000,
        limit=1000,
        limit_version=version,
    )


def messages(*events: MeteringEvent, start: int = 1) -> list[Message]:
    """As metering's stream has them."""
    found = []
    for sequence, event in enumerate(events, start):
        name = type(event).__name__
        headers = {"ce-type": metering.CODEC.ce_type(name, 1), "ce-time": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
        data = metering.CODEC.encode(event)
        found.append(Message("METERING", f"metering.events.{name}", sequence, headers, data, datetime.now(UTC)))
    return found


def message(codec: Codec[Any], event: Event, sequence: int, at: datetime) -> Message:
    """As that service's stream has it, recorded at that time."""
    name = type(event).__name__
    headers = {"ce-type": codec.ce_type(name, 1), "ce-time": at.isoformat().replace("+00:00", "Z")}
    return Message(codec.service.upper(), f"{codec.service}.events.{name}", sequence, headers, codec.encode(event), at)


class Alerts:
    """What of alerts is about sending, on a pool of its schema."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self.pool = pool
        self.clock = clock
        self.log = EventLog(CODEC, clock)
        self.vault = Vault(SecretStr(VAULT_KEY))
        self.asking = Asking(self.log, clock, timedelta(hours=24))
        self.breaker = Breaker(clock)
        self.metrics = CollectorRegistry()

    async def append(self, stream: str, version: int, *events: AlertsEvent) -> None:
        """Put events into the log, and project them."""
        async with self.pool.acquire() as connection, connection.transaction():
            entries = [Entry(stream, version + place, [event], Meta()) for place, event in enumerate(events)]
            await append(connection, self.log, await self.log.lock_head(connection), entries)

    async def contact(
        self,
        name: str = "Kim",
        *,
        account: str = "acme",
        verified: bool = True,
        quiet: tuple[str, str] | None = None,
        digest_at: str | None = None,
        **kept: str,
    ) -> str:
        """A contact in Seoul who reads English; with a mail address unless told otherwise. Its id."""
        contact_id, vault_id = new_id(), new_id()
        card = Card(name=name, **(kept or {"email": f"{name.lower()}@example.com"}))
        async with self.pool.acquire() as connection:
            await self.vault.put(connection, vault_id, encode_card(card))
        added = ContactAdded(
            account=account,
            contact_id=contact_id,
            vault_id=vault_id,
            methods=tuple(addresses(card)),
            locale="en",
            zone="Asia/Seoul",
            quiet_hours=None if quiet is None else QuietHours(*quiet),
            digest_at=digest_at,
        )
        proofs = [ContactVerified(account=account, contact_id=contact_id, method=method) for method in added.methods]
        await self.append(contact_stream(contact_id), 0, added, *(proofs if verified else []))
        return contact_id

    async def rule(
        self,
        *recipients: Recipient | str,
        client_id: str = APP,
        account: str = "acme",
        daily: int | None = 10,
        custom: tuple[int, ...] = (),
        service: str = "csr",
    ) -> None:
        """The first rule of a scope; a recipient that is an id is a contact by mail."""
        scope: dict[str, Any] = {"account": account, "client_id": client_id, "service": service, "version": 1}
        named = tuple(one if isinstance(one, Recipient) else Recipient(one, "", ("email",)) for one in recipients)
        changed = NotificationRuleChanged(**scope, daily=daily, monthly=None, daily_custom=custom)
        await self.append(f"rule/{account}/{client_id}/{service}", 0, changed, RecipientsChanged(**scope, recipients=named))

    async def hear(self, *events: MeteringEvent) -> None:
        """What a consumer does with metering's events, in one transaction."""
        async with self.pool.acquire() as connection, connection.transaction():
            await self.asking.of_metering(connection, messages(*events))

    def worker(
        self,
        channels: Mapping[Method, Channel],
        *,
        pool: Pool | None = None,
        at_once: int = 8,
        clock: Clock | None = None,
        limit_s: float = LIMIT_S,
    ) -> Worker:
        """One more worker."""
        own = pool or self.pool
        metrics = DeliveryMetrics(CollectorRegistry())
        clock = clock or self.clock
        ways = {method: Way(channel, limit_s) for method, channel in channels.items()}
        links = Links("https://console.example")
        sender = Sender(ways, Renderer(CATALOG, links), links, self.vault, self.breaker, metrics, clock)
        recorder = Recorder(own, self.log, metrics, clock)
        limits: dict[Method, Limits] = {method: Limits(at_once, limit_s) for method in METHODS}
        return Worker(own, self.vault, sender, recorder, limits, metrics, clock)

    @asynccontextmanager
    async def working(self, channels: Mapping[Method, Channel], **settings: Any) -> AsyncIterator[Worker]:
        """A worker that runs."""
        worker = self.worker(channels, **settings)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            await killed(task)

    async def rows(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        async with self.pool.acquire() as connection:
            return [tuple(row) for row in await connection.fetch(query, *args)]

    async def settled(self) -> None:
        """Wait until nothing waits."""

        async def nothing_waits() -> bool:
            return await self.rows("SELECT FROM notification WHERE state = 'waiting' UNION ALL SELECT FROM message") == []

        await until(nothing_waits, "every request to be settled")

    async def expire_claims(self) -> None:
        """As if time had passed since somebody died."""
        await self.rows(
            "UPDATE message SET claimed_until = clock_timestamp() - interval '1 second' WHERE claimed_until IS NOT NULL"
        )

    async def events(self) -> Sequence[AlertsEvent]:
        """The whole log."""
        async with self.pool.acquire() as connection:
            return [self.log.decode(one) for one in await self.log.read(connection, 0, 100_000)]

    async def fates(self) -> dict[str, list[NotificationDelivered | NotificationFailed]]:
        """What the log says of each request."""
        fates: dict[str, list[NotificationDelivered | NotificationFailed]] = {
            row[0]: [] for row in await self.rows("SELECT request_id FROM notification")
        }
        for event in await self.events():
            if isinstance(event, NotificationDelivered | NotificationFailed):
                fates[event.request_id].append(event)
        return fates

    async def outcomes(self) -> Counter[str]:
        """How many requests were delivered, or failed and why. Each has one fate."""
        fates = await self.fates()
        assert all(len(fate) <= 1 for fate in fates.values())
        said = [one for fate in fates.values() for one in fate]
        return Counter("delivered" if isinstance(one, NotificationDelivered) else one.reason for one in said)
