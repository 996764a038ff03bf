"""Knowing applications and limits: a stream from its first message, folded in memory, and followed from then on."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from typing import Final

from services.gate.reactions import Followed, Unreadable, react
from shared.errors import Unavailable
from shared.readiness import Readiness
from shared.streams.buffer import Buffer
from shared.streams.declare import stream_state
from shared.streams.jetstream import MESSAGE_NOT_FOUND, ApiError, Connected, api, stored_message
from shared.streams.message import message_hash
from shared.streams.pull import Puller

log = logging.getLogger(__name__)

BUFFER_MESSAGES: Final = 5_000
BUFFER_BYTES: Final = 16 * 1024 * 1024
APPLY_MAX: Final = 200
"""Events applied before other work gets its turn: a few milliseconds of them."""
ASK_AGAIN_S: Final = 0.25
LOOK_BACK_S: Final = 1.0


class HistoryChanged(Exception):
    """The stream now says something else where this process has read: only a new start, from its first message, knows what."""


class Follower:
    """Keeps what `followed` applies events to as its stream says. `run` is its owner's background task.

    `known` says in words what is known now. Not ready before it has applied everything that was in the stream at the start, or
    had to come back into it. An event that it cannot read stops it for good: it is then not ready, because whatever it knows may
    be wrong. A stream that is lost, and one that is being written again from its log, changes nothing; one with another history
    ends the process, to start anew.
    """

    def __init__(self, nc: Connected, followed: Followed, known: Callable[[], str]) -> None:
        self._nc = nc
        self._followed = followed
        self._stream = followed.stream
        self._known = known
        self._buffer = Buffer(BUFFER_MESSAGES, BUFFER_BYTES)
        self._puller = Puller(nc, self._stream, subjects=followed.subjects, after=0, buffer=self._buffer, name="gate")
        self._position = 0
        self._hash = b""
        self._goal: int | None = None
        self._poison = ""
        self.ready = False

    def lag(self) -> int:
        """Events that are in the stream and not yet applied, as far as is known."""
        behind = (self._goal or 0) - self._position
        return max(self._puller.lag(), min(behind, 1) if self._followed.subjects else behind)

    def readiness(self) -> Readiness:
        detail = self._poison or self._puller.trouble
        if not self.ready and not detail:
            detail = f"at event {self._position} of {'unknown' if self._goal is None else self._goal}"
        return Readiness(self.ready and not detail, detail, {self._stream: self.lag()})

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as tasks:
            pulling = tasks.create_task(self._puller.run(), name=f"gate:{self._stream}")
            self._goal = await self._end_of_what_is_read()
            self._mark_ready_at_goal()
            looking_back = tasks.create_task(self._look_back(), name=f"gate:{self._stream} history")
            try:
                while True:
                    await self._apply_some()
            except Unreadable as error:
                self.ready = False
                self._poison = str(error)
                log.error("gate: no call passes until a release that knows better is started: %s", error)  # noqa: TRY400
                pulling.cancel()
                looking_back.cancel()
                await asyncio.Event().wait()

    async def _apply_some(self) -> None:
        for held in await self._buffer.take(APPLY_MAX):
            self._position = react(self._followed, held.message, self._position)
        self._hash = held.message.hash
        self._mark_ready_at_goal()
        await asyncio.sleep(0)

    async def _end_of_stream(self) -> int:
        """The sequence of the last event now. Waits until the stream exists: without it nothing is known.

        A stream that is being written again from its log ends too early; the registry's relay notes on it how far it has to go.
        """
        while True:
            try:
                state = await stream_state(self._nc(), self._stream)
            except (Unavailable, ApiError):
                state = None
            if state is not None:
                return max(state.last, state.due)
            await asyncio.sleep(ASK_AGAIN_S)

    async def _end_of_what_is_read(self) -> int:
        """The sequence of the last event now among those that are read. Waits as `_end_of_stream` does."""
        end = await self._end_of_stream()
        if not self._followed.subjects:
            return end
        while True:
            try:
                state = await stream_state(self._nc(), self._stream)
                if state is not None and state.last < end:
                    return end  # it is being written again: which is the last is not there to be seen yet
                return max([await self._last_on(subject) for subject in self._followed.subjects])
            except (Unavailable, ApiError):
                await asyncio.sleep(ASK_AGAIN_S)

    async def _last_on(self, subject: str) -> int:
        """The sequence of the last message on `subject`, 0 for none. Raises Unavailable, ApiError."""
        try:
            return stored_message(await api(self._nc(), f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": subject}))[1]
        except ApiError as error:
            if error.err_code == MESSAGE_NOT_FOUND:
                return 0
            raise

    async def _look_back(self) -> None:
        """Does the stream still end where it did, while that is waited for; and while something is wrong with it, does it still
        hold, at our position, the message that was read?"""
        while True:
            await asyncio.sleep(LOOK_BACK_S)
            if not self.ready:
                self._goal = await self._end_of_what_is_read()
                self._mark_ready_at_goal()
            if not self._puller.trouble or not self._position:
                continue
            position, expected = self._position, self._hash
            try:
                found = await api(self._nc(), f"STREAM.MSG.GET.{self._stream}", {"seq": position})
            except (Unavailable, ApiError):
                continue
            subject, _, headers, data = stored_message(found)
            if message_hash(subject, headers, data) != expected:
                raise HistoryChanged(f"the stream {self._stream} holds another message at {position} than the one that was read")

    def _mark_ready_at_goal(self) -> None:
        if self.ready or self._goal is None or self._position < self._goal:
            return
        self.ready = True
        # What was read lives as long as the process: keep the collector from walking all of it again and again.
        gc.collect()
        gc.freeze()
        log.info("gate: knows %s at event %d of %s", self._known(), self._position, self._stream)
