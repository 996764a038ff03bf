"""Rows that are made of another service's stream, made again from all of it: for a rebuild, in its transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from nats.aio.client import Client

from shared.errors import Conflict, Unavailable
from shared.postgres import Connection
from shared.streams.buffer import Buffer
from shared.streams.checkpoints import Point, Source, put_point, read_point
from shared.streams.consumer import Poison
from shared.streams.declare import stream_state
from shared.streams.jetstream import MESSAGE_NOT_FOUND, STREAM_NOT_FOUND, ApiError, api, stored_message
from shared.streams.message import Message, message_hash
from shared.streams.pull import Puller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TIMEOUT_S: Final = 10.0
BATCH_MAX: Final = 1_000
BUFFER_BYTES: Final = 16 * 1024 * 1024
_NOTHING: Final = Point(0, b"")


class Facts(NamedTuple):
    """Rows that are made of another service's stream: by which consumer, and how they are removed and made."""

    consumer: str
    source: Source
    forget: str
    follow: Callable[[Connection, Sequence[Message]], Awaitable[None]]


async def read_again(connection: Connection, nc: Client, facts: Facts, end: int) -> int:
    """The rows of `facts` as their stream has them now, up to message `end`; returns how many of its events. Raises Conflict for
    what this release cannot read, and Unavailable."""
    source = facts.source
    await put_point(connection, facts.consumer, source, _NOTHING)  # waits for a worker that moves it, and keeps it
    await connection.execute(facts.forget)
    buffer = Buffer(BATCH_MAX, BUFFER_BYTES)
    subjects = () if source.subject is None else (source.subject,)
    puller = Puller(lambda: nc, source.stream, subjects=subjects, after=0, buffer=buffer, name=f"{facts.consumer}-rebuild")
    pulling = asyncio.create_task(puller.run())
    last: Message | None = None
    events = 0
    try:
        while (last.sequence if last else 0) < end:
            async with asyncio.timeout(TIMEOUT_S):
                messages = [held.message for held in await buffer.take(BATCH_MAX)]
            await facts.follow(connection, messages)
            last = messages[-1]
            events += len(messages)
    except TimeoutError:
        raise Unavailable(f"{source.stream} does not come: {puller.trouble or 'no message within 10 s'}") from None
    except Poison as poison:
        raise Conflict(str(poison)) from poison
    finally:
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
    if last is not None:
        await put_point(connection, facts.consumer, source, Point(last.sequence, last.hash))
    return events


async def has_changed(connection: Connection, nc: Client, consumer: str, source: Source) -> bool:
    """Whether the stream does not hold, or no longer, what the consumer read from it. One that need not exist may be missing."""
    read = await read_point(connection, consumer, source)
    if read.sequence == 0:
        return False
    try:
        found = await message_at(nc, source.stream, read.sequence)
    except ApiError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return not source.optional
        raise Unavailable(str(error)) from error
    return found != read


async def end_of(nc: Client, stream: str, owner: str) -> int:
    """The last sequence of a log's stream that has all of it. Raises Conflict; `owner` is who writes it again."""
    state = await stream_state(nc, stream)
    if state is None or not state.whole:
        raise Conflict(f"{stream} is not whole: start {owner}, which writes it again from its log, and wait until it is ready.")
    return state.last


async def message_at(nc: Client, stream: str, sequence: int) -> Point | None:
    """The point of that message, None where there is none. Raises ApiError, STREAM_NOT_FOUND for one."""
    try:
        answer = await api(nc, f"STREAM.MSG.GET.{stream}", {"seq": sequence})
    except ApiError as error:
        if error.err_code == MESSAGE_NOT_FOUND:
            return None
        raise
    subject, _, headers, data = stored_message(answer)
    return Point(sequence, message_hash(subject, headers, data))


@asynccontextmanager
async def connected(service: str, url: str, seed: str | None) -> AsyncIterator[Client]:
    """A connection as the service's user, for a command that is run by hand: one that does not reconnect."""
    client = Client()
    await client.connect(
        servers=url.split(","),
        nkeys_seed_str=seed,
        connect_timeout=int(TIMEOUT_S),
        allow_reconnect=False,
        inbox_prefix=f"_INBOX_{service}".encode(),
    )
    try:
        yield client
    finally:
        await client.close()
