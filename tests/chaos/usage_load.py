"""Publishers of usage: batches by the gate's protocol, single CloudEvents with repeated ids."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import msgspec
import nats
from nats.aio.client import Client

from shared.clock import SystemClock
from shared.errors import Unavailable
from shared.events.usage import CLOUDEVENTS_SUBJECT, MSGPACK, RECORDS_SUBJECT, UsageBatch, UsageRecord, partition_of
from shared.streams.jetstream import NATS_FAILURES
from shared.streams.publish import Outgoing, publish_batch
from shared.windows import to_us
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Pace

PARTITIONS: Final = 16
BATCH_MAX: Final = 200
ACK_S: Final = 2.0
RETRY_S: Final = 0.2
SERVICES: Final = ("csr", "papago-nmt")
DAY_US: Final = 86_400_000_000
FATE_UNKNOWN: Final = (Unavailable, *NATS_FAILURES)


async def connect(url: str, user: str, seed: str) -> Client:
    """As one of the stack's NATS users; reconnects for ever, in silence."""

    async def quiet(_: Exception) -> None:
        pass

    return await nats.connect(
        url,
        nkeys_seed_str=seed,
        inbox_prefix=f"_INBOX_{user}".encode(),
        error_cb=quiet,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        ping_interval=2,
        max_outstanding_pings=2,
    )


class BatchPublisher:
    """Counts `records` calls of the applications, in batches, as services.gate.commit does: one on its way at a time, taken
    back when its fate is unknown. Now and then it repeats a batch, and now and then it starts again under another name."""

    def __init__(self, nc: Client, name: str, seed: int, apps: Sequence[str], ledger: Ledger, pace: Pace) -> None:
        self._nc = nc
        self._name = name
        self._random = Random(f"{seed} {name}")
        self._apps = apps
        self._ledger = ledger
        self._pace = pace
        self._clock = SystemClock()
        self._starts = 0
        self._seq = 0

    async def run(self, records: int) -> None:
        """Returns when every record was acknowledged or taken back, and enough of them acknowledged."""
        done = 0
        while done < records:
            await self._pace.turn(done / records)
            if self._starts == 0 or self._random.random() < 0.01:
                self._starts, self._seq = self._starts + 1, 0
            done += await self._publish(min(records - done, self._random.randint(1, BATCH_MAX)))

    async def _publish(self, size: int) -> int:
        """How many records were acknowledged: all of the batch or none."""
        self._seq += 1
        batch = UsageBatch(publisher=self._publisher(), seq=self._seq, records=[self._record() for _ in range(size)])
        try:
            await self._send(batch)
        except FATE_UNKNOWN:
            self._ledger.figures["batches taken back"] += 1
            await self._until_sent(msgspec.structs.replace(batch, retracted=True))
            return 0
        for record in batch.records:
            self._ledger.counted(record.client_id, record.service, record.quantity)
        self._ledger.figures["batches acknowledged"] += 1
        if self._random.random() < 0.05:
            self._ledger.figures["batches repeated"] += 1
            await self._until_sent(batch)
        return size

    async def _until_sent(self, batch: UsageBatch) -> None:
        while True:
            try:
                await self._send(batch)
            except FATE_UNKNOWN:
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _send(self, batch: UsageBatch) -> None:
        subject = f"{RECORDS_SUBJECT}.{partition_of(batch.publisher, PARTITIONS)}"
        message = Outgoing(subject, msgspec.msgpack.encode(batch), {"Content-Type": MSGPACK})
        await publish_batch(self._nc, [message], expected_last_sequence=None, timeout_s=ACK_S)

    def _publisher(self) -> str:
        return f"{self._name}-{self._starts}"

    def _record(self) -> UsageRecord:
        """Mostly of now, some of days ago."""
        random = self._random
        ago_us = 0 if random.random() < 0.8 else random.randrange(30 * DAY_US)
        at_us = to_us(self._clock.now()) - ago_us
        return UsageRecord(
            random.choice(self._apps), random.choice(SERVICES), at_us, random.randint(1, 3), f"s{random.randint(1, 3)}"
        )


class SinglePublisher:
    """Publishes `events` CloudEvents, each until it is acknowledged, every third once or twice more."""

    def __init__(self, nc: Client, seed: int, apps: Sequence[str], ledger: Ledger, pace: Pace) -> None:
        self._nc = nc
        self._seed = seed
        self._random = Random(f"{seed} singles")
        self._apps = apps
        self._ledger = ledger
        self._pace = pace
        self._clock = SystemClock()

    async def run(self, events: int) -> None:
        sent: list[tuple[dict[str, str], bytes]] = []
        for number in range(events):
            await self._pace.turn(number / events)
            client_id, service, units = self._random.choice(self._apps), self._random.choice(SERVICES), self._random.randint(1, 5)
            headers = {
                "ce-specversion": "1.0",
                "ce-id": f"{self._seed}-{number}",
                "ce-source": "/chaos",
                "ce-type": "tollbook.usage.UsageRecorded.v1",
                "ce-time": self._clock.now().isoformat(),
                "content-type": "application/json",
            }
            body = json.dumps({"client_id": client_id, "service": service, "quantity": units}).encode()
            await self._until_sent(headers, body)
            self._ledger.counted(client_id, service, units)
            sent.append((headers, body))
            for _ in range(self._random.choice((0, 0, 1))):
                await self._until_sent(*self._random.choice(sent))
                self._ledger.figures["CloudEvents repeated"] += 1

    async def _until_sent(self, headers: dict[str, str], body: bytes) -> None:
        while True:
            try:
                answer = await self._nc.request(CLOUDEVENTS_SUBJECT, body, timeout=ACK_S, headers=headers)
                ack: dict[str, Any] = json.loads(answer.data)
                if "error" not in ack:
                    return
            except NATS_FAILURES:
                pass
            await asyncio.sleep(RETRY_S)
