"""Events of the registry as changes of its read tables, and of the keys of the KV bucket `apps` that show them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

import msgspec

from shared.eventlog.changes import Change
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
    from shared.eventlog.log import Recorded

AppEvent: TypeAlias = AppRegistered | AppEdited | SecretReissued | SecretRevoked | ServiceActivated | AppDeleted

TABLES: Final = ("account", "app", "secret")
"""What a rebuild empties first."""
BUCKET: Final = "apps"

_OPEN: Final = "INSERT INTO account (account, zone, opened_at) VALUES ($1, $2, $3)"
_ACCEPT: Final = "UPDATE account SET terms_version = $2, terms_accepted_at = $3 WHERE account = $1"
_REGISTER: Final = """
    INSERT INTO app (client_id, account, name, services, environments, registered, registered_at, edited_at, position)
    SELECT client_id, account, name, services::jsonb, environments::jsonb, position, at, at, position
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[])
        AS n(client_id, account, name, services, environments, position, at)
"""
_EDIT: Final = """
    UPDATE app SET name = n.name, services = n.services::jsonb, environments = n.environments::jsonb, edited_at = n.at,
        position = n.position
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[])
        AS n(client_id, name, services, environments, at, position)
    WHERE app.client_id = n.client_id
"""
_ACTIVATE: Final = """
    UPDATE app SET edited_at = n.at, position = n.position, services = (
        SELECT jsonb_agg(CASE WHEN s->>'service' = n.service THEN s || '{"tier": "live"}' ELSE s END ORDER BY place)
        FROM jsonb_array_elements(app.services) WITH ORDINALITY AS chosen(s, place))
    FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[]) AS n(client_id, service, at, position)
    WHERE app.client_id = n.client_id
"""
_DELETE: Final = "DELETE FROM app WHERE client_id = ANY($1::text[])"
_ISSUE: Final = """
    INSERT INTO secret (client_id, secret_id, issued_at) SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])
"""
_LIMIT_EARLIER: Final = """
    UPDATE secret SET valid_until = least(valid_until, n.until)
    FROM unnest($1::text[], $2::timestamptz[]) AS n(client_id, until) WHERE secret.client_id = n.client_id
"""
_END_ALL: Final = "DELETE FROM secret WHERE client_id = ANY($1::text[])"
_END: Final = """
    DELETE FROM secret WHERE (client_id, secret_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""
# All but the first two take arrays: many applications at once (see Change).


def app_key(account: str, client_id: str) -> str:
    """The key in the bucket `apps`."""
    return f"{account}.{client_id}"


def project(recorded: Recorded, event: RegistryEvent) -> list[Change]:
    """The changes that `event` makes."""
    at, position = recorded.recorded_at, recorded.position
    match event:
        case AccountOpened():
            return [Change(_OPEN, (event.account, event.zone, at))]
        case TermsAccepted():
            return [Change(_ACCEPT, (event.account, event.terms_version, at))]
        case AppRegistered():
            shown = (event.name, _json(event.services), _json(event.environments))
            return [
                _of_app(event, _REGISTER, event.account, *shown, position, at),
                _of_app(event, _ISSUE, event.secret.secret_id, at),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case AppEdited():
            shown = (event.name, _json(event.services), _json(event.environments))
            return [
                _of_app(event, _EDIT, *shown, at, position),
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
