"""What the registry decided, as rows of review's own, and which service apps end with it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, assert_never

import msgspec

from shared.eventlog.changes import Change, insert, update
from shared.events.registry import (
    AccountOpened,
    AppDeleted,
    AppEdited,
    AppRegistered,
    RegistryEvent,
    SecretReissued,
    SecretRevoked,
    SelectedService,
    ServiceActivated,
    ServiceResumed,
    ServiceSuspended,
    TermsAccepted,
)

_CLIENT: Final = {"client_id": "text"}
_REGISTER: Final = insert("app", {**_CLIENT, "account": "text", "name": "text", "deleted": "boolean", "position": "bigint"})
_EDIT: Final = update("app", _CLIENT, {"name": "text", "position": "bigint"})
_DELETE: Final = update("app", _CLIENT, {"deleted": "boolean", "position": "bigint"})
# `services` is the JSON of the event, because arrays of arrays would be taken apart.
_LEAVE: Final = """
    UPDATE app_service AS s SET gone_at = n.at
    FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS n(client_id, services, at)
    WHERE s.client_id = n.client_id AND s.gone_at IS NULL
        AND NOT n.services::jsonb @> jsonb_build_array(jsonb_build_object('service', s.service))
"""
_SELECT: Final = """
    INSERT INTO app_service (client_id, service, began, reviewed, since)
    SELECT n.client_id, chosen->>'service', n.position, chosen->>'tier' = 'test', n.at
    FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[]) AS n(client_id, services, at, position)
        CROSS JOIN jsonb_array_elements(n.services::jsonb) AS chosen
    WHERE NOT EXISTS (SELECT FROM app_service AS s
        WHERE s.client_id = n.client_id AND s.service = chosen->>'service' AND s.gone_at IS NULL)
"""
_ACTIVATE: Final = """
    UPDATE app_service AS s SET live_at = n.at
    FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS n(client_id, service, at)
    WHERE s.client_id = n.client_id AND s.service = n.service AND s.gone_at IS NULL
"""


def react(event: RegistryEvent, position: int, recorded_at: datetime) -> list[Change]:
    """The rows that change with event number `position` of the registry's log."""
    match event:
        case AppRegistered():
            row = (event.client_id, event.account, event.name, False, position)
            return [Change(_REGISTER, row, event.client_id), _select(event, recorded_at, position)]
        case AppEdited():
            return [
                Change(_EDIT, (event.client_id, event.name, position), event.client_id),
                _leave(event.client_id, event.services, recorded_at),
                _select(event, recorded_at, position),
            ]
        case ServiceActivated():
            return [Change(_ACTIVATE, (event.client_id, event.service, recorded_at), event.client_id)]
        case AppDeleted():
            return [Change(_DELETE, (event.client_id, True, position), event.client_id), _leave(event.client_id, (), recorded_at)]
        case AccountOpened() | TermsAccepted() | SecretReissued() | SecretRevoked() | ServiceSuspended() | ServiceResumed():
            return []
        case _:
            assert_never(event)


def leaves(event: AppDeleted | AppEdited, service: str) -> bool:
    """Whether the application that `event` is about has the service no longer because of it."""
    return isinstance(event, AppDeleted) or all(selected.service != service for selected in event.services)


def _leave(client_id: str, services: Sequence[SelectedService], at: datetime) -> Change:
    return Change(_LEAVE, (client_id, _json(services), at), client_id)


def _select(event: AppRegistered | AppEdited, at: datetime, position: int) -> Change:
    return Change(_SELECT, (event.client_id, _json(event.services), at, position), event.client_id)


def _json(services: Sequence[SelectedService]) -> str:
    return msgspec.json.encode(services).decode()
