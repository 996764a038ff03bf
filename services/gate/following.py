"""Knowing the applications: the registry's stream from its first message, folded in memory, and followed from then on."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Final

from services.gate.domain import Apps
from services.gate.reactions import Unreadable, react
from shared.errors import Unavailable
from shared.events.registry import STREAM
from shared.readiness import Readiness
from shared.streams.buffer import Buffer
from shared.streams.declare import stream_state
from shared.streams.jetstream import ApiError, Connected, api, stored_message
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
    """Keeps `apps` as the registry's stream says. `run` is its owner's background task.

    Not ready before it has applied everything that was in the stream at the start, or had to come back into it. An event that
    it cannot read stops it for good: it is then not ready, because whatever it knows may be wrong. A stream that is lost, and
    one that is being written again from its log, changes nothing; one with another history ends the process, to start anew.
    """

    def __init__(self, nc: Connected, apps: Apps) -> None:
        self._nc = nc
        self._apps = apps
        self._buffer = Buffer(BUFFER_MESSAGES, BUFFER_BYTES)
        self._puller = Puller(nc, STREAM, subject=None, after=0, buffer=self._buffer, name="gate")
        self._position = 0
        self._hash = b""
        self._goal: int | None = None
        self._poison = ""
        self.ready = False

    def lag(self) -> int:
        """Events that are in the stream and not yet applied, as far as is known."""
        return max(self._puller.lag(), (self._goal or 0) - self._position)

    def readiness(self) -> Readiness:
        detail = self._poison or self._puller.trouble
        if not self.ready and not detail:
            detail = f"at event {self._position} of {'unknown' if self._goal is None else self._goal}"
        return Readiness(self.ready and not detail, detail, {STREAM: self.lag()})

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as tasks:
            pulling = tasks.create_task(self._puller.run(), name="gate:registry")
            self._goal = await self._end_of_stream()
            self._mark_ready_at_goal()
            looking_back = tasks.create_task(self._look_back(), name="gate:registry history")
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
            self._position = react(self._apps, held.message, self._position)
        self._hash = held.message.hash
        self._mark_ready_at_goal()
        await asyncio.sleep(0)

    async def _end_of_stream(self) -> int:
        """The sequence of the last event now. Waits until the stream exists: without it nothing is known.

        A stream that is being written again from its log ends too early; the registry's relay notes on it how far it has to go.
        """
        while True:
            try:
                state = await stream_state(self._nc(), STREAM)
            except (Unavailable, ApiError):
                state = None
            if state is not None:
                return max(state.last, state.due)
            await asyncio.sleep(ASK_AGAIN_S)

    async def _look_back(self) -> None:
        """Does the stream still end where it did, while that is waited for; and while something is wrong with it, does it still
        hold, at our position, the message that was read?"""
        while True:
            await asyncio.sleep(LOOK_BACK_S)
            if not self.ready:
                self._goal = await self._end_of_stream()
                self._mark_ready_at_goal()
            if not self._puller.trouble or not self._position:
                continue
            position, expected = self._position, self._hash
            try:
                subject, _, headers, data = stored_message(await api(self._nc(), f"STREAM.MSG.GET.{STREAM}", {"seq": position}))
            except (Unavailable, ApiError):
                continue
            if message_hash(subject, headers, data) != expected:
                raise HistoryChanged(f"the stream {STREAM} holds another message at {position} than the one that was read")

    def _mark_ready_at_goal(self) -> None:
        if self.ready or self._goal is None or self._position < self._goal:
            return
        self.ready = True
        # What was read lives as long as the process: keep the collector from walking all of it again and again.
        gc.collect()
        gc.freeze()
        log.info("gate: knows %d applications at event %d", len(self._apps), self._position)
