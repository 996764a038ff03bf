"""Named reads of notification rules: as they are shown, what decisions are made on, and how they came to be."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg
import msgspec

from services.alerts import people_queries
from services.alerts.rules import Rule, RuleFacts, Telling, evolve, rule_view
from shared.commands.notifications import NotificationsView
from shared.eventlog.log import Meta
from shared.eventlog.vault import Vault
from shared.events.alerts import CODEC, NotificationRuleChanged, Recipient, RecipientsChanged
from shared.postgres import Connection

_SELECTED: Final = "SELECT services FROM app WHERE account = $1 AND client_id = $2 AND NOT deleted"
_OPENED: Final = "SELECT true FROM account WHERE account = $1"
_RULE: Final = "SELECT * FROM rule WHERE account = $1 AND client_id = $2 AND service = $3"
_RECIPIENTS: Final = """
    SELECT contact_id, group_id, methods FROM recipient WHERE account = $1 AND client_id = $2 AND service = $3 ORDER BY place
"""
_GROUP_NAMES: Final = "SELECT group_id, name FROM contact_group WHERE account = $1 AND group_id = ANY($2::text[])"
# The whole stream, as a decision about the rule reads it, too: it is as long as somebody has changed the rule often.
_HISTORY: Final = "SELECT type, schema, data, meta, recorded_at FROM event WHERE stream = $1 ORDER BY version"

Scope = tuple[str, str, str]
"""(account, client_id, service); client_id "": of the account's own limit."""


class Changed(NamedTuple):
    """One change of a rule, from the log, and what the rule was from then on."""

    rule: Rule
    changed_by: str
    changed_at: datetime


async def selected_by(connection: Connection, account: str, client_id: str) -> Collection[str] | None:
    """The services that the application has selected; None: the account has no such application."""
    services: list[str] | None = await connection.fetchval(_SELECTED, account, client_id)
    return services


async def opened(connection: Connection, account: str) -> bool | None:
    """True, or None when the account is not open."""
    found: bool | None = await connection.fetchval(_OPENED, account)
    return found


async def rule_of(connection: Connection, scope: Scope) -> NotificationsView:
    """The rule of a scope without names and warnings. Version 0: none was ever set."""
    row = await connection.fetchrow(_RULE, *scope)
    _, client_id, service = scope
    if row is None:
        return rule_view(client_id, service, Rule(), None)
    telling = Telling(row["daily"], row["monthly"], tuple(row["daily_custom"]), tuple(row["monthly_custom"]))
    recipients = tuple(_recipient(one) for one in await connection.fetch(_RECIPIENTS, *scope))
    return rule_view(client_id, service, Rule(row["version"], telling, recipients), row["changed_at"])


async def facts_of(connection: Connection, scope: Scope, now: datetime, catalog: Collection[str]) -> RuleFacts:
    """What a decision about the scope is made on. `catalog`: the ids of its services."""
    account, client_id, _ = scope
    selected = await selected_by(connection, account, client_id) if client_id else None
    if not client_id and await opened(connection, account):
        selected = catalog
    row = await connection.fetchrow(_RULE, *scope)
    people = await people_queries.people_of(connection, account)
    return RuleFacts(now, selected, None if row is None else row["changed_at"], people)


async def names_of(
    connection: Connection, vault: Vault, account: str, recipients: Collection[tuple[str | None, str | None]]
) -> dict[str, str]:
    """The names of contacts and groups (pairs as in RecipientView: one of the two) that are there, by id."""
    contacts = {contact for contact, _ in recipients if contact}
    groups = {group for _, group in recipients if group}
    names = await people_queries.names_of(connection, vault, account, contacts)
    return names | {row["group_id"]: row["name"] for row in await connection.fetch(_GROUP_NAMES, account, list(groups))}


async def changes_of(connection: Connection, stream: str) -> list[Changed]:
    """Every change in the stream of a scope, the oldest first."""
    found: dict[int, Changed] = {}
    rule = Rule()
    for row in await connection.fetch(_HISTORY, stream):
        event = CODEC.decode(row["type"], row["schema"], row["data"])
        assert isinstance(event, NotificationRuleChanged | RecipientsChanged), "the stream of a rule has no other"
        rule = evolve(rule, event)
        found[event.version] = Changed(rule, msgspec.json.decode(row["meta"], type=Meta).actor, row["recorded_at"])
    return list(found.values())


def _recipient(row: asyncpg.Record) -> Recipient:
    return Recipient(row["contact_id"], row["group_id"], tuple(row["methods"]))
