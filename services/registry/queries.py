"""Named reads of the registry's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from shared.commands.registry import AccountView, AppView, EnvironmentsView, SelectedServiceView, name_hints
from shared.postgres import Connection

_ACCOUNT: Final = "SELECT account, zone, opened_at, terms_version, terms_accepted_at FROM account WHERE account = $1"
ACCOUNTS_AND_APPS: Final = """
    SELECT account, zone, opened_at, terms_version, terms_accepted_at,
        (SELECT count(*) FROM app WHERE app.account = account.account) AS apps
    FROM account WHERE account = ANY($1::text[])
"""
"""The open ones of these accounts, and how many applications each has: rows for `account_and_apps`."""
_APP_COLUMNS: Final = "client_id, account, name, services, environments, registered, registered_at, edited_at, position"
_APP: Final = f"SELECT {_APP_COLUMNS} FROM app WHERE client_id = $1 AND account = $2"  # noqa: S608 - constants
_PAGE: Final = f"""
    SELECT {_APP_COLUMNS} FROM app WHERE account = $1 AND ($2::bigint IS NULL OR registered < $2)
    ORDER BY registered DESC LIMIT $3
"""  # noqa: S608 - constants
_BY_KEY: Final = f"""
    SELECT account || '.' || client_id AS key, {_APP_COLUMNS} FROM app
    WHERE (account, client_id) IN (SELECT split_part(k, '.', 1), split_part(k, '.', 2) FROM unnest($1::text[]) AS k)
"""  # noqa: S608 - constants
_NAMES: Final = "SELECT client_id, name FROM app WHERE client_id = ANY($2::text[]) AND account = $1"
_KEYS: Final = "SELECT account || '.' || client_id AS key FROM app"
_SECRETS: Final = """
    SELECT secret_id, issued_at, valid_until FROM secret
    WHERE client_id = $1 AND (valid_until IS NULL OR valid_until > $2)
    ORDER BY valid_until IS NULL DESC, issued_at DESC
"""


class AppRow(msgspec.Struct, frozen=True):
    """One application as the tables hold it. `registered` is the log position that it is listed by."""

    account: str
    view: AppView
    registered: int
    position: int


class SecretRow(msgspec.Struct, frozen=True):
    """A secret that works; the current one has no `valid_until`."""

    secret_id: str
    issued_at: datetime
    valid_until: datetime | None


async def find_account(connection: Connection, account: str, terms_version: str) -> AccountView | None:
    """The account, None when it is not open. `terms_version` is today's."""
    row = await connection.fetchrow(_ACCOUNT, account)
    return None if row is None else AccountView(**dict(row), terms_current=row["terms_version"] == terms_version)


def account_and_apps(row: Sequence[Any], terms_version: str) -> tuple[AccountView, int]:
    """An open account as `find_account` gives it, and how many applications it has."""
    account, zone, opened_at, accepted, accepted_at, apps = row
    view = AccountView(
        account=account,
        zone=zone,
        opened_at=opened_at,
        terms_version=accepted,
        terms_accepted_at=accepted_at,
        terms_current=accepted == terms_version,
    )
    return view, apps


async def find_app(connection: Connection, account: str, client_id: str) -> AppRow | None:
    """The account's application with this Client ID; None for another account's."""
    row = await connection.fetchrow(_APP, client_id, account)
    return None if row is None else _app_row(row)


async def page_of_apps(connection: Connection, account: str, before: int | None, limit: int) -> list[AppRow]:
    """Up to `limit` applications registered before the log position `before` (None: all), the newest first."""
    return [_app_row(row) for row in await connection.fetch(_PAGE, account, before, limit)]


async def names_of_apps(connection: Connection, account: str, client_ids: Sequence[str]) -> dict[str, str]:
    """The names of those of these applications that are the account's, by client_id."""
    return {row["client_id"]: row["name"] for row in await connection.fetch(_NAMES, account, client_ids)}


async def secrets_that_work(connection: Connection, client_id: str, now: datetime) -> list[SecretRow]:
    """The application's secrets, the current one first."""
    return [SecretRow(*row) for row in await connection.fetch(_SECRETS, client_id, now)]


async def kv_values(connection: Connection, keys: Sequence[str]) -> Mapping[str, bytes | None]:
    """The values of these keys in the bucket `apps`; None where there is no application (any longer)."""
    values: dict[str, bytes | None] = dict.fromkeys(keys)
    for row in await connection.fetch(_BY_KEY, list(keys)):
        app = _app_row(row)
        shown = app.view.model_dump(mode="json", exclude={"hints"})
        values[row["key"]] = msgspec.json.encode({**shown, "as_of": shown["edited_at"], "position": app.position})
    return values


async def kv_keys(connection: Connection) -> list[str]:
    """Every key that the bucket `apps` should hold."""
    return [row["key"] for row in await connection.fetch(_KEYS)]


def _app_row(row: asyncpg.Record) -> AppRow:
    services: list[dict[str, Any]] = msgspec.json.decode(row["services"])
    view = AppView(
        client_id=row["client_id"],
        name=row["name"],
        services=tuple(SelectedServiceView(**selected) for selected in services),
        environments=EnvironmentsView(**msgspec.json.decode(row["environments"])),
        registered_at=row["registered_at"],
        edited_at=row["edited_at"],
        hints=name_hints(row["name"]),
    )
    return AppRow(row["account"], view, row["registered"], row["position"])
