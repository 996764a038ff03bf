"""Dead letters put together: the consumer that lists them, those who answer, and the one who sends again."""

from __future__ import annotations

from typing import Final

from services.metering import deadletters
from services.metering.letter_handlers import LetterHandlers
from services.metering.letter_rows import keep_letters
from services.metering.metrics import LetterMetrics
from services.metering.resending import Resender
from services.metering.serving import Started
from services.metering.streams import LETTERS_CONSUMER
from shared.clock import Clock
from shared.postgres import Pool
from shared.service import Service
from shared.streams.checkpoints import Source
from shared.streams.consumer import Consumer
from shared.streams.declare import DEADLETTER

BATCH_MAX: Final = 500
WORKERS_MAX: Final = 4
"""Of each command and query: operators are few, and letters large."""
SOURCE: Final = Source(DEADLETTER, deadletters.SUBJECT)


class LetterDesk:
    """Answers from when it is made, at first with Unavailable. After `begin` there are `consumer` and `resender` to share out."""

    def __init__(self, service: Service, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._handlers = LetterHandlers(lambda: service.nc, clock)
        self._handlers.subscribe(service.broker, WORKERS_MAX)

    def begin(self, pool: Pool) -> tuple[Consumer, Resender]:
        """Run what works while its part is held: the consumer of SOURCE, and the resender."""
        service = self._service
        consumer = Consumer(LETTERS_CONSUMER, pool, lambda: service.nc, keep_letters, batch_max=BATCH_MAX, clock=self._clock)
        resender = Resender(pool, lambda: service.nc, LetterMetrics(service.metrics), self._clock)
        service.background("dead letters", consumer.run)
        service.background("retries", resender.run)
        service.readiness("dead letters", consumer.readiness)
        service.readiness("retries", resender.readiness)
        return consumer, resender

    def start(self, started: Started) -> None:
        """Answer from now on."""
        self._handlers.start(started)
