"""Named reads of what was to be sent and what became of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import asyncpg
import msgspec

from services.alerts.dashboard import NEWEST_MAX, Counts, Newest, NotificationsValue, Told, encode, key_of, split_key
from services.alerts.people_queries import names_of
from shared.commands.notifications import Deliveries, DeliveryCounts, DeliveryView, ListDeliveries
from shared.eventlog.vault import Vault
from shared.events.alerts import rungs_of
from shared.postgres import Connection

# While one waits, its message knows more of it than the log.
_DELIVERIES: Final = """
    SELECT n.*, coalesce(n.message_id, m.message_id) AS known_as, coalesce(m.attempts, n.attempts) AS tries,
        coalesce(m.answer, n.answer) AS said, m.next_at
    FROM (
        SELECT * FROM notification
        WHERE account = $1 AND ($2::text IS NULL OR client_id = $2) AND ($3::text IS NULL OR contact_id = $3)
            AND ($4::text IS NULL OR state = $4) AND ($5::text IS NULL OR kind = $5) AND ($6::bigint IS NULL OR position < $6)
        ORDER BY position DESC LIMIT $7) AS n
    LEFT JOIN message_item AS i ON n.state = 'waiting' AND i.request_id = n.request_id
    LEFT JOIN message AS m ON m.message_id = i.message_id
    ORDER BY n.position DESC
"""
_COUNTS: Final = """
    SELECT state, count(*) FROM notification
    WHERE account = $1 AND ($2::text IS NULL OR client_id = $2) AND ($3::text IS NULL OR contact_id = $3) GROUP BY state
"""
_KEYS: Final = """
    SELECT account, client_id FROM rule UNION SELECT account, client_id FROM notification
"""
_SHOWN: Final = f"""
    SELECT k.account, k.client_id, h.position, (SELECT recorded_at FROM event AS e WHERE e.position = h.position) AS as_of,
        ARRAY(SELECT row(state, count(*)) FROM notification AS n
            WHERE n.account = k.account AND n.client_id = k.client_id GROUP BY state) AS counts,
        ARRAY(SELECT json_build_array(service, daily, monthly, daily_custom, monthly_custom)::text FROM rule AS r
            WHERE r.account = k.account AND r.client_id = k.client_id ORDER BY service) AS rules,
        ARRAY(SELECT row(request_id, service, contact_id, method, kind, (about::jsonb ->> 'percent')::int, state,
                requested_at, due_at, settled_at, reason)
            FROM notification AS n WHERE n.account = k.account AND n.client_id = k.client_id
            ORDER BY position DESC LIMIT {NEWEST_MAX}) AS newest
    FROM unnest($1::text[], $2::text[]) AS k(account, client_id) CROSS JOIN log_head AS h
"""  # noqa: S608 - constants


async def deliveries_of(connection: Connection, vault: Vault, query: ListDeliveries) -> Deliveries:
    """One page of what was to be sent."""
    chosen = (query.account, query.client_id, query.contact_id, query.state, query.kind, query.before)
    found = await connection.fetch(_DELIVERIES, *chosen, query.limit + 1)
    shown = found[: query.limit]
    names = await names_of(connection, vault, query.account, {row["contact_id"] for row in shown})
    next_before = shown[-1]["position"] if len(found) > query.limit else None
    return Deliveries(deliveries=tuple(_view(row, names.get(row["contact_id"])) for row in shown), next_before=next_before)


async def counts_of(connection: Connection, account: str, client_id: str | None, contact_id: str | None) -> DeliveryCounts:
    """How many there are in each state."""
    found = {row[0]: row[1] for row in await connection.fetch(_COUNTS, account, client_id, contact_id)}
    return DeliveryCounts(waiting=found.get("waiting", 0), delivered=found.get("delivered", 0), failed=found.get("failed", 0))


async def dashboard_keys(connection: Connection) -> list[str]:
    """Every key of the bucket `notifications`."""
    return [key_of(*row) for row in await connection.fetch(_KEYS)]


async def dashboard_values(connection: Connection, keys: list[str]) -> dict[str, bytes | None]:
    """What KvProjection asks: the values of keys of the bucket `notifications`."""
    wanted = [split_key(key) for key in keys]
    values: dict[str, bytes | None] = dict.fromkeys(keys)
    for row in await connection.fetch(_SHOWN, [key[0] for key in wanted], [key[1] for key in wanted]):
        if row["rules"] or row["newest"]:
            values[key_of(row["account"], row["client_id"])] = encode(_value(row))
    return values


def _value(row: asyncpg.Record) -> NotificationsValue:
    rules = {
        service: Told(rungs_of(daily, daily_custom), rungs_of(monthly, monthly_custom))
        for service, daily, monthly, daily_custom, monthly_custom in map(msgspec.json.decode, row["rules"])
    }
    return NotificationsValue(
        row["client_id"],
        Counts(**dict(row["counts"])),
        rules,
        tuple(_newest(one) for one in row["newest"]),
        row["as_of"],
        row["position"],
    )


def _newest(row: Collection[Any]) -> Newest:
    delivery_id, service, contact_id, method, kind, percent, *rest = row
    return Newest(delivery_id, service, contact_id, method, kind, percent, *rest)


def _view(row: asyncpg.Record, contact_name: str | None) -> DeliveryView:
    about = msgspec.json.decode(row["about"])
    about.pop("vault_id", None)
    about.pop("type", None)
    return DeliveryView(
        delivery_id=row["request_id"],
        client_id=row["client_id"] or None,
        service=row["service"] or None,
        app_name=row["app_name"],
        contact_id=row["contact_id"],
        contact_name=contact_name,
        method=row["method"],
        kind=row["kind"],
        about=about,
        state=row["state"],
        requested_at=row["requested_at"],
        due_at=row["due_at"],
        deadline=row["deadline"],
        attempts=row["tries"],
        next_attempt_at=row["next_at"],
        settled_at=row["settled_at"],
        message_id=row["known_as"],
        provider_id=row["provider_id"],
        reason=row["reason"],
        answer=row["said"],
    )
