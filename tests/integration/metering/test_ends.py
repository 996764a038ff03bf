"""Where subjects of USAGE end, as reads are told: what is asked of JetStream for it, and when."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from nats.aio.client import Client

from services.metering.ends import AHEAD_S, FRESH_S, Ends
from shared.clock import FixedClock
from shared.events.usage import STREAM as USAGE
from shared.streams.declare import delete_stream
from shared.streams.publish import Outgoing, publish_batch
from tests.support.crashes import Tripwire, TripwireClient
from tests.support.gates import declare

FIRST, SECOND = "usage.records.0", "usage.records.1"


class Looking:
    """Ends of two subjects, and how many requests they made."""

    def __init__(self, nc: Client) -> None:
        self.clock = FixedClock(datetime(2026, 11, 24, 12, tzinfo=UTC))
        self.wire = Tripwire()
        client = TripwireClient(nc, self.wire)
        self.ends = Ends((FIRST, SECOND), lambda: client, self.clock)  # type: ignore[arg-type,return-value]

    async def look(self, after_s: float) -> tuple[list[int | None], int]:
        """What is known, and the requests that were made for it, those of a next look too."""
        self.clock.advance(after_s)
        before = self.wire.steps
        looked = await self.ends.look()
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "metering:ends"))
        return [looked.by_subject[FIRST], looked.by_subject[SECOND]], self.wire.steps - before


async def publish(nc: Client, subject: str) -> int:
    return await publish_batch(nc, [Outgoing(subject, b"x", {})], expected_last_sequence=None)


async def test_a_look_serves_all_who_ask_for_a_moment_and_the_next_is_begun_ahead(nc: Client) -> None:
    await declare(nc)
    looking = Looking(nc)
    first = await publish(nc, FIRST)
    assert await looking.look(1.0) == ([first, 0], 3), "USAGE, and each subject"
    second = await publish(nc, SECOND)
    assert await looking.look(AHEAD_S) == ([first, 0], 0)
    assert await looking.look(0.001) == ([first, 0], 3), "what was known, and the next look"
    assert await looking.look(0.001) == ([first, second], 0)
    third = await publish(nc, FIRST)
    assert await looking.look(FRESH_S + 0.001) == ([third, second], 3), "too long ago"


async def test_while_nothing_comes_one_request_tells(nc: Client) -> None:
    await declare(nc)
    looking = Looking(nc)
    first = await publish(nc, FIRST)
    assert await looking.look(1.0) == ([first, 0], 3)
    assert await looking.look(1.0) == ([first, 0], 1)
    await delete_stream(nc, USAGE)
    assert await looking.look(1.0) == ([0, 0], 1)
    await declare(nc)
    again = await publish(nc, SECOND)
    assert await looking.look(1.0) == ([0, again], 3)


async def test_what_jetstream_does_not_say_is_not_known(nc: Client) -> None:
    await declare(nc)
    looking = Looking(nc)
    first = await publish(nc, FIRST)
    looking.wire.at = 2  # the first subject's
    assert await looking.look(1.0) == ([None, 0], 3)
    assert await looking.look(1.0) == ([first, 0], 3)
    looking.wire.at = looking.wire.steps + 1
    assert await looking.look(1.0) == ([None, None], 1)
    assert await looking.look(1.0) == ([first, 0], 1)
