"""Dead letters as operators ask for them and settle them. Subjects metering.queries.<Name>, metering.commands.<Name>."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable

from services.metering import letter_rows, settling
from services.metering.letter_stream import LOST, fetch_letter
from services.metering.letters import PREVIEW_BYTES_MAX, original_headers, plan_retry, preview
from services.metering.serving import Started
from shared.answering import Answering, Answers, reading
from shared.clock import Clock
from shared.commands.deadletters import (
    CountDeadLetters,
    DeadLetterContent,
    DeadLetterCounts,
    DeadLetterPage,
    DeadLetterView,
    DiscardDeadLetter,
    GetDeadLetter,
    ListDeadLetters,
    RetryDeadLetter,
)
from shared.commands.metering import SERVICE
from shared.postgres import Connection
from shared.streams.jetstream import Connected
from shared.streams.message import Message


class LetterHandlers(Answering[Started]):
    """Everything that metering answers about dead letters."""

    service = SERVICE

    def __init__(self, nc: Connected, clock: Clock) -> None:
        super().__init__()
        self._nc = nc
        self._clock = clock

    @property
    def answers(self) -> Answers:
        return {
            ListDeadLetters: self.list_letters,
            CountDeadLetters: self.count_letters,
            GetDeadLetter: self.get_letter,
            RetryDeadLetter: self.retry,
            DiscardDeadLetter: self.discard,
        }

    async def list_letters(self, query: ListDeadLetters) -> DeadLetterPage:
        async with reading(self.running.pool) as connection:
            return await letter_rows.page_of(connection, query)

    async def count_letters(self, _: CountDeadLetters) -> DeadLetterCounts:
        async with reading(self.running.pool) as connection:
            return await letter_rows.counts_of(connection)

    async def get_letter(self, query: GetDeadLetter) -> DeadLetterContent:
        """Answer GetDeadLetter."""
        async with reading(self.running.pool) as connection:
            view = await letter_rows.find_letter(connection, query.letter)
        if view is None:
            raise settling.no_letter(query.letter)
        message = await fetch_letter(self._nc(), query.letter)
        shown = view.model_dump() | {"headers": {}, "data": None, "decoded": None, "retry_refused": self._refusal(message)}
        if message is not None:
            data = base64.b64encode(message.data[:PREVIEW_BYTES_MAX]).decode("ascii")
            shown |= {"headers": original_headers(message), "data": data, "decoded": preview(message)}
        return DeadLetterContent(**shown)

    async def retry(self, command: RetryDeadLetter) -> DeadLetterView:
        """Answer RetryDeadLetter. What follows is done by the part `retries` (resending.py)."""
        refused = self._refusal(await fetch_letter(self._nc(), command.letter))
        return await self.running.transactor.run(
            command,
            settling.stream_of(command.letter),
            settling.OPEN,
            settling.evolve,
            lambda state, facts: settling.retry(state, facts, command, refused),
            DeadLetterView,
            self._facts(command.letter),
        )

    async def discard(self, command: DiscardDeadLetter) -> DeadLetterView:
        """Answer DiscardDeadLetter."""
        return await self.running.transactor.run(
            command,
            settling.stream_of(command.letter),
            settling.OPEN,
            settling.evolve,
            lambda state, facts: settling.discard(state, facts, command),
            DeadLetterView,
            self._facts(command.letter),
        )

    def _facts(self, letter: int) -> Callable[[Connection], Awaitable[settling.Facts]]:
        async def read(connection: Connection) -> settling.Facts:
            return settling.Facts(self._clock.now(), await letter_rows.find_letter(connection, letter))

        return read

    def _refusal(self, message: Message | None) -> str | None:
        """Why it cannot be retried, None if it can."""
        planned = LOST if message is None else plan_retry(message, self._nc().max_payload)
        return planned if isinstance(planned, str) else None
