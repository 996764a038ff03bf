"""What the registry decided, as rows of metering's own: pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final, assert_never

import msgspec

from services.metering.dashboard import BUCKET, LIMITS_BUCKET
from shared.eventlog.changes import Change
from shared.events.codec import UnknownEvent, parse_ce_type
from shared.events.registry import (
    CODEC,
    AccountOpened,
    AppDeleted,
    AppEdited,
    AppRegistered,
    RegistryEvent,
    SecretReissued,
    SecretRevoked,
    SelectedService,
    ServiceActivated,
    TermsAccepted,
)
from shared.streams.cloudevents import Malformed, parse_cloudevent
from shared.streams.message import Message

_OPEN_ACCOUNT: Final = "INSERT INTO account (account, zone) VALUES ($1, $2)"
_REGISTER: Final = """
    INSERT INTO app (client_id, account, services, test_services, registered_at, position)
    SELECT client_id, account, services::text[], test_services::text[], at, position
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[])
        AS n(client_id, account, services, test_services, at, position)
"""
_EDIT: Final = """
    UPDATE app SET services = n.services::text[], test_services = n.test_services::text[], position = n.position
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS n(client_id, services, test_services, position)
    WHERE app.client_id = n.client_id
"""
_ACTIVATE: Final = """
    UPDATE app SET test_services = array_remove(test_services, n.service), position = n.position
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS n(client_id, service, position) WHERE app.client_id = n.client_id
"""
_DELETE: Final = """
    UPDATE app SET deleted_at = n.at, position = n.position
    FROM unnest($1::text[], $2::timestamptz[], $3::bigint[]) AS n(client_id, at, position) WHERE app.client_id = n.client_id
"""
_MARK_LIMITS: Final = """
    INSERT INTO kv_dirty (bucket, key)
    SELECT DISTINCT n.bucket, a.account || '.' || a.client_id || '.' || s.service
    FROM unnest($1::text[], $2::text[]) AS n(client_id, bucket) JOIN app AS a USING (client_id), LATERAL (
        SELECT service FROM app_limit AS l WHERE l.client_id = a.client_id
        UNION SELECT service FROM limit_schedule AS w WHERE w.account = a.account AND w.client_id = a.client_id) AS s(service)
    ORDER BY 1, 2
    ON CONFLICT (bucket, key) DO UPDATE SET token = nextval('kv_dirty_token')
"""
_MARK_APP: Final = """
    INSERT INTO kv_dirty (bucket, key)
    SELECT DISTINCT n.bucket, a.account || '.' || a.client_id || '.' || s.service
    FROM unnest($1::text[], $2::text[]) AS n(client_id, bucket) JOIN app AS a USING (client_id), LATERAL (
        SELECT unnest(a.services) UNION SELECT service FROM counter WHERE counter.client_id = a.client_id) AS s(service)
    ORDER BY 1, 2
    ON CONFLICT (bucket, key) DO UPDATE SET token = nextval('kv_dirty_token')
"""
# All but the first take arrays: many applications at once (see Change).


class Unreadable(Exception):
    """A message of the registry's stream that this release cannot apply; the text says why."""


def decode(message: Message) -> tuple[RegistryEvent, datetime]:
    """The event, and when the registry recorded it. Raises Unreadable."""
    found = parse_cloudevent(message.headers, message.data)
    if isinstance(found, Malformed):
        raise Unreadable(found.reason)
    if found.time is None:
        raise Unreadable("it has no ce-time")
    try:
        service, type_, schema = parse_ce_type(found.type)
        event = CODEC.decode(type_, schema, found.data)
    except (UnknownEvent, msgspec.MsgspecError) as error:
        raise Unreadable(str(error)) from error
    if service != CODEC.service:
        raise Unreadable(f"an event of {service} does not belong into {message.stream}")
    return event, found.time


def react(event: RegistryEvent, position: int, recorded_at: datetime) -> list[Change]:
    """The rows that change with event number `position` of the registry's log, which was recorded at `recorded_at`."""
    match event:
        case AccountOpened():
            return [Change(_OPEN_ACCOUNT, (event.account, event.zone))]
        case AppRegistered():
            row = (event.client_id, event.account, _ids(event.services), _ids_in_test(event.services), recorded_at, position)
            return [Change(_REGISTER, row, event.client_id), _mark_all_of(event.client_id)]
        case AppEdited():
            return [
                _mark_all_of(event.client_id),  # those that are deselected with it
                Change(_EDIT, (event.client_id, _ids(event.services), _ids_in_test(event.services), position), event.client_id),
                _mark_all_of(event.client_id),
                _mark_limits_of(event.client_id),
            ]
        case ServiceActivated():
            activated = Change(_ACTIVATE, (event.client_id, event.service, position), event.client_id)
            return [activated, _mark_all_of(event.client_id), _mark_limits_of(event.client_id)]
        case AppDeleted():
            deleted = Change(_DELETE, (event.client_id, recorded_at, position), event.client_id)
            return [deleted, _mark_all_of(event.client_id), _mark_limits_of(event.client_id)]
        case TermsAccepted() | SecretReissued() | SecretRevoked():
            return []
        case _:
            assert_never(event)


def _ids(services: tuple[SelectedService, ...]) -> str:
    """As the text of an array, because an array of arrays would be taken apart. Ids have no character to escape in quotes."""
    return "{" + ",".join([f'"{selected.service}"' for selected in services]) + "}"


def _ids_in_test(services: tuple[SelectedService, ...]) -> str:
    return _ids(tuple(selected for selected in services if selected.tier == "test"))


def _mark_all_of(client_id: str) -> Change:
    return Change(_MARK_APP, (client_id, BUCKET), client_id)


def _mark_limits_of(client_id: str) -> Change:
    return Change(_MARK_LIMITS, (client_id, LIMITS_BUCKET), client_id)
