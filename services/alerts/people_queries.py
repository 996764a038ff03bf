"""Named reads of contacts and groups. Names and addresses are opened from the vault for the rows that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from services.alerts.cards import decode_card
from services.alerts.contacts import Code, Contact, Kept, Standing
from services.alerts.rules import People
from shared.commands.contacts import GroupMember, GroupView
from shared.eventlog.vault import Vault
from shared.events.alerts import METHODS, Method, QuietHours
from shared.postgres import Connection

_METHODS: Final = """
    ARRAY(SELECT row(method, verified, unsubscribed, code_vault_id, code_expires_at)
        FROM contact_method AS m WHERE m.contact_id = c.contact_id) AS methods
"""
_CONTACTS: Final = f"""
    SELECT c.*, sealed, {_METHODS} FROM contact AS c JOIN vault ON vault.id = c.vault_id
    WHERE account = $1 AND ($2::text IS NULL OR contact_id = $2)
"""  # noqa: S608 - constants
_CODES: Final = """
    SELECT id, sealed FROM contact_method JOIN vault ON id = code_vault_id WHERE contact_id = $1 AND method = $2
"""
_ASKED_FOR: Final = """
    SELECT contact_id, method, requested_at FROM notification WHERE account = $1 AND kind = $2 AND requested_at > $3
    ORDER BY requested_at
"""
_IDS: Final = "SELECT contact_id FROM contact WHERE account = $1"
_PEOPLE: Final = f"SELECT contact_id, {_METHODS} FROM contact AS c WHERE account = $1"  # noqa: S608 - constants
_NAMES: Final = """
    SELECT contact_id, vault_id, sealed FROM contact JOIN vault ON id = vault_id
    WHERE account = $1 AND contact_id = ANY($2::text[])
"""
_GROUPS: Final = """
    SELECT group_id, name, ARRAY(
        SELECT contact_id FROM group_member AS m JOIN contact USING (contact_id) WHERE m.group_id = g.group_id
    ) AS contacts
    FROM contact_group AS g WHERE account = $1 AND ($2::text IS NULL OR group_id = $2) ORDER BY name, group_id
"""


class Known(NamedTuple):
    """A contact as of now, with what is kept of it. Of a code it says where it is and until when, but not how many attempts."""

    contact: Contact
    kept: Kept


class AskedFor(NamedTuple):
    """A message to a contact that somebody asked for."""

    contact_id: str
    method: Method
    at: datetime


class GroupRow(NamedTuple):
    """A group; `contacts` are those of it that are there."""

    group_id: str
    name: str
    contacts: Sequence[str]


async def contacts_of(connection: Connection, vault: Vault, account: str, contact_id: str | None = None) -> list[Known]:
    """The account's contacts, or that one if it has it, by name."""
    found = [_known(row, vault) for row in await connection.fetch(_CONTACTS, account, contact_id)]
    return sorted(found, key=lambda one: (one.kept.card.name, one.contact.contact_id))


async def contact_of(connection: Connection, vault: Vault, account: str, contact_id: str) -> Known | None:
    """The account's contact with that id, if it has it."""
    return next(iter(await contacts_of(connection, vault, account, contact_id)), None)


async def contact_ids(connection: Connection, account: str) -> frozenset[str]:
    """The ids of the account's contacts."""
    return frozenset(row["contact_id"] for row in await connection.fetch(_IDS, account))


async def names_of(connection: Connection, vault: Vault, account: str, contact_ids: Collection[str]) -> dict[str, str]:
    """The names of those contacts that are there and the account's, by id."""
    rows = await connection.fetch(_NAMES, account, list(contact_ids))
    return {row["contact_id"]: decode_card(vault.open_kept(row["vault_id"], row["sealed"])).name for row in rows}


async def codes_for(connection: Connection, vault: Vault, contact_id: str, method: Method) -> dict[str, str]:
    """The code that waits to be entered for that address, by its id in the vault."""
    rows = await connection.fetch(_CODES, contact_id, method)
    return {row["id"]: vault.open_kept(row["id"], row["sealed"]).decode() for row in rows}


async def asked_for(connection: Connection, account: str, kind: str, after: datetime) -> list[AskedFor]:
    """The account's messages of that kind, "verification" or "test", that were asked for after then, the oldest first."""
    return [AskedFor(*row) for row in await connection.fetch(_ASKED_FOR, account, kind, after)]


async def people_of(connection: Connection, account: str) -> People:
    """Whom the account has."""
    contacts = {row["contact_id"]: _standings(row) for row in await connection.fetch(_PEOPLE, account)}
    return People(contacts, {group.group_id: group.contacts for group in await groups_of(connection, account)})


async def groups_of(connection: Connection, account: str, group_id: str | None = None) -> list[GroupRow]:
    """The account's groups, or that one if it has it, by name."""
    return [GroupRow(*row) for row in await connection.fetch(_GROUPS, account, group_id)]


def group_view(group_id: str, name: str, contacts: Collection[str], names: Mapping[str, str]) -> GroupView:
    """The group with its contacts by name; those without a name are not there any more."""
    members = sorted((names[contact], contact) for contact in contacts if contact in names)
    shown = tuple(GroupMember(contact_id=contact, name=called) for called, contact in members)
    return GroupView(group_id=group_id, name=name, contacts=shown)


def _known(row: asyncpg.Record, vault: Vault) -> Known:
    quiet = None if row["quiet_start"] is None else QuietHours(row["quiet_start"], row["quiet_end"])
    contact = Contact(
        account=row["account"],
        contact_id=row["contact_id"],
        vault_id=row["vault_id"],
        methods=_standings(row),
        locale=row["locale"],
        zone=row["zone"],
        quiet_hours=quiet,
        digest_at=row["digest_at"],
    )
    card = decode_card(vault.open_kept(row["vault_id"], row["sealed"]))
    return Known(contact, Kept(card, row["added_at"], row["edited_at"]))


def _standings(row: asyncpg.Record) -> dict[Method, Standing]:
    found: dict[Method, Standing] = {}
    for method, verified, unsubscribed, code_vault_id, code_expires_at in row["methods"]:
        code = None if code_vault_id is None else Code(code_vault_id, code_expires_at)
        found[method] = Standing(verified, unsubscribed, code)
    return {method: found[method] for method in METHODS if method in found}
