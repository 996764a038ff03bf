"""The append-only log: gapless positions under a row lock, versions per stream, a hash chain over everything."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import asyncpg
import msgspec

from shared.clock import Clock
from shared.errors import Conflict
from shared.eventlog.changes import Bound, Write, execute, insert
from shared.events.codec import Codec, Event
from shared.postgres import Connection

E = TypeVar("E", bound=Event)

PAGE: Final = 5_000
REPLAY_PAGE: Final = 500
"""Small, so that a page and its events stay in the processor's cache."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_BEGIN: Final = "BEGIN; SELECT FROM log_head FOR UPDATE"
_LOCK_HEAD: Final = "SELECT position, hash FROM log_head FOR UPDATE"
_MOVE_HEAD: Final = Write("log_head", "UPDATE log_head SET position = $1, hash = $2")
_APPEND: Final = insert(
    "event",
    {
        "position": "bigint",
        "stream": "text",
        "version": "int",
        "type": "text",
        "schema": "int",
        "data": "json",
        "meta": "json",
        "recorded_at": "timestamptz",
        "hash": "bytea",
    },
)
_SELECT: Final = "SELECT position, stream, version, type, schema, data, meta, recorded_at, hash FROM event "
_READ_ALL: Final = _SELECT + "WHERE position > $1 ORDER BY position LIMIT $2"
_READ_SOME: Final = (
    _SELECT
    + """
    WHERE position > $1 AND ($3::text IS NULL OR stream = $3) AND ($4::text IS NULL OR type = $4)
    ORDER BY position LIMIT $2"""
)
_REPLAY: Final = """
    SELECT max(position), json_agg(json_array(type || ' ' || schema, position, stream, recorded_at, data) ORDER BY position)
    FROM (SELECT * FROM event WHERE position > $1 ORDER BY position LIMIT $2) AS page
    HAVING count(*) > 0
"""
_READ_STREAMS: Final = _SELECT + "WHERE stream = ANY($1::text[]) ORDER BY stream, version"


class ChainBroken(RuntimeError):
    """The log is not what was written: an event was changed, removed or put in by hand."""


class Meta(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who and why: travels beside each event. Ids only, never a name or an address."""

    command_id: str = ""
    actor: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""


class Head(NamedTuple):
    """The end of the log: the last position (0 when empty) and its hash."""

    position: int
    hash: bytes


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """One event as the log holds it. `data` and `meta` are JSON, byte for byte; `hash` is over the previous hash and this."""

    position: int
    stream: str
    version: int
    type: str
    schema: int
    data: bytes
    meta: bytes
    recorded_at: datetime
    hash: bytes


class Placed(Protocol):
    """Which event it is, and when it was recorded: what a `Recorded` and a `Past` both say."""

    @property
    def position(self) -> int: ...
    @property
    def stream(self) -> str: ...
    @property
    def recorded_at(self) -> datetime: ...


class Past(msgspec.Struct, Generic[E], frozen=True, gc=False, eq=False, array_like=True):
    """One event as a replay gives it: decoded, without what only the log itself needs. Equal to itself only."""

    position: int
    stream: str
    recorded_at: datetime
    event: E


class Entry(NamedTuple, Generic[E]):
    """Events to append to one stream that is now at `expected_version` (0: it does not exist yet)."""

    stream: str
    expected_version: int
    events: Sequence[E]
    meta: Meta


def chain(previous: bytes, event: Recorded) -> bytes:
    """sha256(previous hash, this event's canonical bytes). The control character 0x1f never occurs in the texts before `meta`."""
    recorded_us = (event.recorded_at - _EPOCH) // _MICROSECOND
    fields = (event.position, event.stream, event.version, event.type, event.schema, recorded_us, len(event.meta))
    return hashlib.sha256(previous + "\x1f".join(map(str, fields)).encode() + b"\x1f" + event.meta + event.data).digest()


class EventLog(Generic[E]):
    """One service's log. Every method runs on the connection it is given, inside whatever transaction that has.

    `guard` is asked with the locked head whenever something is to be decided, and raises if nothing may be: the relay's, when
    there is one.
    """

    def __init__(self, codec: Codec[E], clock: Clock) -> None:
        self.codec = codec
        self.guard: Callable[[Head], None] = lambda _: None
        self._clock = clock

    async def head(self, connection: Connection) -> Head:
        """The end of the log, without a lock."""
        row = await connection.fetchrow("SELECT position, hash FROM log_head")
        assert row is not None, "the migration inserts the one row"
        return Head(row["position"], row["hash"])

    async def lock_head(self, connection: Connection) -> Head:
        """The end of the log, kept from moving until this transaction ends: all deciding is one after the other. Raises what
        the guard raises."""
        row = await connection.fetchrow(_LOCK_HEAD)
        assert row is not None, "the migration inserts the one row"
        head = Head(row["position"], row["hash"])
        self.guard(head)
        return head

    async def append(
        self, connection: Connection, stream: str, expected_version: int, events: Sequence[E], meta: Meta | None = None
    ) -> list[Recorded]:
        """Append `events` to `stream`, which must be at `expected_version`. Raises Conflict when it is not."""
        async with connection.transaction():
            head = await self.lock_head(connection)
            current = await connection.fetchval("SELECT coalesce(max(version), 0) FROM event WHERE stream = $1", stream)
            if current != expected_version:
                raise Conflict(f"{stream} is at version {current}, not {expected_version}: read it again and decide anew.")
            recorded = self.prepare(head, [Entry(stream, expected_version, events, meta or Meta())])
            await self.write(connection, recorded)
        return recorded

    def prepare(self, head: Head, entries: Sequence[Entry[E]], at: datetime | None = None) -> list[Recorded]:
        """The rows that continue the log from `head`, which the caller holds locked; recorded `at` (default: now)."""
        now = at or self._clock.now()
        position, previous = head
        recorded: list[Recorded] = []
        for stream, expected_version, events, meta in entries:
            meta_json = msgspec.json.encode(meta)
            for version, event in enumerate(events, expected_version + 1):
                position += 1
                unsealed = Recorded(
                    position=position,
                    stream=stream,
                    version=version,
                    type=type(event).__name__,
                    schema=event.schema,
                    data=self.codec.encode(event),
                    meta=meta_json,
                    recorded_at=now,
                    hash=b"",
                )
                previous = chain(previous, unsealed)
                recorded.append(msgspec.structs.replace(unsealed, hash=previous))
        return recorded

    async def write(self, connection: Connection, recorded: Sequence[Recorded]) -> None:
        """Insert prepared rows and move the head. Raises Conflict if another transaction has taken a version of theirs."""
        if not recorded:
            return
        try:
            await execute(connection, self.writes(recorded))
        except asyncpg.UniqueViolationError as error:
            raise changed_meanwhile() from error

    def writes(self, recorded: Sequence[Recorded]) -> list[Bound]:
        """What inserts prepared rows, one at least, and moves the head."""
        columns: list[list[object]] = [list(column) for column in zip(*(_row(event) for event in recorded), strict=True)]
        return [Bound(_MOVE_HEAD, (recorded[-1].position, recorded[-1].hash)), Bound(_APPEND, columns)]

    async def read(
        self, connection: Connection, after: int, limit: int, *, stream: str | None = None, type_: str | None = None
    ) -> list[Recorded]:
        """Up to `limit` events after position `after`, in order; only of one stream or type if given."""
        if stream is None and type_ is None:
            return [_recorded(row) for row in await connection.fetch(_READ_ALL, after, limit)]
        return [_recorded(row) for row in await connection.fetch(_READ_SOME, after, limit, stream, type_)]

    async def read_streams(self, connection: Connection, streams: Sequence[str]) -> dict[str, list[Recorded]]:
        """Every event of the streams, by stream, in order of version. A stream without events is an empty list."""
        found: dict[str, list[Recorded]] = {stream: [] for stream in streams}
        for row in await connection.fetch(_READ_STREAMS, list(found)):
            found[row["stream"]].append(_recorded(row))
        return found

    async def read_stream(self, connection: Connection, stream: str) -> list[Recorded]:
        """Every event of one stream, in order of version."""
        return (await self.read_streams(connection, [stream]))[stream]

    async def pages(self, connection: Connection, after: int = 0, page: int = PAGE) -> AsyncIterator[list[Recorded]]:
        """The whole log after a position, page by page."""
        while events := await self.read(connection, after, page):
            yield events
            after = events[-1].position

    async def replay(self, connection: Connection, after: int = 0) -> AsyncGenerator[list[Past[E]], None]:
        """The whole log after a position, decoded, page by page. The connection reads the next page while this one is used, so
        that nothing else can be asked of it until the end; then its session's time zone is UTC. Raises as `decode` does."""
        await connection.execute("SET TIME ZONE 'UTC'")  # which JSON has times in
        decode = _page_decoder(self.codec)
        statement = await connection.prepare(_REPLAY)
        asked = asyncio.create_task(statement.fetchrow(after, REPLAY_PAGE))
        try:
            with collector_at_rest():
                while page := await asked:
                    last, events = page
                    asked = asyncio.create_task(statement.fetchrow(last, REPLAY_PAGE))
                    await asyncio.sleep(0)  # has the question sent
                    yield decode(events)
        finally:
            await _given_up(asked)

    def decode(self, recorded: Recorded) -> E:
        """The event itself, in today's shape."""
        return self.codec.decode(recorded.type, recorded.schema, recorded.data)

    async def verify(self, connection: Connection) -> int:
        """Check positions, versions, every hash and the head; returns how many events that were. Raises ChainBroken."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            head = await self.head(connection)
            position, previous = 0, bytes(32)
            versions: dict[str, int] = {}
            async for events in self.pages(connection):
                for event in events:
                    position += 1
                    expected = (position, versions.get(event.stream, 0) + 1)
                    if (event.position, event.version) != expected:
                        raise ChainBroken(
                            f"after position {position - 1} comes {event.position}: an event is missing or was put in"
                        )
                    previous = chain(previous, event)
                    if previous != event.hash:
                        raise ChainBroken(f"the event at position {position} is not the one that was written")
                    versions[event.stream] = event.version
            if (position, previous) != head:
                raise ChainBroken(f"the log ends at position {position}, its head says {head.position}")
        return position


@asynccontextmanager
async def holding_the_head(connection: Connection) -> AsyncIterator[None]:
    """A transaction that locks the log's head as it begins: asyncpg's own would take a round trip more."""
    try:
        await connection.execute(_BEGIN)
        yield
        await connection.execute("COMMIT")
    except BaseException:
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute("ROLLBACK")
        raise


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """While much is built from events: Python's collector would look through all of it again and again, and find no garbage."""
    working = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if working:
            gc.enable()


def changed_meanwhile() -> Conflict:
    """What it means that the version of an event is taken."""
    return Conflict("The object was changed meanwhile: read it again and decide anew.")


def _page_decoder(codec: Codec[E]) -> Callable[[str], list[Past[E]]]:
    """Makes the events of a page, JSON as `_REPLAY` has it. Raises what `codec.decode` raises.

    One call decodes them all: "<type> <schema version>", which comes first, is the tag of the Past that has such an event.
    """
    kinds = [
        msgspec.defstruct("Past", [("event", cls)], bases=(Past,), tag=f"{name} {cls.schema}")
        for name, cls in codec.classes.items()
    ]
    decode_all: Callable[[str], list[Past[E]]] = msgspec.json.Decoder(list[reduce(or_, kinds)]).decode  # type: ignore[misc]
    decode_each = msgspec.json.Decoder(list[tuple[str, int, str, datetime, msgspec.Raw]]).decode

    def decode(page: str) -> list[Past[E]]:
        try:
            return decode_all(page)
        except msgspec.ValidationError:  # an event in it is of an older version, or unknown
            past = []
            for kind, position, stream, recorded_at, data in decode_each(page):
                type_, _, schema = kind.rpartition(" ")
                past.append(Past(position, stream, recorded_at, codec.decode(type_, int(schema), bytes(data))))
            return past

    return decode


async def _given_up(task: asyncio.Task[asyncpg.Record | None]) -> None:
    """End a question that nobody waits for any longer, so that its connection is free again."""
    task.cancel()
    await asyncio.wait([task])


def _row(event: Recorded) -> tuple[object, ...]:
    return (
        event.position,
        event.stream,
        event.version,
        event.type,
        event.schema,
        event.data.decode(),
        event.meta.decode(),
        event.recorded_at,
        event.hash,
    )


def _recorded(row: asyncpg.Record) -> Recorded:
    position, stream, version, type_, schema, data, meta, recorded_at, hash_ = row
    return Recorded(position, stream, version, type_, schema, data.encode(), meta.encode(), recorded_at, hash_)
