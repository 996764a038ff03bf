"""What the registry decided, as rows of alerts' own. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

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
_OPEN: Final = insert("account", {"account": "text", "zone": "text"})
_REGISTER: Final = """
    INSERT INTO app (client_id, account, name, services, deleted, position)
    SELECT client_id, account, name, services::text[], false, position
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) AS n(client_id, account, name, services, position)
"""
_EDIT: Final = """
    UPDATE app SET name = n.name, services = n.services::text[], position = n.position
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS n(client_id, name, services, position)
    WHERE app.client_id = n.client_id
"""
_DELETE: Final = update("app", _CLIENT, {"deleted": "boolean", "position": "bigint"})


def react(event: RegistryEvent, position: int) -> list[Change]:
    """The rows that change with event number `position` of the registry's log."""
    match event:
        case AccountOpened():
            return [Change(_OPEN, (event.account, event.zone), event.account)]
        case AppRegistered():
            row = (event.client_id, event.account, event.name, _ids(event.services), position)
            return [Change(_REGISTER, row, event.client_id)]
        case AppEdited():
            return [Change(_EDIT, (event.client_id, event.name, _ids(event.services), position), event.client_id)]
        case AppDeleted():
            return [Change(_DELETE, (event.client_id, True, position), event.client_id)]
        case TermsAccepted() | SecretReissued() | SecretRevoked():
            return []
        case ServiceActivated() | ServiceSuspended() | ServiceResumed():
            return []
        case _:
            assert_never(event)


def _ids(services: Sequence[SelectedService]) -> str:
    """As the text of an array, because an array of arrays would be taken apart. Ids have no character to escape in quotes."""
    return "{" + ",".join(f'"{selected.service}"' for selected in services) + "}"
