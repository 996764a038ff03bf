"""From JetStream's acknowledgement of a usage record to the dashboard that shows it, under a steady load."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.metering.dashboard import BUCKET, UsageValue, split_key
from shared.events.usage import partition_of
from shared.streams.publish import publish_batch
from tests.bench.examples import ACCOUNT, Issued, issue, usage_batches
from tests.bench.ingest import PARTITIONS, running_worker
from tests.bench.measure import Aim, Row, percentile, said
from tests.bench.place import Place, until

APPS: Final = 1_000
RECORDS: Final = 50
A_SECOND: Final = 5_000
WARM_UP_S: Final = 4.0
SECONDS: Final = 16.0
GATE: Final = "gate-0"
_PREFIX: Final = f"$KV.{BUCKET}."


class Watched:
    """What was acknowledged and not yet shown, by application, and how long each record that was shown has taken."""

    def __init__(self, apps: list[Issued]) -> None:
        self.delays_s: list[float] = []
        self.since = float("inf")
        self._sent = {app.client_id: 0 for app in apps}
        self._open: dict[str, deque[tuple[int, float]]] = {app.client_id: deque() for app in apps}
        self._shown = dict.fromkeys(self._sent, 0)
        self._decode = msgspec.json.Decoder(UsageValue).decode

    def acknowledged(self, client_id: str, at: float) -> None:
        """One more record of this application is in the stream."""
        count = self._sent[client_id] = self._sent[client_id] + 1
        if self._shown[client_id] >= count:
            self._took(at, at)
        else:
            self._open[client_id].append((count, at))

    async def on_value(self, msg: Msg) -> None:
        """A new value of the bucket."""
        now = time.perf_counter()
        _, client_id, _ = split_key(msg.subject.removeprefix(_PREFIX))
        if not msg.data or client_id not in self._open:
            return
        calls = self._shown[client_id] = self._decode(msg.data).monthly.calls
        waiting = self._open[client_id]
        while waiting and waiting[0][0] <= calls:
            self._took(waiting.popleft()[1], now)

    def _took(self, acknowledged: float, shown: float) -> None:
        if acknowledged >= self.since:
            self.delays_s.append(shown - acknowledged)

    def all_shown(self) -> bool:
        return not any(self._open.values())


async def measure(place: Place) -> list[Row]:
    """One gate publishes 50 records every 10 ms; every record's way to its key is timed."""
    apps = issue(APPS)
    async with running_worker(place, apps) as worker:
        watched = Watched(apps)
        subscription = await worker.nc.jetstream().subscribe(f"{_PREFIX}{ACCOUNT}.>", ordered_consumer=True, cb=watched.on_value)
        achieved = await _load(worker.nc, apps, watched)

        async def all_shown() -> bool:
            return watched.all_shown()

        await until(all_shown, "every record to be shown")
        await subscription.unsubscribe()
    delays = sorted(1000 * delay for delay in watched.delays_s)
    said(f"  {len(delays):,} records timed at {achieved:,.0f} a second")
    what = f"record acknowledged to KV update, at {achieved:,.0f} records a second over {APPS:,} apps"
    return [
        Row(benchmark="freshness", what=f"{what}, p50", unit="ms", figure=percentile(delays, 0.50)),
        Row(benchmark="freshness", what=f"{what}, p99", unit="ms", figure=percentile(delays, 0.99), aim=Aim(most=300)),
    ]


async def _load(nc: Client, apps: list[Issued], watched: Watched) -> float:
    """Publish for WARM_UP_S + SECONDS at the wanted rate; the rate that was had in SECONDS."""
    began = time.perf_counter()
    until_s = WARM_UP_S + SECONDS
    messages = int(until_s * A_SECOND / RECORDS)
    number, counted_from = 0, 0
    for sent, message in enumerate(usage_batches(apps, messages, RECORDS, GATE, partition_of(GATE, PARTITIONS))):
        due = began + sent * RECORDS / A_SECOND
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        await publish_batch(nc, [message], expected_last_sequence=None)
        at = time.perf_counter()
        if watched.since == float("inf") and at - began >= WARM_UP_S:
            watched.since, counted_from = at, number
        for _ in range(RECORDS):
            watched.acknowledged(apps[number % len(apps)].client_id, at)
            number += 1
    return (number - counted_from) / (time.perf_counter() - watched.since)
