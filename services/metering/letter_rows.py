"""Dead letters as rows: what the consumer of DEADLETTER writes, and what operators ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg

from services.metering.letters import Letter, read_letter
from shared.commands.deadletters import (
    DeadLetterCount,
    DeadLetterCounts,
    DeadLetterPage,
    DeadLetterView,
    ListDeadLetters,
)
from shared.postgres import Connection
from shared.streams.message import Message

_VIEW: Final = """
    SELECT l.sequence AS letter, l.recorded_at, l.why, l.reason, l.subject, l.original_sequence, l.original_at, l.record,
        l.records, l.size, nullif(l.sender, '') AS sender, nullif(l.client_id, '') AS client_id, app.account, l.retry_of,
        nullif(l.left_out, '') AS left_out, coalesce(s.state, 'open') AS state, s.note, s.settled_by, s.settled_at,
        sent.usage_sequence AS sent_as
    FROM dead_letter AS l LEFT JOIN dead_letter_settled AS s USING (sequence) LEFT JOIN dead_letter_sent AS sent USING (sequence)
    LEFT JOIN app ON app.client_id = l.client_id
"""
_LIST: Final = f"""{_VIEW}
    WHERE ($1::text IS NULL OR l.why = $1) AND ($2::text IS NULL OR coalesce(s.state, 'open') = $2)
        AND ($3::text IS NULL OR l.sender = $3) AND ($4::timestamptz IS NULL OR l.recorded_at >= $4)
        AND ($5::timestamptz IS NULL OR l.recorded_at <= $5) AND ($6::bigint IS NULL OR l.sequence < $6)
    ORDER BY l.sequence DESC LIMIT $7
"""
_ONE: Final = f"{_VIEW} WHERE l.sequence = $1"
_COUNTS: Final = """
    SELECT why, count(*) FILTER (WHERE s.state IS NULL) AS open, count(*) FILTER (WHERE s.state = 'retried') AS retried,
        count(*) FILTER (WHERE s.state = 'discarded') AS discarded
    FROM dead_letter LEFT JOIN dead_letter_settled AS s USING (sequence) GROUP BY why ORDER BY why
"""
_TO_SEND: Final = """
    SELECT s.sequence FROM dead_letter_settled AS s
    WHERE s.state = 'retried' AND NOT EXISTS (SELECT FROM dead_letter_sent AS d WHERE d.sequence = s.sequence)
    ORDER BY s.sequence LIMIT $1
"""
_SENT: Final = """
    INSERT INTO dead_letter_sent (sequence, usage_sequence, sent_at) VALUES ($1, $2, now()) ON CONFLICT (sequence) DO NOTHING
"""


async def keep_letters(connection: Connection, messages: Sequence[Message]) -> None:
    """What the consumer of DEADLETTER does with each batch of messages, in its transaction."""
    rows = [read_letter(message) for message in messages]
    await connection.copy_records_to_table("dead_letter", records=rows, columns=Letter._fields)


async def page_of(connection: Connection, query: ListDeadLetters) -> DeadLetterPage:
    """The page that is asked for."""
    rows = await connection.fetch(
        _LIST, query.why, query.state, query.sender, query.from_, query.to, query.before, query.limit + 1
    )
    shown = [view_of(row) for row in rows[: query.limit]]
    return DeadLetterPage(letters=tuple(shown), next_before=shown[-1].letter if len(rows) > query.limit else None)


async def find_letter(connection: Connection, sequence: int) -> DeadLetterView | None:
    """One letter, None if there is none, or not yet."""
    row = await connection.fetchrow(_ONE, sequence)
    return None if row is None else view_of(row)


async def counts_of(connection: Connection) -> DeadLetterCounts:
    """How many there are."""
    return DeadLetterCounts(counts=tuple(DeadLetterCount(**dict(row)) for row in await connection.fetch(_COUNTS)))


async def to_send(connection: Connection, limit: int) -> list[int]:
    """Letters that are to be retried and were not sent yet."""
    return [row["sequence"] for row in await connection.fetch(_TO_SEND, limit)]


async def note_sent(connection: Connection, sequence: int, usage_sequence: int | None) -> None:
    """That a letter was sent again, as that message of USAGE; None: it cannot be."""
    await connection.execute(_SENT, sequence, usage_sequence)


def view_of(row: asyncpg.Record | Mapping[str, Any]) -> DeadLetterView:
    """The view in a row."""
    return DeadLetterView(**dict(row))
