"""Reading a stream without doing anything with it: what the rows of the table are compared with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from services.metering.decoding import Batch, read
from shared.events.codec import Codec, parse_ce_type
from shared.streams.buffer import Buffer
from shared.streams.pull import Puller

FETCH: Final = 1000
FETCH_TIMEOUT_S: Final = 10
TAKE: Final = 200
"""As many messages at once as a service takes into a transaction."""


async def pulled_and_decoded(nc: Client, stream: str, messages: int) -> float:
    """Read `messages` batches of records with our own puller and decode them, nothing else: records a second."""
    buffer = Buffer(4_000)
    puller = Puller(lambda: nc, stream, subjects=(), after=0, buffer=buffer, name="bench")
    began = time.perf_counter()
    pulling = asyncio.create_task(puller.run())
    records = taken = 0
    try:
        while taken < messages:
            held = await buffer.take(TAKE)
            for one in held:
                item = read(one.message)
                if isinstance(item, Batch):
                    records += len(item.batch.records)
            taken += len(held)
            await asyncio.sleep(0)
        return records / (time.perf_counter() - began)
    finally:
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)


async def fetched(nc: Client, stream: str, subject: str, messages: int, decode: Callable[[Any], object]) -> float:
    """Read `messages` messages as nats-py's documentation shows, `fetch(1000)` in a loop, and decode each: messages a second.

    Without acknowledgements, which would cost it more.
    """
    js = nc.jetstream()
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True)
    subscription = await js.pull_subscribe(subject, stream=stream, config=config)
    taken = 0
    began = time.perf_counter()
    try:
        while taken < messages:
            for msg in await subscription.fetch(FETCH, timeout=FETCH_TIMEOUT_S):
                decode(msg)
                taken += 1
        return taken / (time.perf_counter() - began)
    finally:
        await subscription.unsubscribe()


def decoder(codec: Codec[Any]) -> Callable[[Any], object]:
    """Decode a CloudEvent of one's own service from a nats-py message, in as few steps as will do."""

    def decode(msg: Any) -> object:
        _, type_, schema = parse_ce_type(msg.headers["ce-type"])
        return codec.decode(type_, schema, msg.data)

    return decode
