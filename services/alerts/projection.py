"""Events of alerts' own log as changes of its tables, and of the keys of the KV bucket `notifications`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from services.alerts.dashboard import BUCKET, key_of
from services.alerts.holding import is_urgent
from shared.eventlog.changes import Change, Write, delete, insert, update
from shared.events.alerts import (
    AlertsEvent,
    ContactAdded,
    ContactEdited,
    ContactRemoved,
    ContactUnsubscribed,
    ContactVerified,
    GroupChanged,
    GroupRemoved,
    NotificationDelivered,
    NotificationFailed,
    NotificationRequested,
    NotificationRuleChanged,
    QuietHours,
    RecipientsChanged,
    VerificationFailed,
    VerificationRequested,
)
from shared.streams.marks import mark_dirty

if TYPE_CHECKING:
    from datetime import datetime

    from shared.eventlog.log import Placed

TABLES: Final = ("contact", "contact_method", "contact_group", "group_member", "rule", "recipient", "notification")
"""What a rebuild empties first."""

_CONTACT: Final = {"contact_id": "text"}
_SHOWN: Final = {
    "vault_id": "text",
    "locale": "text",
    "zone": "text",
    "quiet_start": "text",
    "quiet_end": "text",
    "digest_at": "text",
    "edited_at": "timestamptz",
}
_ADD: Final = insert("contact", {**_CONTACT, "account": "text", **_SHOWN, "added_at": "timestamptz"})
_EDIT: Final = update("contact", _CONTACT, _SHOWN)
_REMOVE: Final = delete("contact", _CONTACT)

_METHOD: Final = {"contact_id": "text", "method": "text"}
_THE_CODE: Final = {"code_vault_id": "text", "code_expires_at": "timestamptz"}
_STANDING: Final = {"verified": "boolean", "unsubscribed": "boolean", **_THE_CODE}
_HAVE: Final = insert("contact_method", {**_METHOD, **_STANDING})
_HAVE_NOT: Final = delete("contact_method", _METHOD)
_HAVE_NONE: Final = delete("contact_method", _CONTACT)
_CODE: Final = update("contact_method", _METHOD, _THE_CODE)
_VERIFY: Final = update("contact_method", _METHOD, _STANDING)
_UNSUBSCRIBE: Final = update("contact_method", _METHOD, {"unsubscribed": "boolean"})

_GROUP: Final = {"group_id": "text"}
_MAKE_GROUP: Final = insert("contact_group", {**_GROUP, "account": "text", "name": "text"})
_DROP_GROUP: Final = delete("contact_group", _GROUP)
_JOIN: Final = Write(
    "group_member",
    """
    INSERT INTO group_member (group_id, contact_id)
    SELECT group_id, unnest(contacts::text[]) FROM unnest($1::text[], $2::text[]) AS n(group_id, contacts)
    """,
)
_EMPTY_GROUP: Final = delete("group_member", _GROUP)

_SCOPE: Final = {"account": "text", "client_id": "text", "service": "text"}
_DROP_RULE: Final = delete("rule", _SCOPE)
_RULE: Final = """
    INSERT INTO rule (account, client_id, service, version, daily, monthly, daily_custom, monthly_custom, changed_at)
    SELECT account, client_id, service, version, daily, monthly, daily_custom::int[], monthly_custom::int[], at
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::int[], $6::int[], $7::text[], $8::text[], $9::timestamptz[])
        AS n(account, client_id, service, version, daily, monthly, daily_custom, monthly_custom, at)
"""
# The first event of a scope may be either: then the rule is one that tells nothing.
_VERSION: Final = """
    INSERT INTO rule (account, client_id, service, version, daily_custom, monthly_custom, changed_at)
    SELECT account, client_id, service, version, '{}', '{}', at
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::timestamptz[]) AS n(account, client_id, service, version, at)
    ON CONFLICT (account, client_id, service) DO UPDATE SET version = excluded.version, changed_at = excluded.changed_at
"""
_FORGET_RECIPIENTS: Final = delete("recipient", _SCOPE)
_RECIPIENTS: Final = """
    INSERT INTO recipient (account, client_id, service, place, contact_id, group_id, methods)
    SELECT account, client_id, service, place, contact_id, group_id, methods
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS n(account, client_id, service, recipients),
        ROWS FROM (jsonb_to_recordset(n.recipients::jsonb) AS (contact_id text, group_id text, methods text[]))
            WITH ORDINALITY AS r(contact_id, group_id, methods, place)
"""
# A contact or group that is removed stays in the rows of groups and recipients: whoever reads them joins what is there.

_FATE: Final = {
    "state": "text",
    "message_id": "text",
    "attempts": "integer",
    "provider_id": "text",
    "reason": "text",
    "answer": "text",
    "settled_at": "timestamptz",
}
_WAITING: Final = ("waiting", None, 0, None, None, "", None)
_REQUEST: Final = insert(
    "notification",
    {
        "request_id": "text",
        **_SCOPE,
        "app_name": "text",
        **_METHOD,
        "kind": "text",
        "about": "text",
        "urgent": "boolean",
        "requested_at": "timestamptz",
        "due_at": "timestamptz",
        "deadline": "timestamptz",
        "position": "bigint",
        **_FATE,
    },
)
_SETTLE: Final = update("notification", {"request_id": "text"}, _FATE)


def project(recorded: Placed, event: AlertsEvent) -> list[Change]:
    """The changes that `event` makes."""
    at = recorded.recorded_at
    match event:
        case ContactAdded() | ContactEdited() | ContactRemoved():
            return _contact(event, at)
        case VerificationRequested() | VerificationFailed() | ContactVerified() | ContactUnsubscribed():
            return _standing(event)
        case GroupChanged() | GroupRemoved():
            return _group(event)
        case NotificationRuleChanged() | RecipientsChanged():
            return [*_rule(event, at), _marked(event.account, event.client_id)]
        case NotificationRequested():
            return [_requested(event, at, recorded.position), _marked(event.account, event.client_id)]
        case NotificationDelivered() | NotificationFailed():
            return [_settled(event, at), _marked(event.account, event.client_id)]
        case _:
            assert_never(event)


def _contact(event: ContactAdded | ContactEdited | ContactRemoved, at: datetime) -> list[Change]:
    about = event.contact_id
    if isinstance(event, ContactRemoved):
        return [Change(statement, (about,), about) for statement in (_REMOVE, _HAVE_NONE)]
    quiet = event.quiet_hours or QuietHours("", "")
    shown = (event.vault_id, event.locale, event.zone, quiet.start or None, quiet.end or None, event.digest_at, at)
    if isinstance(event, ContactAdded):
        added = Change(_ADD, (about, event.account, *shown, at), about)
        return [added, *(_has(about, method) for method in event.methods)]
    changes = [Change(_EDIT, (about, *shown), about)]
    for method in event.readdressed:
        changes.append(Change(_HAVE_NOT, (about, method), about))
        if method in event.methods:
            changes.append(_has(about, method))
    return changes


def _has(contact_id: str, method: str) -> Change:
    return Change(_HAVE, (contact_id, method, False, False, None, None), contact_id)


def _standing(event: VerificationRequested | VerificationFailed | ContactVerified | ContactUnsubscribed) -> list[Change]:
    about = event.contact_id
    match event:
        case VerificationRequested():
            return [Change(_CODE, (about, event.method, event.vault_id, event.expires_at), about)]
        case VerificationFailed():
            return [] if event.attempts_left else [Change(_CODE, (about, event.method, None, None), about)]
        case ContactVerified():
            return [Change(_VERIFY, (about, event.method, True, False, None, None), about)]
        case ContactUnsubscribed():
            return [Change(_UNSUBSCRIBE, (about, event.method, True), about)]
        case _:
            assert_never(event)


def _group(event: GroupChanged | GroupRemoved) -> list[Change]:
    about = event.group_id
    changes = [Change(statement, (about,), about) for statement in (_EMPTY_GROUP, _DROP_GROUP)]
    if isinstance(event, GroupChanged):
        changes.append(Change(_MAKE_GROUP, (about, event.account, event.name), about))
        changes.append(Change(_JOIN, (about, _array(event.contacts)), about))
    return changes


def _rule(event: NotificationRuleChanged | RecipientsChanged, at: datetime) -> list[Change]:
    scope = (event.account, event.client_id, event.service)
    about = "/".join(scope)
    if isinstance(event, NotificationRuleChanged):
        customs = (_array(event.daily_custom), _array(event.monthly_custom))
        row = (*scope, event.version, event.daily, event.monthly, *customs, at)
        return [Change(_DROP_RULE, scope, about), Change(_RULE, row, about)]
    recipients = msgspec.json.encode(event.recipients).decode()
    return [
        Change(_VERSION, (*scope, event.version, at), about),
        Change(_FORGET_RECIPIENTS, scope, about),
        Change(_RECIPIENTS, (*scope, recipients), about),
    ]


def _requested(event: NotificationRequested, at: datetime, position: int) -> Change:
    about = msgspec.json.encode(event.about).decode()
    what = (event.app_name, event.contact_id, event.method, event.about.__struct_config__.tag, about, is_urgent(event.about))
    row = (event.request_id, event.account, event.client_id, event.service, *what, at, event.due_at, event.deadline, position)
    return Change(_REQUEST, (*row, *_WAITING), event.request_id)


def _settled(event: NotificationDelivered | NotificationFailed, at: datetime) -> Change:
    state, provider, reason = "delivered", None, None
    if isinstance(event, NotificationDelivered):
        provider = event.provider_id
    else:
        state, reason = "failed", event.reason
    fate = (state, event.message_id or None, event.attempts, provider, reason, event.answer, at)
    return Change(_SETTLE, (event.request_id, *fate), event.request_id)


def _marked(account: str, client_id: str) -> Change:
    return mark_dirty(BUCKET, key_of(account, client_id))


def _array(values: tuple[int, ...] | tuple[str, ...]) -> str:
    """As the text of an array, because an array of arrays would be taken apart. Nothing in it needs to be escaped."""
    return "{" + ",".join(str(value) for value in values) + "}"
