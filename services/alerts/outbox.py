"""Messages as rows: how waiting notifications become some, who tries which, and what is known of them.

Times of claims go by the database's clock, which all who share the work have in common; all others by the service's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from services.alerts.appending import no_standstill
from services.alerts.bundling import ALONE, LATELY, Gathering, bundles, ready_at
from services.alerts.cards import Card, decode_card
from services.alerts.messages import Item
from services.alerts.trying import Standing
from shared.eventlog.vault import Vault, VaultKeyUnknown
from shared.events.alerts import About, Locale, Method, Verifying
from shared.ids import new_id
from shared.postgres import Connection

log = logging.getLogger(__name__)

GATHERINGS_MAX: Final = 1_000
"""Contacts and methods that get messages in one look, at most."""
_LOCK: Final = "alerts.outbox"
_ABOUT: Final = msgspec.json.Decoder(About)

_IN_NO_MESSAGE: Final = """
    state = 'waiting' AND due_at <= $1 AND NOT EXISTS (SELECT FROM message_item AS i WHERE i.request_id = n.request_id)
"""
_GATHERINGS: Final = f"""
    SELECT contact_id, method, min(due_at) AS first_due, bool_or(urgent) AS urgent,
        (SELECT count(*) FROM recent_message AS r
            WHERE r.contact_id = n.contact_id AND r.method = n.method AND r.made_at > $2) AS lately,
        kind = ANY($3::text[]) AS alone
    FROM notification AS n WHERE {_IN_NO_MESSAGE}
    GROUP BY contact_id, method, alone ORDER BY first_due LIMIT {GATHERINGS_MAX}
"""  # noqa: S608 - constants
# Who makes messages does so alone; another one who wants to has nothing to do.
_ALONE_HERE: Final = "SELECT pg_try_advisory_xact_lock(hashtext($1), hashtext(current_schema()))"
_READY: Final = f"""
    SELECT n.account, n.contact_id, n.method, n.request_id, n.urgent, n.deadline, n.kind
    FROM unnest($2::text[], $3::text[], $4::boolean[]) AS w(contact_id, method, alone)
    JOIN notification AS n ON n.contact_id = w.contact_id AND n.method = w.method AND (n.kind = ANY($5::text[])) = w.alone
    WHERE {_IN_NO_MESSAGE} ORDER BY n.contact_id, n.method, n.position
"""  # noqa: S608 - constants
_MAKE: Final = """
    INSERT INTO message
        (message_id, account, contact_id, method, urgent, created_at, deadline, attempts, next_at, claimed_by, answer)
    SELECT message_id, account, contact_id, method, urgent, $7, deadline, 0, $7, '', ''
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::timestamptz[])
        AS n(message_id, account, contact_id, method, urgent, deadline)
"""
_ITEMS_OF: Final = "INSERT INTO message_item (request_id, message_id) SELECT * FROM unnest($1::text[], $2::text[])"
_REMEMBER: Final = """
    WITH old AS (DELETE FROM recent_message WHERE made_at <= $4)
    INSERT INTO recent_message (contact_id, method, made_at) SELECT *, $3 FROM unnest($1::text[], $2::text[])
"""
_FREE: Final = "(claimed_until IS NULL OR claimed_until < clock_timestamp())"
_OUTLOOK: Final = f"""
    SELECT ARRAY(SELECT DISTINCT method FROM message WHERE next_at <= $1 AND {_FREE}) AS methods,
        least((SELECT min(next_at) FROM message WHERE next_at > $1),
            (SELECT min(due_at) FROM notification WHERE state = 'waiting' AND due_at > $1)) AS next_at
"""  # noqa: S608 - constants
_CLAIM: Final = f"""
    UPDATE message SET claimed_by = $1, claimed_until = clock_timestamp() + make_interval(secs => $2)
    WHERE message_id IN (
        SELECT message_id FROM message
        WHERE method = $3 AND next_at <= $4 AND {_FREE} AND message_id <> ALL($5::text[])
        ORDER BY urgent DESC, next_at LIMIT $6 FOR UPDATE SKIP LOCKED)
    RETURNING message_id, account, contact_id, method, created_at, deadline, attempts, answer
"""  # noqa: S608 - constants
_TOLD: Final = """
    SELECT i.message_id, n.request_id, n.client_id, n.app_name, n.service, n.about
    FROM message_item AS i JOIN notification AS n USING (request_id)
    WHERE i.message_id = ANY($1::text[]) AND n.state = 'waiting' ORDER BY n.position
"""
_PEOPLE: Final = """
    SELECT m.message_id, c.vault_id, c.locale, c.zone, v.sealed, a.verified, a.unsubscribed, a.code_vault_id
    FROM message AS m JOIN contact AS c USING (contact_id) JOIN vault AS v ON v.id = c.vault_id
    LEFT JOIN contact_method AS a ON a.contact_id = m.contact_id AND a.method = m.method
    WHERE m.message_id = ANY($1::text[])
"""
_CODES: Final = "SELECT id, sealed FROM vault WHERE id = ANY($1::text[])"
_LATER: Final = """
    UPDATE message AS m
    SET attempts = n.attempts, next_at = n.next_at, answer = n.answer, claimed_by = '', claimed_until = NULL
    FROM unnest($1::text[], $2::text[], $3::int[], $4::timestamptz[], $5::text[])
        AS n(message_id, claim, attempts, next_at, answer)
    WHERE m.message_id = n.message_id AND m.claimed_by = n.claim
"""
_WAITING: Final = "SELECT method, count(*) FROM notification WHERE state = 'waiting' GROUP BY method"


class Claimed(NamedTuple):
    """A message that this process alone may try until `until_s` of its own interval timer. `claim` proves it."""

    message_id: str
    account: str
    contact_id: str
    method: Method
    created_at: datetime
    deadline: datetime
    attempts: int
    answer: str
    claim: str
    until_s: float


class Person(NamedTuple):
    """Who is to be told, as of now."""

    card: Card
    locale: Locale
    zone: str
    code_vault_id: str | None


class Loaded(NamedTuple):
    """A message with all that is needed to send it. `person` None: the contact was removed. `codes` are those that the vault
    still has, by their ids there."""

    claimed: Claimed
    items: Sequence[Item]
    person: Person | None
    standing: Standing
    codes: Mapping[str, str]


class Outlook(NamedTuple):
    """What there is to do: methods with messages that can be tried now, and when something else comes up (None: nothing)."""

    methods: Collection[Method]
    next_at: datetime | None


class Put(NamedTuple):
    """A message that waits again, after that many tries; who does not have the `claim` any more changes nothing."""

    message_id: str
    claim: str
    attempts: int
    next_at: datetime
    answer: str


async def make_messages(connection: Connection, now: datetime) -> datetime | None:
    """Make messages of what is due and has waited for company long enough; returns when more will have (None: nothing waits)."""
    args = (now, now - LATELY, list(ALONE))
    ready: list[tuple[str, str, bool]] = []
    later: list[datetime] = []
    for contact_id, method, first_due, urgent, lately, alone in await connection.fetch(_GATHERINGS, *args):
        at = now if alone else ready_at(Gathering(contact_id, method, first_due, urgent, lately))
        if at <= now:
            ready.append((contact_id, method, alone))
        else:
            later.append(at)
    if ready:
        async with connection.transaction():
            await no_standstill(connection)
            if await connection.fetchval(_ALONE_HERE, _LOCK):
                await _make(connection, now, ready)
    return min(later, default=None)


async def _make(connection: Connection, now: datetime, ready: Sequence[tuple[str, str, bool]]) -> None:
    rows = await connection.fetch(_READY, now, *map(list, zip(*ready, strict=True)), list(ALONE))
    gathered: dict[tuple[str, ...], list[tuple[str, bool, datetime]]] = {}
    for account, contact_id, method, request_id, urgent, deadline, kind in rows:
        alone = request_id if kind in ALONE else ""
        gathered.setdefault((account, contact_id, method, alone), []).append((request_id, urgent, deadline))
    messages: list[tuple[object, ...]] = []
    items: list[tuple[str, str]] = []
    for (*whom, _), waiting in gathered.items():
        for bundle in bundles(waiting):
            message_id = new_id()
            urgent = any(one[1] for one in bundle)
            messages.append((message_id, *whom, urgent, min(one[2] for one in bundle)))
            items += [(one[0], message_id) for one in bundle]
    if messages:
        await connection.execute(_MAKE, *map(list, zip(*messages, strict=True)), now)
        await connection.execute(_ITEMS_OF, *map(list, zip(*items, strict=True)))
        bundled = [whom[1:3] for whom in gathered if not whom[3]]
        await connection.execute(_REMEMBER, [one[0] for one in bundled], [one[1] for one in bundled], now, now - LATELY)


async def outlook(connection: Connection, now: datetime) -> Outlook:
    """What there is to do with messages that are made."""
    row = await connection.fetchrow(_OUTLOOK, now)
    assert row is not None, "it has no FROM"
    return Outlook(row["methods"], row["next_at"])


async def claim(
    connection: Connection,
    method: Method,
    now: datetime,
    *,
    by: str,
    began_s: float,
    claim_s: float,
    but: Collection[str],
    at_most: int,
) -> list[Claimed]:
    """Take messages to try, for `claim_s`: what somebody waits for first, then the oldest, none of `but`.

    `began_s`: the caller's interval timer before it asked, so that it never holds a claim longer than others think.
    """
    rows = await connection.fetch(_CLAIM, by, claim_s, method, now, list(but), at_most)
    return [Claimed._make((*row, by, began_s + claim_s)) for row in rows]


async def load(connection: Connection, vault: Vault, claimed: Sequence[Claimed]) -> list[Loaded]:
    """What is needed to send them. Without items left, everything that a message was to tell is settled. One whose address cannot
    be opened is left out: it is tried again when its claim has ended, until its deadline."""
    ids = [one.message_id for one in claimed]
    items: dict[str, list[Item]] = {id_: [] for id_ in ids}
    for message_id, request_id, client_id, app_name, service, about in await connection.fetch(_TOLD, ids):
        items[message_id].append(Item(request_id, client_id, app_name, service, _ABOUT.decode(about)))
    people: dict[str, tuple[Person, Standing]] = {}
    for message_id, vault_id, locale, zone, sealed, verified, unsubscribed, code in await connection.fetch(_PEOPLE, ids):
        try:
            card = decode_card(vault.open_kept(vault_id, sealed))
        except VaultKeyUnknown as error:
            log.error("alerts: message %s: %s", message_id, error)  # noqa: TRY400
            ids.remove(message_id)
            continue
        people[message_id] = Person(card, locale, zone, code), Standing(True, bool(verified), bool(unsubscribed))
    wanted = {item.about.vault_id for told in items.values() for item in told if isinstance(item.about, Verifying)}
    rows = await connection.fetch(_CODES, sorted(wanted)) if wanted else []
    codes = {row["id"]: vault.open_kept(row["id"], row["sealed"]).decode() for row in rows}
    loaded = []
    for one in (one for one in claimed if one.message_id in ids):
        person, standing = people.get(one.message_id, (None, Standing()))
        loaded.append(Loaded(one, items[one.message_id], person, standing, codes))
    return loaded


async def put_back(connection: Connection, back: Sequence[Put]) -> None:
    """Have them wait again."""
    if back:
        await connection.execute(_LATER, *map(list, zip(*back, strict=True)))


async def count_waiting(connection: Connection) -> dict[str, int]:
    """Notifications that wait, by method."""
    return {row[0]: row[1] for row in await connection.fetch(_WAITING)}
