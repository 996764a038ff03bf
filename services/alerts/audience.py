"""Whom the rules of applications name, and whom accounts have, as rows say it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from services.alerts.holding import Wishes
from services.alerts.telling import Audience, Cause, Reached, Rule, Scope, rule_of
from shared.events.alerts import AboutReview
from shared.postgres import Connection

_RULES: Final = """
    SELECT account, client_id, service, daily, monthly, daily_custom, monthly_custom
    FROM unnest($1::text[], $2::text[]) AS w(account, client_id) JOIN rule USING (account, client_id)
"""
# A contact that is named itself and in groups, or in several, is told once.
_REACHED: Final = """
    SELECT DISTINCT r.account, r.client_id, r.service, c.contact_id, m.method, c.zone, c.quiet_start, c.quiet_end, c.digest_at
    FROM unnest($1::text[], $2::text[]) AS w(account, client_id) JOIN recipient AS r USING (account, client_id)
    CROSS JOIN LATERAL (
        SELECT r.contact_id UNION SELECT g.contact_id FROM group_member AS g WHERE g.group_id = r.group_id) AS named(contact_id)
    JOIN contact AS c ON c.contact_id = named.contact_id AND c.account = r.account
    JOIN contact_method AS m
        ON m.contact_id = c.contact_id AND m.method = ANY(r.methods) AND m.verified AND NOT m.unsubscribed
    ORDER BY r.account, r.client_id, r.service, c.contact_id, m.method
"""
_EVERYBODY: Final = """
    SELECT c.account, c.contact_id, m.method, c.zone, c.quiet_start, c.quiet_end, c.digest_at
    FROM contact AS c JOIN contact_method AS m USING (contact_id)
    WHERE c.account = ANY($1::text[]) AND m.verified AND NOT m.unsubscribed
    ORDER BY c.account, c.contact_id, m.method
"""
_NAMES: Final = "SELECT client_id, name FROM app WHERE client_id = ANY($1::text[])"


async def audience_of(connection: Connection, causes: Collection[Cause]) -> Audience:
    """Everybody whom the rules name that may concern the causes; of accounts that a review concerns, everybody."""
    apps = sorted({(cause.account, cause.client_id) for cause in causes})
    accounts, client_ids = [account for account, _ in apps], [client_id for _, client_id in apps]
    rules: dict[Scope, Rule] = {}
    for account, client_id, service, *told in await connection.fetch(_RULES, accounts, client_ids):
        rules[account, client_id, service] = rule_of(*told)
    reached: dict[Scope, list[Reached]] = {}
    if rules:
        for account, client_id, service, contact_id, method, *wishes in await connection.fetch(_REACHED, accounts, client_ids):
            reached.setdefault((account, client_id, service), []).append(Reached(contact_id, method, Wishes(*wishes)))
    everybody: dict[str, list[Reached]] = {}
    reviewed = sorted({cause.account for cause in causes if isinstance(cause.about, AboutReview)})
    if reviewed:
        for account, contact_id, method, *wishes in await connection.fetch(_EVERYBODY, reviewed):
            everybody.setdefault(account, []).append(Reached(contact_id, method, Wishes(*wishes)))
    somebody = reached or everybody
    names = {row["client_id"]: row["name"] for row in await connection.fetch(_NAMES, client_ids)} if somebody else {}
    return Audience(rules, reached, names, everybody)
