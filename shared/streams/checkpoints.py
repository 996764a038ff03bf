"""Checkpoints: up to which message a consumer has applied a stream. Rows beside those that it has made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from shared.postgres import Connection

_FIRST: Final = """
    INSERT INTO checkpoint (consumer, stream, subject, sequence, hash) VALUES ($1, $2, $3, 0, '')
    ON CONFLICT (consumer, stream, subject) DO NOTHING
"""
_READ: Final = "SELECT sequence, hash FROM checkpoint WHERE consumer = $1 AND stream = $2 AND subject = $3"
_MOVE: Final = """
    UPDATE checkpoint AS c SET sequence = m.sequence, hash = m.hash
    FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bytea[]) AS m(stream, subject, expected, sequence, hash)
    WHERE c.consumer = $1 AND c.stream = m.stream AND c.subject = m.subject AND c.sequence = m.expected
"""
_PUT: Final = """
    INSERT INTO checkpoint (consumer, stream, subject, sequence, hash) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (consumer, stream, subject) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash
"""


class Source(NamedTuple):
    """A stream, or the part of it under one subject filter. Sources of one consumer must not overlap.

    `optional`: whose stream it is may not be deployed, or not yet. Until there is such a stream, the consumer is ready without
    it; from its first message on it has to be there.
    """

    stream: str
    subject: str | None = None
    optional: bool = False

    @property
    def label(self) -> str:
        return self.stream if self.subject is None else f"{self.stream} {self.subject}"


class Point(NamedTuple):
    """The last message that was applied; sequence 0, hash b"": none was."""

    sequence: int
    hash: bytes


class Move(NamedTuple):
    """From the sequence `expected` to a point."""

    source: Source
    expected: int
    to: Point


async def read_point(connection: Connection, consumer: str, source: Source) -> Point:
    """Where the consumer stands. One that never read the source stands before its first message."""
    key = (consumer, source.stream, source.subject or "")
    row = await connection.fetchrow(_READ, *key)
    if row is None:
        await connection.execute(_FIRST, *key)
        row = await connection.fetchrow(_READ, *key)
    assert row is not None, "it was just inserted"
    return Point(row["sequence"], row["hash"])


async def move_points(connection: Connection, consumer: str, moves: Sequence[Move]) -> bool:
    """Compare and set: False, with nothing of it to be committed, if any is not where it was expected."""
    moved: str = await connection.execute(
        _MOVE,
        consumer,
        [move.source.stream for move in moves],
        [move.source.subject or "" for move in moves],
        [move.expected for move in moves],
        [move.to.sequence for move in moves],
        [move.to.hash for move in moves],
    )
    return moved == f"UPDATE {len(moves)}"


async def put_point(connection: Connection, consumer: str, source: Source, point: Point) -> None:
    """Have the consumer stand there. Waits for a transaction that moves it; whoever goes on from elsewhere is fenced off."""
    await connection.execute(_PUT, consumer, source.stream, source.subject or "", *point)
