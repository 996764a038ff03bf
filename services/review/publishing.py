"""The form of deploy/review.yaml into the log, once for each version, when the service starts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from services.review.following import ACTOR
from services.review.forms import Form, evolve, form_stream, publish
from shared.answering import reading
from shared.commands.review import SERVICE, FormPublishedReply, PublishForm
from shared.eventlog.transact import Transactor
from shared.events.review import ReviewEvent
from shared.ids import new_id
from shared.postgres import Pool
from shared.readiness import Readiness
from shared.rounds import Rounds

log = logging.getLogger(__name__)

AGAIN_S: Final = 3600.0
_HASH: Final = "SELECT form_hash FROM form WHERE form_version = $1"


class FormPublisher:
    """Publishes `form`, and calls `published` when it is: applications are answered about from then on.

    `looked` is set once something can be recorded. A version that was published with other content stays as it is: `readiness`
    says so until the file says another version.
    """

    def __init__(
        self, pool: Pool, transactor: Transactor[ReviewEvent], form: Form, looked: asyncio.Event, published: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._transactor = transactor
        self._form = form
        self._looked = looked
        self._published = published
        self._done = False
        self._rounds = Rounds("the form", self._publish, AGAIN_S)

    async def run(self) -> None:
        """Until cancelled."""
        await self._rounds.run()

    def readiness(self) -> Readiness:
        """Ready once it is published."""
        return self._rounds.readiness()

    async def _publish(self) -> None:
        if self._done:
            return
        form = self._form
        async with reading(self._pool) as connection:
            known: str | None = await connection.fetchval(_HASH, form.version)
        if known != form.form_hash:
            await self._looked.wait()
            command = PublishForm(
                command_id=new_id(),
                account=SERVICE,
                actor=ACTOR,
                form_version=form.version,
                definition=form.definition,
                form_hash=form.form_hash,
            )
            await self._transactor.run(
                command, form_stream(form.version), None, evolve, lambda state, _: publish(state, command), FormPublishedReply
            )
            log.info("form %s was published", form.version)
        self._done = True
        self._published()
