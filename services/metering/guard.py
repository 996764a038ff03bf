"""Whether counters may be too low: then nothing is granted (docs/decisions/0013, invariant 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.metering.ends import Ends
from services.metering.queries import counted_up_to
from shared.postgres import Pool
from shared.readiness import Readiness
from shared.rounds import Rounds

LOOK_S: Final = 0.25
ACQUIRE_S: Final = 2.0


class Guard:
    """Knows from where on the counters can be trusted: where USAGE ended when this worker started, and at least what it has ever
    seen counted, so that counters which were forgotten or put back are noticed.

    After a failure of the database it starts anew, once it is back: what comes back may be another state of it.
    """

    def __init__(self, pool: Pool, ends: Ends, subjects: Sequence[str]) -> None:
        self.floor: Mapping[str, int] | None = None
        self._pool = pool
        self._ends = ends
        self._subjects = subjects
        self._found: dict[str, int] = {}
        self._rounds = Rounds("no leases are granted", self._round, LOOK_S)

    def readiness(self) -> Readiness:
        """Ready once the ends were looked up; whether they are counted is asked with each grant."""
        known = self.floor is not None
        return Readiness(known, "" if known else "it is not known yet where USAGE ends")

    async def run(self) -> None:
        """Look every LOOK_S, until cancelled."""
        await self._rounds.run()

    async def _round(self) -> None:
        try:
            await self.look()
        except Exception:
            self.floor = None
            self._found.clear()
            raise

    async def look(self) -> None:
        """Find the ends once, and how far is counted each time. Raises what asyncpg raises: before the ends are asked for, which
        costs messages."""
        if self.floor is None:
            self.floor = await self._ends_of_all(await self._counted())
        if self.floor is not None:
            reached = await self._counted()
            self.floor = {subject: max(end, reached.get(subject, 0)) for subject, end in self.floor.items()}

    async def _counted(self) -> Mapping[str, int]:
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            return {subject: one.sequence for subject, one in (await counted_up_to(connection)).items()}

    async def _ends_of_all(self, counted: Mapping[str, int]) -> Mapping[str, int] | None:
        """Where every subject ends; None as long as JetStream does not say it of each. What it has said is not asked again."""
        missing = [subject for subject in self._subjects if subject not in self._found]
        self._found |= await self._ends.find(missing, max(counted.values(), default=0))
        return dict(self._found) if len(self._found) == len(self._subjects) else None
