"""Reading REGISTRY and counting USAGE again from their first messages: the proof that the rows hold nothing that they do not."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg
from nats.aio.client import Client

from services.metering.directory import REGISTRY_CONSUMER
from services.metering.following import follow_registry
from services.metering.retention import Policy
from services.metering.streams import LETTERS_CONSUMER, USAGE_CONSUMER
from shared.commands.metering import SERVICE
from shared.errors import Conflict, Unavailable
from shared.events.registry import STREAM as REGISTRY
from shared.events.usage import STREAM as USAGE
from shared.postgres import Connection
from shared.streams.buffer import Buffer
from shared.streams.consumer import Poison
from shared.streams.declare import DEADLETTER, StreamState, stream_state
from shared.streams.jetstream import MESSAGE_NOT_FOUND, STREAM_NOT_FOUND, ApiError, api, stored_message
from shared.streams.message import Message, message_hash
from shared.streams.pull import Puller

TIMEOUT_S: Final = 10.0
BATCH_MAX: Final = 1_000
BUFFER_BYTES: Final = 16 * 1024 * 1024

# Checkpoints first: that waits for the transactions that move one, and whoever comes later finds it gone, writes nothing and
# starts from the beginning. Leases last: workers that have nothing to do take them again, and so read the checkpoints again.
# Grants wait before they hold anything: they read and write what is locked after this, in another order.
_HOLD_GRANTS: Final = "SELECT pg_advisory_xact_lock(hashtextextended('tollbook quota ' || current_schema(), 0))"
_FORGET_CHECKPOINTS: Final = "DELETE FROM checkpoint WHERE consumer = $1"
_FORGET_APPS: Final = "TRUNCATE app, account"
_HAVE_READ: Final = """
    INSERT INTO checkpoint (consumer, stream, subject, sequence, hash) VALUES ($1, $2, '', $3, $4)
    ON CONFLICT (consumer, stream, subject) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash
"""
# What the policy keeps by now is counted again, whatever it was when the rows were dropped.
_KEEP: Final = """
    UPDATE kept SET since = (date_trunc('month', now() AT TIME ZONE 'UTC') - make_interval(
        months => CASE period WHEN 'h' THEN $1::int ELSE $2::int END)) AT TIME ZONE 'UTC'
"""
# A worker that remembers such a shelf would put on it what another leaves out.
_DROP_OLD: Final = """
    SELECT drop_shelf(kept.period, shelf.first) FROM kept, LATERAL (
        SELECT to_date(right(c.relname, 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC' AS first
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = ('counter_' || kept.period)::regclass) AS shelf
    WHERE shelf.first < kept.since
"""
# Leases stay, and so do the places of what came from them too late: what comes from a lease is counted again for it, too.
_FORGET_COUNTS: Final = """
    LOCK TABLE quota_lease IN EXCLUSIVE MODE;
    UPDATE quota_lease SET counted = 0;
    TRUNCATE counter, counted_event, correction, publisher_position, credential_use;
    UPDATE progress SET sequence = 0, recorded_at = NULL
"""
_FORGET_LETTERS: Final = "TRUNCATE dead_letter"
_FORGET_TOLD: Final = "UPDATE progress SET told = 0"
_FORGET_LEASES: Final = "UPDATE lease SET worker = NULL, expires_at = NULL"
_READ_UP_TO: Final = "SELECT sequence, hash FROM checkpoint WHERE consumer = $1 AND stream = $2"


async def count_again(owner_dsn: str, nats_url: str, nats_seed: str | None, policy: Policy) -> str:
    """Read the applications again and forget all counts, in one transaction; what was done, in words. Workers may run.

    Hours and days that the policy keeps no longer are not counted again; months are.

    Dead letters are not published a second time, unless the stream REGISTRY has another history now: then others may be bad.
    Raises Conflict when USAGE does not begin with its first message any more. If REGISTRY has another history, the applications
    are read again even so, and the counts stay.
    """
    nc = await _connect(nats_url, nats_seed)
    try:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn=owner_dsn, timeout=TIMEOUT_S)
        try:
            await connection.execute(f"SET search_path = {SERVICE}; SET lock_timeout = '60s'")
            async with connection.transaction():
                return await _rebuild(connection, nc, policy)
        finally:
            await connection.close(timeout=TIMEOUT_S)
    finally:
        await nc.close()


async def _rebuild(connection: Connection, nc: Client, policy: Policy) -> str:
    usage = await stream_state(nc, USAGE)
    read_up_to = await connection.fetchrow(_READ_UP_TO, REGISTRY_CONSUMER, REGISTRY)
    changed = read_up_to is not None and await _changed(nc, read_up_to["sequence"], read_up_to["hash"])
    whole = usage is not None and usage.whole and usage.first <= 1
    if not whole and not changed:
        raise _cannot_count(usage)
    if whole:
        await connection.execute(_FORGET_CHECKPOINTS, USAGE_CONSUMER)
    await connection.execute(_HOLD_GRANTS)
    events = await _read_registry(connection, nc)
    if whole:
        await connection.execute(_FORGET_COUNTS)
        await connection.execute(_KEEP, policy.hours, policy.days)
        await connection.execute(_DROP_OLD)
    if changed:
        await connection.execute(_FORGET_TOLD)
    await _forget_letters(connection, nc)
    await connection.execute(_FORGET_LEASES)
    read = f"the applications were read again from {events} events"
    if usage is None or not whole:
        return f"{read}; the counts stay, for USAGE has lost its beginning"
    return (
        f"{read}; every count is forgotten, and workers, as soon as they run, count the {usage.messages} messages of USAGE again"
    )


async def _forget_letters(connection: Connection, nc: Client) -> None:
    """Have the dead letters listed again, if the stream has all of them. What was decided about them is in the log."""
    state = await stream_state(nc, DEADLETTER)
    if state is not None and state.whole and state.first <= 1:
        await connection.execute(_FORGET_CHECKPOINTS, LETTERS_CONSUMER)
        await connection.execute(_FORGET_LETTERS)


async def _read_registry(connection: Connection, nc: Client) -> int:
    """Applications and accounts as REGISTRY has them now; from how many events. Raises Conflict."""
    state = await stream_state(nc, REGISTRY)
    if state is None or not state.whole:
        raise Conflict(
            "REGISTRY is not whole: start the registry, which writes it again from its log, and wait until it is ready."
        )
    await connection.execute(_HAVE_READ, REGISTRY_CONSUMER, REGISTRY, 0, b"")  # waits for a worker that moves it, and keeps it
    await connection.execute(_FORGET_APPS)
    buffer = Buffer(BATCH_MAX, BUFFER_BYTES)
    puller = Puller(lambda: nc, REGISTRY, subjects=(), after=0, buffer=buffer, name="metering-rebuild")
    pulling = asyncio.create_task(puller.run())
    last: Message | None = None
    try:
        while (last.sequence if last else 0) < state.last:
            async with asyncio.timeout(TIMEOUT_S):
                messages = [held.message for held in await buffer.take(BATCH_MAX)]
            await follow_registry(connection, messages)
            last = messages[-1]
    except TimeoutError:
        raise Unavailable(f"REGISTRY does not come: {puller.trouble or 'no message within 10 s'}") from None
    except Poison as poison:
        raise Conflict(str(poison)) from poison
    finally:
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
    if last is not None:
        await connection.execute(_HAVE_READ, REGISTRY_CONSUMER, REGISTRY, last.sequence, last.hash)
    return last.sequence if last else 0


async def _changed(nc: Client, sequence: int, expected: bytes) -> bool:
    """Whether REGISTRY does not hold, or no longer, what was read from it."""
    if sequence == 0:
        return False
    try:
        answer = await api(nc, f"STREAM.MSG.GET.{REGISTRY}", {"seq": sequence})
    except ApiError as error:
        if error.err_code in (MESSAGE_NOT_FOUND, STREAM_NOT_FOUND):
            return True
        raise Unavailable(str(error)) from error
    subject, _, headers, data = stored_message(answer)
    return message_hash(subject, headers, data) != expected


def _cannot_count(usage: StreamState | None) -> Conflict:
    if usage is None:
        return Conflict("There is no stream USAGE: every count would be lost. Restore the stream first.")
    return Conflict(
        f"USAGE begins at message {usage.first}: what was counted before that could not be counted again and would be lost."
        " Restore the whole stream first."
    )


async def _connect(url: str, seed: str | None) -> Client:
    client = Client()
    await client.connect(
        servers=url.split(","),
        nkeys_seed_str=seed,
        connect_timeout=int(TIMEOUT_S),
        allow_reconnect=False,
        inbox_prefix=f"_INBOX_{SERVICE}".encode(),
    )
    return client
