"""The rows of counting: what is read before a tally and written after it. One statement each; rows sorted by key, so that two
workers never lock in opposite orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from heapq import merge
from itertools import chain, islice
from typing import Any, Final, TypeVar

import msgspec

from services.metering.dashboard import BUCKET, key_of
from services.metering.decoding import Single, Void
from services.metering.growth import App, Count, CounterKey
from services.metering.marks import MARK_NEAR
from services.metering.positions import Position, PublisherKey
from services.metering.singles import Correction, Counted, Known
from shared.events.usage import UsageRecord
from shared.postgres import Connection
from shared.streams.message import Message
from shared.windows import from_us, to_us

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(UsageRecord).decode
TAKEN_BACK: Final = -1
"""The quantity in `counted_event.record` of one that does not count any more."""
ROWS: Final = 3_000
"""Written by one statement, where there can be very many: some 10 ms of work here."""
_Key = TypeVar("_Key", bound=Any)
_ADD: Final = f"""
    WITH grown AS (
        INSERT INTO counter AS c (client_id, service, period, window_start, calls, units, late_units, after_close_units,
            corrected_units)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::bigint[], $9::bigint[])
        ON CONFLICT (client_id, service, period, window_start) DO UPDATE
        SET calls = c.calls + excluded.calls, units = c.units + excluded.units, late_units = c.late_units + excluded.late_units,
            after_close_units = c.after_close_units + excluded.after_close_units,
            corrected_units = c.corrected_units + excluded.corrected_units
        RETURNING client_id, service, period, window_start, units - after_close_units AS units)
    {MARK_NEAR}
"""  # noqa: S608 - constants
_POSITIONS: Final = """
    SELECT publisher, partition, seq, retracted, recorded_at, rejected, digest FROM publisher_position
    JOIN unnest($1::text[], $2::int[]) AS wanted(publisher, partition) USING (publisher, partition)
"""
_MOVE: Final = """
    INSERT INTO publisher_position (publisher, partition, seq, retracted, recorded_at, rejected, digest)
    SELECT publisher, partition, seq, retracted, recorded_at, rejected::int[], digest
    FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bool[], $5::timestamptz[], $6::text[], $7::bytea[])
        AS m(publisher, partition, seq, retracted, recorded_at, rejected, digest)
    ON CONFLICT (publisher, partition) DO UPDATE SET seq = excluded.seq, retracted = excluded.retracted,
        recorded_at = excluded.recorded_at, rejected = excluded.rejected, digest = excluded.digest
"""
_EVENTS: Final = "SELECT key, digest, recorded_at, record FROM counted_event WHERE key = ANY($1::bytea[])"
_CORRECT: Final = """
    UPDATE counted_event SET record = c.record FROM unnest($1::bytea[], $2::bytea[]) AS c(key, record)
    WHERE counted_event.key = c.key
"""
_CORRECTION: Final = (
    "sequence", "client_id", "service", "occurred_at", "counted_at", "recorded_at", "old_quantity", "new_quantity", "source",
    "record_id", "reason", "hour", "day", "month",
)  # fmt: skip
_USE: Final = """
    INSERT INTO credential_use AS c (client_id, secret_id, last_used_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])
    ON CONFLICT (client_id, secret_id) DO UPDATE SET last_used_at = greatest(c.last_used_at, excluded.last_used_at)
"""
_MARK: Final = """
    INSERT INTO kv_dirty (bucket, key) SELECT $1, k FROM unnest($2::text[]) AS k
    ON CONFLICT (bucket, key) DO UPDATE SET token = nextval('kv_dirty_token')
"""
_TOLD: Final = "SELECT subject, told FROM progress WHERE subject = ANY($1::text[])"
_PROGRESS: Final = """
    INSERT INTO progress AS p (subject, sequence, recorded_at, told)
    SELECT subject, sequence, recorded_at, sequence
    FROM unnest($1::text[], $2::bigint[], $3::timestamptz[]) AS m(subject, sequence, recorded_at)
    ON CONFLICT (subject) DO UPDATE SET sequence = excluded.sequence, recorded_at = excluded.recorded_at,
        told = greatest(p.told, excluded.told)
"""


async def read_positions(connection: Connection, publishers: Iterable[PublisherKey]) -> dict[PublisherKey, Position]:
    """How far these publishers are counted; those that are new are absent."""
    wanted = list(publishers)
    rows = await connection.fetch(_POSITIONS, [key[0] for key in wanted], [key[1] for key in wanted]) if wanted else []
    return {
        (row["publisher"], row["partition"]): Position(
            row["seq"], row["retracted"], to_us(row["recorded_at"]), tuple(row["rejected"]), row["digest"]
        )
        for row in rows
    }


async def read_events(connection: Connection, keys: Iterable[bytes]) -> dict[bytes, Known]:
    """What is known of those of these single events that took effect."""
    wanted = list(keys)
    rows = await connection.fetch(_EVENTS, wanted) if wanted else []
    return {row["key"]: Known(row["digest"], _counted(row["record"], row["recorded_at"])) for row in rows}


async def read_told(connection: Connection, subjects: Iterable[str]) -> dict[str, int]:
    """Up to which sequence dead letters were published, by subject."""
    return {row["subject"]: row["told"] for row in await connection.fetch(_TOLD, list(subjects))}


async def add_counts(connection: Connection, counters: Mapping[CounterKey, Count]) -> None:
    """Let the counters grow, and mark those that have come to a rung. Raises CheckViolationError when one has no shelf
    (`shelves.py`)."""
    async for keys in _in_order(counters):
        counts = [counters[key] for key in keys]
        starts = {us: from_us(us) for us in {key.window_start_us for key in keys}}
        await connection.execute(
            _ADD,
            [key.client_id for key in keys],
            [key.service for key in keys],
            [key.period for key in keys],
            [starts[key.window_start_us] for key in keys],
            [count.calls for count in counts],
            [count.units for count in counts],
            [count.late_units for count in counts],
            [count.after_close_units for count in counts],
            [count.corrected_units for count in counts],
        )


async def mark_counted(connection: Connection, counters: Mapping[CounterKey, Count], directory: Mapping[str, App]) -> None:
    """Have the dashboards show what the counters have become."""
    pairs = {(key.client_id, key.service) for key in counters if key.period == "m"}
    async for keys in _in_order(key_of(directory[client_id].account, client_id, service) for client_id, service in pairs):
        await connection.execute(_MARK, BUCKET, keys)


async def _in_order(keys: Iterable[_Key]) -> AsyncIterator[list[_Key]]:
    """All of the keys, sorted, in portions: sorting and sending very many at once would keep everything else waiting."""
    rest, runs = iter(keys), []
    while run := sorted(islice(rest, ROWS)):
        runs.append(run)
        await asyncio.sleep(0)
    merged = merge(*runs) if len(runs) > 1 else chain.from_iterable(runs)
    while portion := list(islice(merged, ROWS)):
        yield portion


async def move_positions(connection: Connection, positions: Mapping[PublisherKey, Position]) -> None:
    """Remember how far publishers are counted."""
    rows = sorted(positions.items(), key=lambda row: row[0])
    if not rows:
        return
    await connection.execute(
        _MOVE,
        [key[0] for key, _ in rows],
        [key[1] for key, _ in rows],
        [position.seq for _, position in rows],
        [position.retracted for _, position in rows],
        [from_us(position.recorded_at_us) for _, position in rows],
        [f"{{{','.join(map(str, position.rejected))}}}" for _, position in rows],
        [position.fingerprint() for _, position in rows],
    )


async def remember_events(
    connection: Connection, events: Mapping[bytes, Single | Void], corrected: Mapping[bytes, Counted]
) -> None:
    """Remember single events that took effect, and what counts for each record now."""
    if events:
        rows = [
            (key, item.digest, item.message.recorded_at, _encode(item.record) if isinstance(item, Single) else None)
            for key, item in events.items()
        ]
        columns = ("key", "digest", "recorded_at", "record")
        await connection.copy_records_to_table("counted_event", records=rows, columns=columns)
    if corrected:
        records = [
            UsageRecord(one.client_id, one.service, one.occurred_at_us, TAKEN_BACK if one.quantity is None else one.quantity)
            for one in corrected.values()
        ]
        await connection.execute(_CORRECT, list(corrected), [_encode(record) for record in records])


async def list_corrections(connection: Connection, corrections: Sequence[Correction]) -> None:
    """Keep the corrections."""
    if corrections:
        rows = [_correction(one) for one in corrections]
        await connection.copy_records_to_table("correction", records=rows, columns=_CORRECTION)


def _counted(record: bytes | None, recorded_at: datetime) -> Counted | None:
    if record is None:
        return None
    client_id, service, occurred_at_us, quantity, *_ = msgspec.structs.astuple(_decode(record))
    return Counted(client_id, service, occurred_at_us, to_us(recorded_at), None if quantity == TAKEN_BACK else quantity)


def _correction(one: Correction) -> tuple[object, ...]:
    void, before = one.void, one.before
    return (
        void.message.sequence, before.client_id, before.service, from_us(before.occurred_at_us), from_us(before.recorded_at_us),
        void.message.recorded_at, before.quantity, void.quantity, void.source, void.record_id, void.reason, one.hour, one.day,
        one.month,
    )  # fmt: skip


async def use_secrets(connection: Connection, used: Mapping[tuple[str, str], int]) -> None:
    """Write when secrets were last used, unless a later use is known."""
    rows = sorted(used.items())
    if rows:
        await connection.execute(_USE, [key[0] for key, _ in rows], [key[1] for key, _ in rows], [from_us(us) for _, us in rows])


async def move_progress(connection: Connection, newest: Mapping[str, Message]) -> None:
    """Remember the newest message counted, by subject."""
    rows = sorted(newest.items())
    await connection.execute(
        _PROGRESS,
        [subject for subject, _ in rows],
        [message.sequence for _, message in rows],
        [message.recorded_at for _, message in rows],
    )
