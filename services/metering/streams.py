"""The streams that metering declares: USAGE, which it reads, and DEADLETTER."""

from __future__ import annotations

from typing import Final

from services.metering import deadletters
from shared.events.usage import CLOUDEVENTS_SUBJECT, RECORDS_SUBJECT
from shared.events.usage import STREAM as USAGE
from shared.postgres import Pool
from shared.readiness import Readiness
from shared.rounds import Rounds
from shared.streams.declare import DEADLETTER, deadletter_stream, ensure_stream, usage_stream
from shared.streams.jetstream import Connected

USAGE_CONSUMER: Final = "metering-usage"
LETTERS_CONSUMER: Final = "metering-deadletters"
LOOK_S: Final = 2.0
ACQUIRE_S: Final = 10.0

_COUNTED: Final = "SELECT coalesce(max(sequence), 0) FROM checkpoint WHERE consumer = $1 AND stream = $2"


def subjects(partitions: int) -> list[str]:
    """The subjects of USAGE. Each partition by name: a record for one that nobody counts is refused when it is published."""
    return [*(f"{RECORDS_SUBJECT}.{partition}" for partition in range(partitions)), CLOUDEVENTS_SUBJECT]


class Streams:
    """Has both streams there. One that was lost is made again so that it begins above everything that was counted or listed: that
    stays, and consumers go on."""

    def __init__(self, pool: Pool, nc: Connected, partitions: int, replicas: int) -> None:
        self._pool = pool
        self._nc = nc
        self._partitions = partitions
        self._replicas = replicas
        self._rounds = Rounds("the streams", self.declare, LOOK_S)

    def readiness(self) -> Readiness:
        """Ready while both streams are as they should be."""
        return self._rounds.readiness()

    async def declare(self) -> None:
        """Make or update what has to be. Raises StreamRefused, ApiError, Unavailable, or what asyncpg raises."""
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            counted: int = await connection.fetchval(_COUNTED, USAGE_CONSUMER, USAGE)
            listed: int = await connection.fetchval(_COUNTED, LETTERS_CONSUMER, DEADLETTER)
        usage = usage_stream(self._replicas, first_seq=counted + 1 if counted else None)
        usage.subjects = subjects(self._partitions)
        await ensure_stream(self._nc(), usage)
        dead = deadletter_stream(self._replicas, first_seq=listed + 1 if listed else None)
        dead.duplicate_window = deadletters.DUPLICATE_WINDOW_S
        await ensure_stream(self._nc(), dead)

    async def run(self) -> None:
        """Look every LOOK_S, until cancelled."""
        await self._rounds.run()
