"""What commands are decided on besides their stream, read in their transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from services.review.content import Content, decode
from services.review.domain import AppRow, service_app_stream
from services.review.forms import Form
from services.review.models import Tuned
from shared.eventlog.vault import Vault
from shared.postgres import Connection

_WHERE: Final = "SELECT account, client_id, service, seen_revision IS NOT NULL FROM application WHERE review_id = $1"
_TIMES: Final = "SELECT recorded_at FROM event WHERE stream = $1 ORDER BY version"
_APP: Final = "SELECT name, deleted FROM app WHERE client_id = $1 AND account = $2"
_SELECTED: Final = """
    SELECT service, CASE WHEN reviewed AND live_at IS NULL THEN 'test' ELSE 'live' END AS tier FROM app_service
    WHERE client_id = $1 AND gone_at IS NULL
"""
_CONTENT: Final = """
    SELECT vault_id, sealed FROM application JOIN vault ON vault.id = vault_id WHERE review_id = $1
"""
_TUNED: Final = "SELECT task_id, name, model, task, saved_at FROM tuned_task WHERE account = $1 ORDER BY saved_at, task_id"
_FORMS: Final = "SELECT form_version, definition, form_hash FROM form WHERE form_version <> ALL($1::text[])"


class Place(NamedTuple):
    """Whose an application is, and what for. `submitted`: it ever was."""

    account: str
    client_id: str
    service: str
    submitted: bool

    @property
    def stream(self) -> str:
        return service_app_stream(self.client_id, self.service)


class TunedRow(NamedTuple):
    """A tuned task that can be chosen."""

    task_id: str
    name: str
    model: str
    task: str
    saved_at: datetime


class Forms:
    """Every version of the form that was ever published. One that was read is kept: it never changes."""

    def __init__(self) -> None:
        self._read: dict[str, Form] = {}

    async def all(self, connection: Connection) -> Mapping[str, Form]:
        """By version."""
        for row in await connection.fetch(_FORMS, list(self._read)):
            form = Form(*row)
            self._read[form.version] = form
        return self._read


async def place_of(connection: Connection, review_id: str) -> Place | None:
    """Where an application is, if there is one."""
    row = await connection.fetchrow(_WHERE, review_id)
    return None if row is None else Place(*row)


async def times_of(connection: Connection, stream: str) -> Sequence[datetime]:
    """When the events of the stream were recorded, in their order."""
    return [row[0] for row in await connection.fetch(_TIMES, stream)]


async def app_of(connection: Connection, account: str, client_id: str) -> AppRow | None:
    """What REGISTRY says of the account's application; None for another account's."""
    row = await connection.fetchrow(_APP, client_id, account)
    if row is None:
        return None
    services = {selected["service"]: selected["tier"] for selected in await connection.fetch(_SELECTED, client_id)}
    return AppRow(row["name"], services, row["deleted"])


async def content_of(connection: Connection, vault: Vault, review_id: str) -> Content | None:
    """What was written in the present revision."""
    row = await connection.fetchrow(_CONTENT, review_id)
    return None if row is None else decode(vault.open_kept(row["vault_id"], row["sealed"]))


async def tuned_by(connection: Connection, account: str) -> Sequence[TunedRow]:
    """The account's tuned tasks, the oldest first."""
    return [TunedRow(*row) for row in await connection.fetch(_TUNED, account)]


def choices_of(rows: Sequence[TunedRow]) -> Mapping[str, Tuned]:
    """What can be chosen of them, by id."""
    return {row.task_id: Tuned(row.model, row.task) for row in rows}
