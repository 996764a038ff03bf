"""An application as a whole: told from its stream, with what the vault has of its revisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from services.review import history
from services.review.content import Content, decode
from services.review.domain import no_application
from services.review.facts import Place, place_of
from services.review.history import Recorded, Revision, Story, stories
from services.review.serving import Started
from shared.errors import NotFound
from shared.postgres import Connection

_NAME: Final = "SELECT name FROM app WHERE client_id = $1"


class Opened(NamedTuple):
    """An application's story, with those of the others for the same service app, and what its application is called."""

    story: Story
    others: Mapping[str, Story]
    app_name: str


async def open_own(connection: Connection, started: Started, account: str, review_id: str) -> Opened:
    """The account's application. Raises NotFound for another account's."""
    place = await place_of(connection, review_id)
    if place is None or place.account != account:
        raise no_application()
    return await _opened(connection, started, place, review_id)


async def open_submitted(connection: Connection, started: Started, review_id: str) -> Opened:
    """Anybody's application that was ever submitted, for a reviewer. Raises NotFound."""
    place = await place_of(connection, review_id)
    if place is None or not place.submitted:
        raise no_application()
    return await _opened(connection, started, place, review_id)


async def content_of(connection: Connection, started: Started, revision: Revision) -> Content:
    """What was written in that revision."""
    return decode(await started.vault.get(connection, revision.vault_id))


async def content_before(connection: Connection, started: Started, opened: Opened) -> Content | None:
    """What a reviewer compares the application with, if there is anything."""
    before = history.before(opened.others, opened.story)
    return None if before is None else await content_of(connection, started, before)


async def _opened(connection: Connection, started: Started, place: Place, review_id: str) -> Opened:
    recorded = await started.log.read_stream(connection, place.stream)
    found = stories(Recorded(one.recorded_at, started.log.decode(one)) for one in recorded)
    if review_id not in found:
        raise NotFound("This application is not in the log: the read tables have to be built again (--rebuild).")
    name: str | None = await connection.fetchval(_NAME, place.client_id)
    return Opened(found[review_id], found, name or "")
