"""What the registry decided, as rows of metering's own: pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final, assert_never

from services.metering.dashboard import BUCKET, LIMITS_BUCKET
from shared.eventlog.changes import Change
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

_OPEN_ACCOUNT: Final = "INSERT INTO account (account, zone) VALUES ($1, $2)"
_REGISTER: Final = """
    WITH n AS (
        SELECT client_id, account, services::text[], test_services::text[], at, position, bucket
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[], $7::text[])
            AS n(client_id, account, services, test_services, at, position, bucket)),
    marked AS (
        INSERT INTO kv_dirty (bucket, key)
        SELECT n.bucket, n.account || '.' || n.client_id || '.' || s.service
        FROM n, LATERAL (
            SELECT unnest(n.services)
            UNION SELECT service FROM counter AS c WHERE c.period = 'm' AND c.client_id = n.client_id) AS s(service)
        ORDER BY 1, 2
        ON CONFLICT (bucket, key) DO UPDATE SET token = nextval('kv_dirty_token'))
    INSERT INTO app (client_id, account, services, test_services, registered_at, position)
    SELECT client_id, account, services, test_services, at, position FROM n
"""
# Most edits change what metering has no row of. What was deselected is marked as well.
_EDIT: Final = """
    WITH n AS (
        SELECT client_id, a.account, a.services AS former, n.services::text[], n.test_services::text[], n.position, n.bucket
        FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
            AS n(client_id, services, test_services, position, bucket)
        JOIN app AS a USING (client_id)
        WHERE a.services <> n.services::text[] OR a.test_services <> n.test_services::text[]),
    marked AS (
        INSERT INTO kv_dirty (bucket, key)
        SELECT n.bucket, n.account || '.' || n.client_id || '.' || s.service
        FROM n, LATERAL (
            SELECT unnest(n.former) UNION SELECT unnest(n.services)
            UNION SELECT service FROM counter AS c WHERE c.period = 'm' AND c.client_id = n.client_id) AS s(service)
        ORDER BY 1, 2
        ON CONFLICT (bucket, key) DO UPDATE SET token = nextval('kv_dirty_token'))
    UPDATE app SET services = n.services, test_services = n.test_services, position = n.position
    FROM n WHERE app.client_id = n.client_id
"""
_ACTIVATE: Final = """
    WITH n AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS n(client_id, service, position, bucket)),
    marked AS (
        INSERT INTO kv_dirty (bucket, key)
        SELECT DISTINCT n.bucket, a.account || '.' || a.client_id || '.' || n.service FROM n JOIN app AS a USING (client_id)
        ORDER BY 1, 2
        ON CONFLICT (bucket, key) DO UPDATE SET token = nextval('kv_dirty_token'))
    UPDATE app SET test_services = array_remove(test_services, n.service), position = n.position
    FROM n WHERE app.client_id = n.client_id
"""
_DELETE: Final = """
    WITH n AS (
        SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::text[]) AS n(client_id, at, position, bucket)),
    marked AS (
        INSERT INTO kv_dirty (bucket, key)
        SELECT n.bucket, a.account || '.' || a.client_id || '.' || s.service
        FROM n JOIN app AS a USING (client_id), LATERAL (
            SELECT unnest(a.services)
            UNION SELECT service FROM counter AS c WHERE c.period = 'm' AND c.client_id = a.client_id) AS s(service)
        ORDER BY 1, 2
        ON CONFLICT (bucket, key) DO UPDATE SET token = nextval('kv_dirty_token'))
    UPDATE app SET deleted_at = n.at, position = n.position FROM n WHERE app.client_id = n.client_id
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
# All but the first take arrays: many applications at once (see Change). Each marks all keys of its application as well.


def react(event: RegistryEvent, position: int, recorded_at: datetime) -> list[Change]:
    """The rows that change with event number `position` of the registry's log, which was recorded at `recorded_at`."""
    match event:
        case AccountOpened():
            return [Change(_OPEN_ACCOUNT, (event.account, event.zone))]
        case AppRegistered():
            selected = (_ids(event.services), _ids_in_test(event.services))
            return [
                Change(_REGISTER, (event.client_id, event.account, *selected, recorded_at, position, BUCKET), event.client_id)
            ]
        case AppEdited():
            selected = (_ids(event.services), _ids_in_test(event.services))
            edited = Change(_EDIT, (event.client_id, *selected, position, BUCKET), event.client_id)
            return [edited, _mark_limits_of(event.client_id)]
        case ServiceActivated():
            activated = Change(_ACTIVATE, (event.client_id, event.service, position, BUCKET), event.client_id)
            return [activated, _mark_limits_of(event.client_id)]
        case AppDeleted():
            deleted = Change(_DELETE, (event.client_id, recorded_at, position, BUCKET), event.client_id)
            return [deleted, _mark_limits_of(event.client_id)]
        case TermsAccepted() | SecretReissued() | SecretRevoked() | ServiceSuspended() | ServiceResumed():
            return []  # of suspended services the gate refuses the calls: nobody asks for units
        case _:
            assert_never(event)


def _ids(services: tuple[SelectedService, ...]) -> str:
    """As the text of an array, because an array of arrays would be taken apart. Ids have no character to escape in quotes."""
    return "{" + ",".join([f'"{selected.service}"' for selected in services]) + "}"


def _ids_in_test(services: tuple[SelectedService, ...]) -> str:
    return _ids(tuple(selected for selected in services if selected.tier == "test"))


def _mark_limits_of(client_id: str) -> Change:
    return Change(_MARK_LIMITS, (client_id, LIMITS_BUCKET), client_id)
