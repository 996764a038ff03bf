"""Where USAGE ends, subject by subject: what "all of it is counted" is measured against."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from services.metering.queries import Counted
from shared.clock import Clock
from shared.errors import Unavailable
from shared.events.usage import MSGPACK, RECORDS_SUBJECT, UsageBatch
from shared.events.usage import STREAM as USAGE
from shared.ids import new_id
from shared.streams.declare import stream_state
from shared.streams.jetstream import MESSAGE_NOT_FOUND, STREAM_NOT_FOUND, ApiError, Connected, api
from shared.streams.publish import Outgoing, publish_batch

TIMEOUT_S: Final = 0.5
ACKNOWLEDGED_S: Final = 2.0
"""How long a marker's acknowledgement is waited for: it comes after the write is on disk, on a cluster on most of them."""
FRESH_S: Final = 0.05
"""How long one look serves all who ask: it costs a request per subject, if anything is new."""
AHEAD_S: Final = 0.025
"""After so long the next look is begun, if anybody asks: those who ask often never wait for one."""


class Looked(NamedTuple):
    """The newest sequence of each subject at an instant: 0 for none, None where JetStream did not say."""

    at: datetime
    by_subject: Mapping[str, int | None]


_HEADERS: Final = {"Content-Type": MSGPACK}
_encode: Final = msgspec.msgpack.Encoder().encode


class Ends:
    """Knows where subjects of USAGE end, in two ways.

    `look` and `newest` ask whoever leads the stream. On a cluster that may be a leader that was cut off from the others a moment
    ago and does not know it: what it says is too low if they have chosen another one. Good enough to tell what is shown.
    `end` is never too low, and costs a message. `subjects` are those that `look` looks at.
    """

    def __init__(self, subjects: Sequence[str], nc: Connected, clock: Clock) -> None:
        self._subjects = subjects
        self._nc = nc
        self._clock = clock
        self._looking: asyncio.Task[Looked] | None = None
        self._began_s = 0.0
        self._known_at: tuple[str, int] | None = None
        self._known: Mapping[str, int | None] = {}
        self._name = f"metering-{new_id()}"
        self._marked: dict[str, int] = {}

    async def look(self) -> Looked:
        """Where they ended an instant ago, looked up at most once in AHEAD_S for all who ask. Never raises: what is not known is
        None."""
        looking, age_s = self._looking, self._clock.monotonic() - self._began_s
        if looking is None or (looking.done() and age_s > AHEAD_S):
            self._began_s = self._clock.monotonic()
            self._looking = asyncio.create_task(self._look(), name="metering:ends")
        if looking is None or age_s > FRESH_S:
            looking = self._looking
        assert looking is not None, "it was begun just now"
        return await asyncio.shield(looking)

    async def _look(self) -> Looked:
        at = self._clock.now()
        try:
            state = await stream_state(self._nc(), USAGE, TIMEOUT_S)
        except (ApiError, Unavailable):
            return Looked(at, dict.fromkeys(self._subjects))
        if state is None:
            return Looked(at, dict.fromkeys(self._subjects, 0))
        if (state.created, state.last) != self._known_at:  # else nothing came since, anywhere
            found = await asyncio.gather(*(self._newest(subject, no_stream=0) for subject in self._subjects))
            self._known = dict(zip(self._subjects, found, strict=True))
            self._known_at = None if None in found else (state.created, state.last)
        return Looked(at, self._known)

    async def newest(self, subject: str) -> int | None:
        """The newest sequence of one subject, looked up for the caller alone; 0 for none, None where JetStream does not say. None
        also when there is no stream: it may be on its way back."""
        return await self._newest(subject, no_stream=None)

    async def find(self, subjects: Iterable[str], counted: int) -> dict[str, int]:
        """The `end` of each of the subjects, as far as JetStream says. Of none while USAGE ends below `counted`, the newest
        sequence that was counted: it is an older copy then, and refused (pull.py), which markers in it would only hide."""
        wanted = sorted(subjects)
        if not wanted or not await self._has(counted):
            return {}
        found = await asyncio.gather(*(self.end(subject) for subject in wanted))
        return {subject: end for subject, end in zip(wanted, found, strict=True) if end is not None}

    async def _has(self, sequence: int) -> bool:
        try:
            state = await stream_state(self._nc(), USAGE)
        except (ApiError, Unavailable):
            return False
        return state is not None and state.last >= sequence

    async def end(self, subject: str) -> int | None:
        """A sequence that everything of the subject which was acknowledged before the call is below, or at; None if there is no
        such answer in time: no stream, no leader, no quorum.

        In a partition it is that of a marker, which is published for it: a UsageBatch without records, so it counts nothing, of
        a publisher that is new with each Ends and partition. Only a leader that has the quorum can acknowledge it, and puts it
        after whatever was acknowledged before, by whichever leader.

        Usage that others report as events is looked up, for no event counts nothing. Should that be too low, it is as if they
        had reported a moment later, and no limit is exact about what they report (docs/decisions/0013).
        """
        if subject.startswith(f"{RECORDS_SUBJECT}."):
            return await self._mark(subject)
        return await self.newest(subject)

    async def _mark(self, subject: str) -> int | None:
        seq = self._marked[subject] = self._marked.get(subject, 0) + 1
        partition = subject.removeprefix(f"{RECORDS_SUBJECT}.")
        marker = UsageBatch(publisher=f"{self._name}-{partition}", seq=seq, records=[])
        message = Outgoing(subject, _encode(marker), _HEADERS)
        try:
            return await publish_batch(self._nc(), [message], expected_last_sequence=None, timeout_s=ACKNOWLEDGED_S)
        except Unavailable:
            return None

    async def _newest(self, subject: str, no_stream: int | None) -> int | None:
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
