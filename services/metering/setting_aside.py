"""The rows behind quota leases: locks of scopes, the one statement that reads, what is written. In the order of these functions.

Lock order, for everybody who touches leases: scopes first (sorted), then rows of quota_lease (by their name, in one statement). A
transaction that counts takes no scope, and its leases last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from services.metering.grants import Facts, Scope, SetAside, Sum
from services.metering.quota import Constraint
from shared.commands.quota import Returned
from shared.postgres import Connection

_APPS: Final = "SELECT client_id, account, zone FROM app JOIN account USING (account) WHERE client_id = ANY($1::text[])"
# The first is shared by all who grant; whoever counts again takes it alone, before it locks tables that grants read and write.
_LOCK: Final = """
    SELECT CASE key WHEN 0 THEN pg_advisory_xact_lock_shared(hashtextextended('tollbook quota ' || current_schema(), 0))
        ELSE pg_advisory_xact_lock(key) END FROM unnest(0::bigint || $1::bigint[]) AS key
"""
# The leases `named`, which are to be extended after this, are locked with those that are returned: in one order.
_TAKE_BACK: Final = """
    WITH locked AS MATERIALIZED (
        SELECT lease FROM quota_lease WHERE lease = ANY($1::text[] || $4::text[]) AND publisher = $3 AND closed_at IS NULL
        ORDER BY lease FOR NO KEY UPDATE)
    UPDATE quota_lease AS q SET stated = least(r.spent, q.units)
    FROM unnest($1::text[], $2::bigint[]) AS r(lease, spent)
    WHERE q.lease = r.lease AND q.publisher = $3 AND q.closed_at IS NULL AND q.stated IS NULL
        AND (SELECT count(*) FROM locked) > 0
"""
# Subqueries rather than joins: each is a look-up by a key, and planning many joins would take longer than doing this. The
# starts of windows are compared as values besides, so that the planner knows which few shelves can have the rows.
_READ: Final = """
    WITH wish AS (
        SELECT w.*, a.account, z.zone, a.deleted_at IS NOT NULL AS deleted, w.service = ANY(a.services) AS selected,
            w.service = ANY(a.test_services) AS in_test, al.version AS account_version, al.monthly AS account_monthly
        FROM unnest($1::int[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[])
            AS w(place, client_id, service, day_start, month_start, lease)
        JOIN app AS a USING (client_id) JOIN account AS z USING (account)
        LEFT JOIN account_limit AS al ON al.account = a.account AND al.service = w.service
    ), whole AS MATERIALIZED (
        SELECT account, service, month_start,
            (SELECT sum(c.units) FROM app AS a JOIN counter AS c USING (client_id) WHERE a.account = k.account
             AND c.service = k.service AND c.period = 'm' AND c.window_start = k.month_start
             AND c.window_start = ANY($5)) AS counted,
            (SELECT sum(greatest(0, coalesce(q.stated, q.units) - q.counted)) FROM quota_lease AS q WHERE q.closed_at IS NULL
             AND q.account = k.account AND q.service = k.service AND q.month_start = k.month_start) AS outstanding
        FROM (SELECT DISTINCT account, service, month_start FROM wish WHERE account_monthly IS NOT NULL) AS k
    )
    SELECT w.place, w.client_id, w.account, w.zone, w.deleted, w.selected, w.in_test, w.account_version, w.account_monthly,
        l.version, l.daily, l.monthly, o.day AS day_outstanding, o.month AS month_outstanding, o.others,
        (SELECT units FROM counter AS c WHERE c.client_id = w.client_id AND c.service = w.service AND c.period = 'd'
            AND c.window_start = w.day_start AND c.window_start = ANY($4)) AS day_counted,
        (SELECT units FROM counter AS c WHERE c.client_id = w.client_id AND c.service = w.service AND c.period = 'm'
            AND c.window_start = w.month_start AND c.window_start = ANY($5)) AS month_counted,
        (SELECT counted::bigint FROM whole WHERE whole.account = w.account AND whole.service = w.service
            AND whole.month_start = w.month_start) AS account_counted,
        (SELECT outstanding::bigint FROM whole WHERE whole.account = w.account AND whole.service = w.service
            AND whole.month_start = w.month_start) AS account_outstanding,
        (SELECT units FROM quota_lease AS q WHERE q.lease = w.lease AND q.publisher = $7 AND q.subject = $8
            AND q.client_id = w.client_id AND q.service = w.service AND q.day_start = w.day_start
            AND q.stated IS NULL AND q.end_sequence IS NULL AND q.closed_at IS NULL) AS held,
        NOT EXISTS (SELECT FROM progress WHERE sequence < told) AND NOT EXISTS (
            SELECT FROM unnest($9::text[], $10::bigint[]) AS f(subject, sequence) LEFT JOIN progress AS p USING (subject)
            WHERE coalesce(p.sequence, 0) < f.sequence) AS trusted
    FROM wish AS w
    LEFT JOIN app_limit AS l ON l.client_id = w.client_id AND l.service = w.service
    CROSS JOIN LATERAL (
        SELECT sum(greatest(0, coalesce(stated, units) - counted)) FILTER (WHERE q.day_start = w.day_start)::bigint AS day,
            sum(greatest(0, coalesce(stated, units) - counted)) FILTER (WHERE q.month_start = w.month_start)::bigint AS month,
            count(DISTINCT publisher) FILTER (WHERE publisher <> $7 AND stated IS NULL AND q.day_start = w.day_start) AS others
        FROM quota_lease AS q WHERE q.client_id = w.client_id AND q.service = w.service AND q.closed_at IS NULL
    ) AS o
"""
_MAKE: Final = """
    INSERT INTO quota_lease (lease, account, client_id, service, day_start, month_start, units, publisher, subject)
    SELECT n.*, $8, $9
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::bigint[]) AS n
"""
_EXTEND: Final = """
    WITH locked AS MATERIALIZED (SELECT lease FROM quota_lease WHERE lease = ANY($1::text[]) ORDER BY lease FOR NO KEY UPDATE)
    UPDATE quota_lease AS q SET units = q.units + e.added, extensions = q.extensions + 1
    FROM locked JOIN unnest($1::text[], $2::bigint[]) AS e(lease, added) USING (lease)
    WHERE q.lease = locked.lease AND q.stated IS NULL AND q.end_sequence IS NULL AND q.closed_at IS NULL
"""
# A refusal that was told is not marked again: whoever is refused asks again and again.
_EXHAUSTED: Final = """
    INSERT INTO exhausted_mark (account, client_id, service, period, window_start, window_end, version, used, quota)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::int[],
        $8::bigint[], $9::bigint[]) AS n(account, client_id, service, period, window_start, window_end, version, used, quota)
    WHERE NOT EXISTS (
        SELECT FROM told AS t WHERE t.account = n.account AND t.client_id = n.client_id AND t.service = n.service
        AND t.period = n.period AND t.window_start = n.window_start AND t.version = n.version AND t.exhausted)
    ON CONFLICT DO NOTHING
"""


class Home(NamedTuple):
    """Whose an application is, and in which zone: what never changes about it."""

    account: str
    zone: str


class Place(NamedTuple):
    """Where a wish stands in its request, and the windows that it is about."""

    place: int
    client_id: str
    service: str
    day_start: datetime
    month_start: datetime
    lease: str


class Snapshot(NamedTuple):
    """What the one statement read: facts by the wish's place, the zones that applications have, and whether counting is up to
    date."""

    facts: Mapping[int, Facts]
    homes: Mapping[str, Home]
    trusted: bool


async def read_homes(connection: Connection, client_ids: Iterable[str]) -> dict[str, Home]:
    """Of those of the applications that there are."""
    rows = await connection.fetch(_APPS, sorted(client_ids))
    return {row["client_id"]: Home(row["account"], row["zone"]) for row in rows}


async def lock_scopes(connection: Connection, scopes: Iterable[Scope]) -> None:
    """Wait for everybody who decides about these scopes, and have others wait until this transaction ends."""
    await connection.execute(_LOCK, sorted({_lock_key(scope) for scope in scopes}))


async def take_back(connection: Connection, publisher: str, returned: Sequence[Returned], named: Sequence[str]) -> None:
    """Note what was spent of returned leases, once. `named` are leases that are to be extended."""
    if returned:
        leases, spent = [one.lease for one in returned], [one.spent for one in returned]
        await connection.execute(_TAKE_BACK, leases, spent, publisher, named)


async def read_facts(
    connection: Connection, publisher: str, subject: str, wishes: Sequence[Place], floor: Mapping[str, int]
) -> Snapshot:
    """What is true now. `floor`: up to where each subject of USAGE has to be counted."""
    columns = [list(column) for column in zip(*wishes, strict=True)]
    rows = await connection.fetch(_READ, *columns, publisher, subject, list(floor), list(floor.values()))
    return Snapshot(
        {row["place"]: _facts(row) for row in rows},
        {row["client_id"]: Home(row["account"], row["zone"]) for row in rows},
        all(row["trusted"] for row in rows),
    )


async def write_leases(connection: Connection, publisher: str, subject: str, set_aside: Iterable[SetAside]) -> bool:
    """Make the new leases and extend the others; False if one of those could not be extended any more."""
    leases = list(set_aside)
    extended = [one for one in leases if one.before]
    made = [one for one in leases if not one.before]
    if extended:
        done = await connection.execute(_EXTEND, [one.lease for one in extended], [one.added for one in extended])
        if done != f"UPDATE {len(extended)}":
            return False
    if made:
        await connection.execute(
            _MAKE,
            [one.lease for one in made],
            [one.scope.account for one in made],
            [one.scope.client_id for one in made],
            [one.scope.service for one in made],
            [one.day.start for one in made],
            [one.month.start for one in made],
            [one.added for one in made],
            publisher,
            subject,
        )
    return True


async def mark_exhausted(connection: Connection, exhausted: Iterable[tuple[Scope, Constraint]]) -> None:
    """Have the first refusal of a window told."""
    rows = [
        (*scope, limit.period[0], limit.window_start, limit.resets_at, limit.version, limit.counted, limit.limit)
        for scope, limit in exhausted
    ]
    if rows:
        await connection.execute(_EXHAUSTED, *([*column] for column in zip(*rows, strict=True)))


def _facts(row: asyncpg.Record) -> Facts:
    return Facts(
        row["account"],
        row["deleted"],
        row["selected"],
        row["in_test"],
        row["version"] or 0,
        row["daily"],
        row["monthly"],
        row["account_version"] or 0,
        row["account_monthly"],
        Sum(row["day_counted"] or 0, row["day_outstanding"] or 0),
        Sum(row["month_counted"] or 0, row["month_outstanding"] or 0),
        Sum(row["account_counted"] or 0, row["account_outstanding"] or 0),
        row["others"],
        row["held"],
    )


def _lock_key(scope: Scope) -> int:
    """Two scopes with one key would wait for each other, no more."""
    name = f"tollbook scope {scope.account} {scope.client_id} {scope.service}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
