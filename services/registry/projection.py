"""Events of the registry as changes of its read tables, and of the keys of the KV bucket `apps` that show them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

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

TABLES: Final = ("account", "app", "secret")
"""What a rebuild empties first."""
BUCKET: Final = "apps"

_OPEN: Final = "INSERT INTO account (account, zone, opened_at) VALUES ($1, $2, $3)"
_ACCEPT: Final = "UPDATE account SET terms_version = $2, terms_accepted_at = $3 WHERE account = $1"
_REGISTER: Final = """
    INSERT INTO app (client_id, account, name, services, environments, registered, registered_at, edited_at, position)
    VALUES ($1, $2, $3, $4::text::jsonb, $5::text::jsonb, $6, $7, $7, $6)
"""
_EDIT: Final = """
    UPDATE app SET name = $2, services = $3::text::jsonb, environments = $4::text::jsonb, edited_at = $5, position = $6
    WHERE client_id = $1
"""
_ACTIVATE: Final = """
    UPDATE app SET edited_at = $3, position = $4, services = (
        SELECT jsonb_agg(CASE WHEN s->>'service' = $2 THEN s || '{"tier": "live"}' ELSE s END ORDER BY place)
        FROM jsonb_array_elements(services) WITH ORDINALITY AS chosen(s, place)
    ) WHERE client_id = $1
"""
_DELETE: Final = "DELETE FROM app WHERE client_id = $1"
_ISSUE: Final = "INSERT INTO secret (client_id, secret_id, issued_at) VALUES ($1, $2, $3)"
_LIMIT_EARLIER: Final = "UPDATE secret SET valid_until = least(valid_until, $2) WHERE client_id = $1"
_END_ALL: Final = "DELETE FROM secret WHERE client_id = $1"
_END: Final = "DELETE FROM secret WHERE client_id = $1 AND secret_id = $2"


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
                Change(_REGISTER, (event.client_id, event.account, *shown, position, at)),
                Change(_ISSUE, (event.client_id, event.secret.secret_id, at)),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case AppEdited():
            shown = (event.name, _json(event.services), _json(event.environments))
            return [
                Change(_EDIT, (event.client_id, *shown, at, position)),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case SecretReissued():
            until = event.previous_valid_until
            earlier = Change(_END_ALL, (event.client_id,)) if until is None else Change(_LIMIT_EARLIER, (event.client_id, until))
            return [earlier, Change(_ISSUE, (event.client_id, event.secret.secret_id, at))]
        case SecretRevoked():
            return [Change(_END, (event.client_id, event.secret_id))]
        case ServiceActivated():
            return [
                Change(_ACTIVATE, (event.client_id, event.service, at, position)),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case AppDeleted():
            return [
                Change(_DELETE, (event.client_id,)),
                Change(_END_ALL, (event.client_id,)),
                mark_dirty(BUCKET, app_key(event.account, event.client_id)),
            ]
        case _:
            assert_never(event)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
