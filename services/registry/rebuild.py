"""REVIEW from its first message on, when it is not any more what the registry has read of it."""

from __future__ import annotations

from typing import Final

import asyncpg

from services.registry.following import REVIEW, REVIEW_CONSUMER
from services.registry.handlers import SERVICE
from shared.streams.checkpoints import Point, put_point, read_point
from shared.streams.rereading import connected, has_changed

TIMEOUT_S: Final = 10.0
NOTHING: Final = Point(0, b"")


async def review_again(owner_dsn: str, nats_url: str, nats_seed: str | None) -> str:
    """Have the registry read REVIEW from its beginning if that has another history now; in words, "" if it has not. It may run.

    What it decided by messages that are there still is known by their ids and is not decided again; what is new gets its turn.
    Raises Unavailable. NATS is asked only if anything of REVIEW was ever read.
    """
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn=owner_dsn, timeout=TIMEOUT_S)
    try:
        await connection.execute(f"SET search_path = {SERVICE}; SET lock_timeout = '60s'")
        if await read_point(connection, REVIEW_CONSUMER, REVIEW) == NOTHING:
            return ""
        async with connected(SERVICE, nats_url, nats_seed) as nc, connection.transaction():
            if not await has_changed(connection, nc, REVIEW_CONSUMER, REVIEW):
                return ""
            await put_point(connection, REVIEW_CONSUMER, REVIEW, NOTHING)
    finally:
        await connection.close(timeout=TIMEOUT_S)
    return f"{REVIEW.stream}, with another history now, is followed from its beginning"
