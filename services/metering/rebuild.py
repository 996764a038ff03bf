"""Counting USAGE again from its first message: the proof that the counters hold nothing that it does not."""

from __future__ import annotations

from typing import Final

import asyncpg
from nats.aio.client import Client

from services.metering.streams import USAGE_CONSUMER
from shared.commands.metering import SERVICE
from shared.errors import Conflict
from shared.events.usage import STREAM as USAGE
from shared.streams.declare import stream_state

TIMEOUT_S: Final = 10.0

# Checkpoints first: that waits for the transactions that move one, and whoever comes later finds it gone, writes nothing and
# starts from the beginning. Leases last: workers that have nothing to do take them again, and so read the checkpoints again.
_FORGET_CHECKPOINTS: Final = "DELETE FROM checkpoint WHERE consumer = $1"
_FORGET_COUNTS: Final = """
    TRUNCATE counter, counted_event, publisher_position, credential_use;
    UPDATE progress SET sequence = 0, recorded_at = NULL;
    UPDATE lease SET worker = NULL, expires_at = NULL
"""


async def count_again(owner_dsn: str, nats_url: str, nats_seed: str | None) -> str:
    """Forget all counts in one transaction; what was done, in words. Workers may run: they begin again by themselves.

    Dead letters are not published a second time. Raises Conflict when USAGE does not begin with its first message any more.
    """
    nc = await _connect(nats_url, nats_seed)
    try:
        state = await stream_state(nc, USAGE)
    finally:
        await nc.close()
    if state is None:
        raise Conflict("There is no stream USAGE: every count would be lost. Restore the stream first.")
    if state.first > 1 or not state.whole:
        raise Conflict(
            f"USAGE begins at message {state.first}: what was counted before that could not be counted again and would be lost."
            " Restore the whole stream first."
        )
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn=owner_dsn, timeout=TIMEOUT_S)
    try:
        await connection.execute(f"SET search_path = {SERVICE}; SET lock_timeout = '60s'")
        async with connection.transaction():
            await connection.execute(_FORGET_CHECKPOINTS, USAGE_CONSUMER)
            await connection.execute(_FORGET_COUNTS)
    finally:
        await connection.close(timeout=TIMEOUT_S)
    return f"every count is forgotten; workers, as soon as they run, count the {state.messages} messages of USAGE again"


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
