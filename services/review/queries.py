"""Named reads of review's tables: what lists and the bucket show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import asyncpg

from services.review.dashboard import ReviewValue, encode, key_of
from shared.commands.review import State, TestAppStatus
from shared.commands.reviews import ListReviews, ReviewItem
from shared.commands.service_apps import ApplicationSummary, ListApplications, TestAppView
from shared.postgres import Connection

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00Z")
_MICROSECOND: Final = timedelta(microseconds=1)
_NAME: Final = "coalesce((SELECT name FROM app WHERE app.client_id = a.client_id), '') AS app_name"
_APPLICATIONS: Final = f"""
    SELECT a.*, {_NAME} FROM application AS a
    WHERE account = $1 AND ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR client_id = $3)
        AND ($4::text IS NULL OR service = $4) AND ($5::boolean IS NULL OR (state IN ('superseded', 'retired')) = $5)
        AND ($6::bigint IS NULL OR drafted < $6)
    ORDER BY drafted DESC LIMIT $7
"""  # noqa: S608 - constants
_REVIEWS: Final = f"""
    SELECT a.*, {_NAME} FROM application AS a
    WHERE seen_state = ANY($1::text[]) AND ($2::text IS NULL OR claimed_by = $2) AND ($3::timestamptz IS NULL OR seen_due_at < $3)
        AND (seen_due_at, drafted) > ($4::timestamptz, $5::bigint)
    ORDER BY seen_due_at, drafted LIMIT $6
"""  # noqa: S608 - constants
_TEST_APPS: Final = """
    SELECT s.client_id, app.name, s.service, s.since, s.live_at, s.gone_at,
        EXISTS (SELECT FROM app_service AS o
            WHERE o.client_id = s.client_id AND o.service = s.service AND o.began > s.began) AS again,
        (SELECT review_id FROM application AS a WHERE a.client_id = s.client_id AND a.service = s.service
            AND (s.gone_at IS NULL OR a.drafted_at <= s.gone_at) AND a.drafted_at >= s.since
            ORDER BY drafted DESC LIMIT 1) AS service_app
    FROM app_service AS s JOIN app USING (client_id)
    WHERE app.account = $1 AND s.reviewed AND (s.live_at IS NOT NULL OR s.gone_at IS NOT NULL) = $2
    ORDER BY s.began DESC, s.service LIMIT $3
"""
# Of each service app the newest application, and the one that stands.
_VALUES: Final = """
    SELECT DISTINCT ON (account, client_id, service) a.*,
        (SELECT review_id FROM application AS l WHERE l.client_id = a.client_id AND l.service = a.service
            AND l.state IN ('approved', 'suspended')) AS live,
        e.position AS newest, e.recorded_at AS as_of
    FROM application AS a JOIN event AS e ON e.position = (
        SELECT max(position) FROM application AS o WHERE o.client_id = a.client_id AND o.service = a.service)
    WHERE (account, a.client_id, a.service) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))
    ORDER BY account, client_id, service, drafted DESC
"""
_KEYS: Final = "SELECT DISTINCT account, client_id, service FROM application"
TEST_APPS_MAX: Final = 1_000
"""Of an account in one answer, at most: the newest ones."""
_WAITING: Final[tuple[State, ...]] = ("submitted", "in_review")


class Applied(NamedTuple):
    """An application of a list, and the log position that it is listed by."""

    summary: ApplicationSummary
    drafted: int


class Queued(NamedTuple):
    """A review of a list, and what it is listed by: due time and log position."""

    item: ReviewItem
    place: tuple[int, int]


async def applications_of(connection: Connection, query: ListApplications, before: int | None) -> list[Applied]:
    """The account's applications that were begun before the log position, the newest first: one more than the query's limit."""
    chosen = (query.account, query.state, query.client_id, query.service, query.deprecated)
    rows = await connection.fetch(_APPLICATIONS, *chosen, before, query.limit + 1)
    return [Applied(_summary(row), row["drafted"]) for row in rows]


async def reviews(
    connection: Connection, query: ListReviews, after: tuple[int, int], now: datetime, needed: Mapping[str, int]
) -> list[Queued]:
    """Applications as reviewers see them, in the order of their due time, after a place (0, 0: from the first one): one more
    than the query's limit.

    `needed`: how many have to approve, by service.
    """
    states = (
        [state for state in _WAITING if query.state in (None, state)] if query.overdue or query.state is None else [query.state]
    )
    due, drafted = _EPOCH + after[0] * _MICROSECOND, after[1]
    claimed_by, due_before = query.reviewer if query.mine else None, now if query.overdue else None
    rows = await connection.fetch(_REVIEWS, states, claimed_by, due_before, due, drafted, query.limit + 1)
    return [Queued(_item(row, query.account, now, needed), _place(row)) for row in rows]


async def test_apps_of(connection: Connection, account: str, deprecated: bool) -> list[TestAppView]:
    """Applications of the account at services that are reviewed: that still test, or that do not any more."""
    return [
        TestAppView(
            client_id=row["client_id"],
            app_name=row["name"],
            service=row["service"],
            status=_status(row),
            since=row["since"],
            until=row["gone_at"] or row["live_at"],
            service_app=row["service_app"],
        )
        for row in await connection.fetch(_TEST_APPS, account, deprecated, TEST_APPS_MAX)
    ]


async def kv_keys(connection: Connection) -> list[str]:
    """Every key that the bucket `reviews` should hold."""
    return [key_of(*row) for row in await connection.fetch(_KEYS)]


async def kv_values(connection: Connection, keys: Sequence[str]) -> Mapping[str, bytes | None]:
    """The values of these keys in the bucket `reviews`."""
    values: dict[str, bytes | None] = dict.fromkeys(keys)
    accounts, client_ids, services = zip(*(key.split(".") for key in keys), strict=True)
    for row in await connection.fetch(_VALUES, accounts, client_ids, services):
        values[key_of(row["account"], row["client_id"], row["service"])] = encode(_value(row))
    return values


def _summary(row: asyncpg.Record) -> ApplicationSummary:
    return ApplicationSummary(
        id=row["review_id"],
        client_id=row["client_id"],
        app_name=row["app_name"],
        service=row["service"],
        state=row["state"],
        revision=row["revision"],
        model=row["model"] or None,
        task=row["task"] or None,
        amends=row["amends"] or None,
        superseded_by=row["superseded_by"] or None,
        drafted_at=row["drafted_at"],
        edited_at=row["edited_at"],
        submitted_at=row["submitted_at"],
        due_at=row["due_at"],
        decided_at=row["decided_at"],
    )


def _item(row: asyncpg.Record, account: str, now: datetime, needed: Mapping[str, int]) -> ReviewItem:
    waiting = row["seen_state"] in _WAITING
    return ReviewItem(
        id=row["review_id"],
        account=row["account"],
        client_id=row["client_id"],
        app_name=row["app_name"],
        service=row["service"],
        model=row["seen_model"] or None,
        task=row["seen_task"] or None,
        state=row["seen_state"],
        revision=row["seen_revision"],
        amends=row["amends"] or None,
        submitted_at=row["seen_submitted_at"],
        due_at=row["seen_due_at"],
        age_s=int((now - row["seen_submitted_at"]).total_seconds()),
        overdue=waiting and row["seen_due_at"] < now,
        claimed_by=row["claimed_by"],
        claimed_at=row["claimed_at"],
        approvals=row["approvals"],
        approvals_needed=needed.get(row["service"], 1),
        own=row["account"] == account,
    )


def _place(row: asyncpg.Record) -> tuple[int, int]:
    return (row["seen_due_at"] - _EPOCH) // _MICROSECOND, row["drafted"]


def _status(row: asyncpg.Record) -> TestAppStatus:
    if row["gone_at"] is not None:
        return "superseded" if row["again"] else "retired"
    return "test" if row["live_at"] is None else "live"


def _value(row: asyncpg.Record) -> ReviewValue:
    return ReviewValue(
        client_id=row["client_id"],
        service=row["service"],
        review_id=row["review_id"],
        state=row["state"],
        revision=row["revision"],
        model=row["model"] or None,
        task=row["task"] or None,
        amends=row["amends"] or None,
        live=row["live"],
        submitted_at=row["submitted_at"],
        due_at=row["due_at"],
        decided_at=row["decided_at"],
        as_of=row["as_of"],
        position=row["newest"],
    )
