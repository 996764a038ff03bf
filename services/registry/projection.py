"""Events of the registry as changes of its read tables, and of the keys of the KV bucket `apps` that show them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

import msgspec

from services.registry.domain import LaterEvent
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
    ServiceResumed,
    ServiceSuspended,
    TermsAccepted,
)
from shared.streams.marks import mark_dirty

if TYPE_CHECKING:
    from shared.eventlog.log import Placed

AppEvent: TypeAlias = AppRegistered | LaterEvent

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
_CHANGE_SERVICE: Final = Write(
    "app",
    """
    UPDATE app SET edited_at = n.at, position = n.position, services = (
        SELECT jsonb_agg(CASE WHEN s->>'service' = n.service THEN (s || n.with_these) - n.without ELSE s END ORDER BY place)
        FROM jsonb_array_elements(app.services) WITH ORDINALITY AS chosen(s, place))
    FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::text[], $5::timestamptz[], $6::bigint[])
        AS n(client_id, service, with_these, without, at, position)
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
            services, environments = _json(event.services), _json(event.environments)
            return [
                _of_app(event, _REGISTER, event.account, event.name, services, environments, at, position, position, at),
                _of_app(event, _ISSUE, event.secret.secret_id, at),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case AppEdited():
            services, environments = _json(event.services), _json(event.environments)
            return [
                _of_app(event, _EDIT, event.name, services, environments, at, position),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case SecretReissued():
            until = event.previous_valid_until
            earlier = _of_app(event, _END_ALL) if until is None else _of_app(event, _LIMIT_EARLIER, until)
            return [earlier, _of_app(event, _ISSUE, event.secret.secret_id, at)]
        case SecretRevoked():
            return [_of_app(event, _END, event.secret_id)]
        case ServiceActivated() | ServiceSuspended() | ServiceResumed():
            return [
                _of_app(event, _CHANGE_SERVICE, event.service, *_of_service(event), at, position),
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


def _of_service(event: ServiceActivated | ServiceSuspended | ServiceResumed) -> tuple[str, str]:
    """What the selected service has from now on, as JSON, and which key it has no longer."""
    match event:
        case ServiceActivated():
            return '{"tier": "live"}', ""
        case ServiceSuspended():
            return '{"suspended": true}', ""
        case ServiceResumed():
            return "{}", "suspended"
        case _:
            assert_never(event)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
