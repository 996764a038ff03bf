"""USAGE as it is stored, counted in the plainest way: what metering has to come to."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

import asyncpg
import msgspec
from nats.aio.client import Client

from shared.events.usage import UsageBatch, UsageRecord

FETCH: Final = 500
WAIT_S: Final = 1.0


class Stored(NamedTuple):
    """A batch, and where it is stored."""

    subject: str
    sequence: int
    batch: UsageBatch


async def stored(nc: Client) -> list[Stored]:
    """All of USAGE, in its order."""
    found: list[Stored] = []
    js = nc.jetstream()
    subscription = await js.pull_subscribe("usage.records.*", stream="USAGE")
    decode = msgspec.msgpack.Decoder(UsageBatch).decode
    while True:
        try:
            messages = await subscription.fetch(FETCH, timeout=WAIT_S)
        except TimeoutError:
            break
        found += [Stored(one.subject, one.metadata.sequence.stream, decode(one.data)) for one in messages]
        for one in messages:
            await one.ack()
    await subscription.unsubscribe()
    return found


async def lapsed_places(database: asyncpg.Pool[asyncpg.Record]) -> set[tuple[str, int, int]]:
    """Records that came after their lease had ended: of calls that were refused."""
    rows = await database.fetch("SELECT subject, sequence, place FROM lapsed_record")
    return {(row["subject"], row["sequence"], row["place"]) for row in rows}


def counted(messages: list[Stored], lapsed: set[tuple[str, int, int]]) -> Counter[str]:
    """Units by Client ID: each batch once, without what was taken back or came too late."""
    units: Counter[str] = Counter()
    last: dict[str, tuple[int, dict[int, UsageRecord]]] = {}
    for subject, sequence, batch in messages:
        seq, records = last.get(batch.publisher, (0, {}))
        if batch.seq > seq:
            places = {} if batch.retracted else dict(enumerate(batch.records))
            records = {place: one for place, one in places.items() if (subject, sequence, place) not in lapsed}
            last[batch.publisher] = batch.seq, records
            for record in records.values():
                units[record.client_id] += record.quantity
        elif batch.seq == seq and batch.retracted:
            for place in batch.voided or list(records):
                record = records.pop(place, None)
                if record is not None:
                    units[record.client_id] -= record.quantity
    return units
