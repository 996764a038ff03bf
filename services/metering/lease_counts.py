"""Quota leases as counting sees them: what is counted from each, and what came too late."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from services.metering.lapses import LapsedPlace, Lapses, LeaseUse
from services.metering.store import read_told
from shared.postgres import Connection
from shared.streams.message import Message
from shared.windows import from_us

_ENDS: Final = """
    SELECT lease, publisher, subject, end_sequence FROM quota_lease
    JOIN unnest($2::text[], $3::bigint[]) AS m(subject, newest) USING (subject) LEFT JOIN progress AS p USING (subject)
    WHERE lease = ANY($1::text[]) AND closed_at IS NOT NULL AND end_sequence < newest AND coalesce(p.told, 0) < newest
"""
_PLACES: Final = """
    SELECT subject, sequence, place FROM lapsed_record
    JOIN unnest($1::text[], $2::bigint[], $3::bigint[]) AS m(subject, oldest, newest) USING (subject)
    WHERE sequence BETWEEN oldest AND newest
"""
_KEEP_PLACES: Final = """
    INSERT INTO lapsed_record (subject, sequence, place) SELECT * FROM unnest($1::text[], $2::bigint[], $3::int[])
    ON CONFLICT DO NOTHING
"""
# What is of another's lease, or application, or day, counts all the same, but not for the lease.
_COUNT: Final = """
    WITH locked AS MATERIALIZED (SELECT lease FROM quota_lease WHERE lease = ANY($1::text[]) ORDER BY lease FOR NO KEY UPDATE),
    counted AS (
        UPDATE quota_lease AS q SET counted = q.counted + n.units
        FROM locked JOIN (
            SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::int[]) AS n(lease, client_id, units, source)
            JOIN unnest($5::int[], $6::text[], $7::text[], $8::text[], $9::timestamptz[])
                AS s(source, publisher, subject, service, day_start) USING (source)) AS n USING (lease)
        WHERE q.lease = locked.lease AND q.publisher = n.publisher AND q.subject = n.subject AND q.client_id = n.client_id
            AND q.service = n.service AND q.day_start = n.day_start
        RETURNING q.lease, q.subject, q.closed_at, q.end_sequence)
    SELECT lease, subject, end_sequence FROM counted WHERE closed_at IS NOT NULL AND end_sequence IS NOT NULL
"""


async def read_lapses(connection: Connection, used: Iterable[LeaseUse], messages: Sequence[Message]) -> Lapses:
    """What of these messages, which name those leases, came too late, or was retried. Nothing, nearly always."""
    oldest = {message.subject: message.sequence for message in reversed(messages)}
    newest = {message.subject: message.sequence for message in messages}
    leases = list({one.lease for one in used})
    ends = await connection.fetch(_ENDS, leases, list(newest), list(newest.values())) if leases else []
    places = await connection.fetch(_PLACES, list(newest), [oldest[subject] for subject in newest], list(newest.values()))
    return Lapses(
        {(row["lease"], row["publisher"], row["subject"]): row["end_sequence"] for row in ends},
        await read_told(connection, newest) if ends or places else {},
        frozenset(LapsedPlace(*row) for row in places),
    )


async def keep_lapsed(connection: Connection, places: Sequence[LapsedPlace]) -> None:
    """Keep the places of what is not to count there."""
    if places:
        await connection.execute(_KEEP_PLACES, *([*column] for column in zip(*places, strict=True)))


async def count_leases(connection: Connection, used: Mapping[LeaseUse, int]) -> dict[tuple[str, str], int]:
    """Note what has come from leases; the ends, by (lease, subject), of those that are closed and have one.

    Late in a transaction: from here to its end others wait for these rows.
    """
    rows = [(use, units) for use, units in used.items() if units]
    if not rows:
        return {}
    sources: dict[tuple[str, str, str, int], int] = {}  # few, however many leases there are
    numbers = [sources.setdefault((use.publisher, use.subject, use.service, use.day_start_us), len(sources)) for use, _ in rows]
    publishers, subjects, services, starts = (list(column) for column in zip(*sources, strict=True))
    found = await connection.fetch(
        _COUNT,
        [use.lease for use, _ in rows],
        [use.client_id for use, _ in rows],
        [units for _, units in rows],
        numbers,
        list(sources.values()),
        publishers,
        subjects,
        services,
        [from_us(us) for us in starts],
    )
    return {(row["lease"], row["subject"]): row["end_sequence"] for row in found}
