"""Where USAGE ends, subject by subject: what "all of it is counted" is measured against."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from services.metering.queries import Counted
from shared.clock import Clock
from shared.errors import Unavailable
from shared.events.usage import STREAM as USAGE
from shared.streams.jetstream import MESSAGE_NOT_FOUND, STREAM_NOT_FOUND, ApiError, Connected, api

TIMEOUT_S: Final = 0.5
FRESH_S: Final = 0.05
"""How long one look serves all who ask: it costs a request per subject."""


class Looked(NamedTuple):
    """The newest sequence of each subject at an instant: 0 for none, None where JetStream did not say."""

    at: datetime
    by_subject: Mapping[str, int | None]


class Ends:
    """Looks where the `subjects` of USAGE end, at most once in FRESH_S, for everybody who asks meanwhile."""

    def __init__(self, subjects: Sequence[str], nc: Connected, clock: Clock) -> None:
        self._subjects = subjects
        self._nc = nc
        self._clock = clock
        self._looking: asyncio.Task[Looked] | None = None
        self._began_s = 0.0

    async def look(self) -> Looked:
        """Where they ended an instant ago. Never raises: what is not known is None."""
        if self._looking is None or self._clock.monotonic() - self._began_s > FRESH_S:
            self._began_s = self._clock.monotonic()
            self._looking = asyncio.create_task(self._look(), name="metering:ends")
        return await asyncio.shield(self._looking)

    async def _look(self) -> Looked:
        at = self._clock.now()
        found = await asyncio.gather(*(self._end(subject, no_stream=0) for subject in self._subjects))
        return Looked(at, dict(zip(self._subjects, found, strict=True)))

    async def end(self, subject: str) -> int | None:
        """Where one subject ends, looked up for the caller alone, after the call began. None also when there is no stream: it may
        be on its way back."""
        return await self._end(subject, no_stream=None)

    async def _end(self, subject: str, no_stream: int | None) -> int | None:
        try:
            answer = await api(self._nc(), f"STREAM.MSG.GET.{USAGE}", {"last_by_subj": subject}, TIMEOUT_S)
        except ApiError as error:
            return {MESSAGE_NOT_FOUND: 0, STREAM_NOT_FOUND: no_stream}.get(error.err_code)
        except Unavailable:
            return None
        return int(answer["message"]["seq"])


def as_of(looked: Looked, counted: Mapping[str, Counted], since: datetime) -> datetime:
    """Up to when everything is counted: the look's instant if all is, else when the newest that is was recorded.

    `counted` was read after the look; before `since` there was nothing to count.
    """
    instants = [looked.at]
    for subject, end in looked.by_subject.items():
        done = counted.get(subject)
        if end is None or (0 if done is None else done.sequence) < end:
            instants.append(since if done is None else done.recorded_at)
    return min(instants)
