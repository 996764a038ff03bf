"""Events of the registry as changes of its read tables, and of the keys of the KV bucket `apps` that show them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

import msgspec

from shared.eventlog.changes import Change, Write, delete, insert, update
from shared.events.registry import (
    AccountOpened,
    AppDeleted,
    AppEdited,
    AppRegistered,
    RegistryEvent,
    SecretReissued,
    SecretRevoked,
    ServiceActivated,
    TermsAccepted,
)
from shared.streams.marks import mark_dirty

if TYPE_CHECKING:
    from shared.eventlog.log import Placed

AppEvent: TypeAlias = AppRegistered | AppEdited | SecretReissued | SecretRevoked | ServiceActivated | AppDeleted

TABLES: Final = ("account", "app", "secret")
"""What a rebuild empties first."""
BUCKET: Final = "apps"

_ACCOUNT: Final = {"account": "text"}
_TERMS: Final = {"terms_version": "text", "terms_accepted_at": "timestamptz"}
_CLIENT: Final = {"client_id": "text"}
_SHOWN: Final = {"name": "text", "services": "jsonb", "environments": "jsonb", "edited_at": "timestamptz", "position": "bigint"}
_SECRET: Final = {"client_id": "text", "secret_id": "text"}
# Columns and their types.

_OPEN: Final = insert("account", {**_ACCOUNT, "zone": "text", "opened_at": "timestamptz", **_TERMS})
_ACCEPT: Final = update("account", _ACCOUNT, _TERMS)
_REGISTER: Final = insert("app", {**_CLIENT, "account": "text", **_SHOWN, "registered": "bigint", "registered_at": "timestamptz"})
_EDIT: Final = update("app", _CLIENT, _SHOWN)
_ACTIVATE: Final = Write(
    "app",
    """
    UPDATE app SET edited_at = n.at, position = n.position, services = (
        SELECT jsonb_agg(CASE WHEN s->>'service' = n.service THEN s || '{"tier": "live"}' ELSE s END ORDER BY place)
        FROM jsonb_array_elements(app.services) WITH ORDINALITY AS chosen(s, place))
    FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[]) AS n(client_id, service, at, position)
    WHERE app.client_id = n.client_id
    """,
)
_DELETE: Final = delete("app", _CLIENT)
_ISSUE: Final = insert("secret", {**_SECRET, "issued_at": "timestamptz"})
_LIMIT_EARLIER: Final = Write(
    "secret",
    """
    UPDATE secret SET valid_until = least(valid_until, n.until)
    FROM unnest($1::text[], $2::timestamptz[]) AS n(client_id, until) WHERE secret.client_id = n.client_id
    """,
)
_END_ALL: Final = delete("secret", _CLIENT)
_END: Final = delete("secret", _SECRET)


def app_key(account: str, client_id: str) -> str:
    """The key in the bucket `apps`."""
    return f"{account}.{client_id}"


def project(recorded: Placed, event: RegistryEvent) -> list[Change]:
    """The changes that `event` makes."""
    at, position = recorded.recorded_at, recorded.position
    match event:
        case AccountOpened():
            return [Change(_OPEN, (event.account, event.zone, at, None, None), event.account)]
        case TermsAccepted():
            return [Change(_ACCEPT, (event.account, event.terms_version, at), event.account)]
        case AppRegistered():
            shown = (event.name, _json(event.services), _json(event.environments), at, position)
            return [
                _of_app(event, _REGISTER, event.account, *shown, position, at),
                _of_app(event, _ISSUE, event.secret.secret_id, at),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case AppEdited():
            shown = (event.name, _json(event.services), _json(event.environments), at, position)
            return [
                _of_app(event, _EDIT, *shown),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case SecretReissued():
            until = event.previous_valid_until
            earlier = _of_app(event, _END_ALL) if until is None else _of_app(event, _LIMIT_EARLIER, until)
            return [earlier, _of_app(event, _ISSUE, event.secret.secret_id, at)]
        case SecretRevoked():
            return [_of_app(event, _END, event.secret_id)]
        case ServiceActivated():
            return [
                _of_app(event, _ACTIVATE, event.service, at, position),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case AppDeleted():
            return [
                _of_app(event, _DELETE),
                _of_app(event, _END_ALL),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case _:
            assert_never(event)


def _of_app(event: AppEvent, statement: str, *args: object) -> Change:
    return Change(statement, (event.client_id, *args), event.client_id)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
