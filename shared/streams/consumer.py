"""Foreign events in, rows out, each exactly once: the checkpoint moves by compare-and-set in the transaction of the rows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from shared.clock import Clock
from shared.errors import Unavailable
from shared.postgres import Connection, Pool
from shared.readiness import Readiness
from shared.streams.buffer import Buffer, Filler, Held
from shared.streams.checkpoints import Move, Point, Source, move_points, read_point
from shared.streams.jetstream import MESSAGE_NOT_FOUND, ApiError, Connected, api
from shared.streams.message import Message
from shared.streams.passing import may_pass
from shared.streams.pull import Puller

log = logging.getLogger(__name__)

TRIES_MAX: Final = 3
BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 5.0
ACQUIRE_S: Final = 10.0
CANCEL_S: Final = 0.5

Handle = Callable[[Connection, Sequence[Message]], Awaitable[None]]
"""Writes what the messages cause, on the connection, in its open transaction. May run again with the same messages."""


class Poison(Exception):
    """Raised by a Handle: this message can never be handled, and what comes after it must not be before it is."""

    def __init__(self, message: Message, reason: str) -> None:
        super().__init__(f"{message.stream} message {message.sequence} ({message.subject}): {reason}")
        self.message = message
        self.reason = reason


class Fenced(Exception):
    """Another worker has moved a checkpoint: nothing of this batch was written."""


class _Stopped(Exception):
    """The consumer must not go on; the text says at which message and why."""


class _Following:
    """One source as it is followed now: `puller` is another one after each fresh reading of the checkpoint."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.at = Point(-1, b"")
        self.trouble = "not started yet"
        self.fenced = 0
        self.puller: Puller | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def awaited(self) -> bool:
        """Whether it waits for a stream that may come or not: nothing was ever read of it."""
        return self.source.optional and self.at.sequence == 0 and self.puller is not None and self.puller.missing


class Consumer:
    """Hands the messages of its sources to `handle`, up to `batch_max` at once, in each source's order.

    Rows and checkpoints of a batch commit together, so every message takes effect once, whatever crashes. Failures that may pass
    are tried again without end; `Poison`, or any other exception three times, stops the consumer: what came before the bad
    message is committed, `readiness` says what is wrong, and `run` waits. `add` and `remove` may be called at any time, but not
    by `handle`. Checkpoints are kept under `name`: a consumer that is named anew starts from the beginning. `committed` is called
    after each commit. A batch waits up to `linger_s` for more messages, `behind_linger_s` while more than `behind` are stored and
    not committed (0: never).
    """

    def __init__(
        self,
        name: str,
        pool: Pool,
        nc: Connected,
        handle: Handle,
        *,
        batch_max: int = 200,
        linger_s: float = 0.0,
        behind: int = 0,
        behind_linger_s: float = 0.0,
        buffer_messages: int = 1000,
        buffer_bytes: int = 64 * 1024 * 1024,
        clock: Clock,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.committed_at: float | None = None
        self._pool = pool
        self._nc = nc
        self._handle = handle
        self._batch_max = batch_max
        self._linger_s = linger_s
        self._behind = behind
        self._behind_linger_s = behind_linger_s
        self._clock = clock
        self._committed = committed
        self._buffer = Buffer(buffer_messages, buffer_bytes)
        self._sources: dict[Source, _Following] = {}
        self._by_puller: dict[Filler, _Following] = {}
        self._running = False
        self._committing = asyncio.Lock()
        self._moved = asyncio.Condition()
        self._in_hand: Sequence[Held] = ()
        self._trouble = ""
        self._stopped = ""

    # -- sources

    async def add(self, source: Source) -> None:
        """Follow `source` from its checkpoint on. Adding it again changes nothing."""
        if source in self._sources:
            return
        following = self._sources[source] = _Following(source)
        if self._running and not self._stopped:
            self._start(following)

    async def remove(self, source: Source) -> None:
        """Stop following `source`: when this returns, nothing of it will be committed by this consumer any more."""
        following = self._sources.pop(source, None)
        if following is None:
            return
        await self._halt(following)
        async with self._committing:
            pass  # a batch that was being committed is now in, or was given up
        async with self._moved:
            self._moved.notify_all()

    def _start(self, following: _Following) -> None:
        following.task = asyncio.create_task(self._follow(following), name=f"{self.name}:{following.source.label}")

    async def _halt(self, following: _Following) -> None:
        if following.puller is not None:
            self._by_puller.pop(following.puller, None)
        while following.task is not None and not following.task.done():
            following.task.cancel()  # once is not always enough: see raise_if_cancelled
            await asyncio.wait({following.task}, timeout=CANCEL_S)
        following.puller = following.task = None

    async def _follow(self, following: _Following) -> None:
        """Read the checkpoint and pull from there, until cancelled; anew when the stream is another and somebody has moved it."""
        while True:
            puller = await self._begin(following)
            await puller.run()
            self._by_puller.pop(puller, None)

    async def _begin(self, following: _Following) -> Puller:
        source = following.source
        backoff_s = BACKOFF_MIN_S
        while True:
            try:
                at = await self._read_checkpoint(source)
                break
            except Exception as error:
                if not may_pass(error):
                    log.exception("%s: the checkpoint of %s cannot be read", self.name, source.label)
                following.trouble = f"the checkpoint of {source.label} cannot be read: {type(error).__name__}"
                backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
                await asyncio.sleep(backoff_s)
        following.at = at
        puller = Puller(
            self._nc,
            source.stream,
            subjects=() if source.subject is None else (source.subject,),
            after=at.sequence,
            after_hash=at.hash,
            buffer=self._buffer,
            name=self.name,
            overtaken=lambda: self._is_moved(following),
        )
        following.puller = puller
        following.trouble = ""
        self._by_puller[puller] = following
        await self._tell_moved()
        return puller

    async def _is_moved(self, following: _Following) -> bool:
        """Whether somebody has moved the checkpoint: a rebuild puts it where the stream is now."""
        try:
            return await self._read_checkpoint(following.source) != following.at
        except Exception as error:
            if not may_pass(error):
                raise
            return False

    async def _read_checkpoint(self, source: Source) -> Point:
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            return await read_point(connection, self.name, source)

    # -- batches

    async def run(self) -> None:
        """Consume until cancelled. After a poison message: only wait, so that /readyz can say why."""
        self._running = True
        try:
            for following in self._sources.values():
                self._start(following)
            while not self._stopped:
                held = await self._buffer.take(self._batch_max, self._linger())
                try:
                    await self._work_off(held)
                except _Stopped as stopped:
                    self._stopped = str(stopped)
                    log.critical("%s has stopped: %s", self.name, stopped)
            for following in list(self._sources.values()):
                await self._halt(following)
            await asyncio.Event().wait()
        finally:
            self._running = False
            for following in list(self._sources.values()):
                await self._halt(following)

    def _linger(self) -> float:
        """How long the next batch may wait for more messages."""
        if self._behind and sum(self.lag().values()) > self._behind:
            return self._behind_linger_s
        return self._linger_s

    async def _work_off(self, held: Sequence[Held]) -> None:
        """Commit the batch, trying again as long as that makes sense. Raises _Stopped."""
        tries = 0
        backoff_s = BACKOFF_MIN_S
        while True:
            async with self._committing:
                batch = [one for one in held if one.filler in self._by_puller]
                if not batch:
                    return
                try:
                    await self._commit(batch)
                except Fenced as fenced:
                    log.warning("%s: %s", self.name, fenced)
                    await self._read_again(batch)
                    return
                except Exception as error:
                    failure = error
                else:
                    return
            if not may_pass(failure):
                tries += 1
                if isinstance(failure, Poison) or tries >= TRIES_MAX:
                    await self._narrow_down(batch, failure)
                    return
            self._trouble = f"the last batch failed and is tried again: {failure or type(failure).__name__}"
            trace = None if may_pass(failure) else failure
            log.warning("%s: a batch of %d failed: %s", self.name, len(batch), type(failure).__name__, exc_info=trace)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    async def _narrow_down(self, batch: Sequence[Held], failure: Exception) -> None:
        """Commit what comes before the message that cannot be handled, then stop there."""
        if isinstance(failure, Poison):
            at = next((index for index, one in enumerate(batch) if one.message == failure.message), 0)
            if at:
                await self._work_off(batch[:at])
            raise _Stopped(str(failure)) from failure
        if len(batch) == 1:
            message = batch[0].message
            raise _Stopped(
                f"{message.stream} message {message.sequence} ({message.subject}) failed {TRIES_MAX} times:"
                f" {type(failure).__name__}: {failure}"
            ) from failure
        for one in batch:
            await self._work_off([one])

    async def _commit(self, batch: Sequence[Held]) -> None:
        """One transaction: checkpoints first, so that a worker that was fenced off does no work and holds no other lock."""
        last: dict[_Following, Message] = {}
        for one in batch:
            last[self._by_puller[one.filler]] = one.message
        moves = [
            Move(following.source, following.at.sequence, Point(message.sequence, message.hash))
            for following, message in last.items()
        ]
        moves.sort(key=lambda move: (move.source.stream, move.source.subject or ""))
        self._in_hand = batch
        try:
            async with self._pool.acquire(timeout=ACQUIRE_S) as connection, connection.transaction():
                if not await move_points(connection, self.name, moves):
                    raise Fenced("another worker has moved a checkpoint; reading the checkpoints again")
                await self._handle(connection, [one.message for one in batch])
        finally:
            self._in_hand = ()
        for following, message in last.items():
            following.at = Point(message.sequence, message.hash)
            following.fenced = 0
        self._trouble = ""
        self.committed_at = self._clock.monotonic()
        self._committed()
        await self._tell_moved()

    async def _read_again(self, batch: Sequence[Held]) -> None:
        """Start the batch's sources anew from their checkpoints; ever slower, should two workers keep fencing each other."""
        touched = {following for one in batch if (following := self._by_puller.get(one.filler)) is not None}
        for following in touched:
            await self._halt(following)
        times = max((following.fenced for following in touched), default=0)
        await asyncio.sleep(BACKOFF_MIN_S * 2 ** min(times, 5))
        for following in touched:
            following.fenced += 1
            following.trouble = "fenced off by another worker; reading the checkpoint again"
            if self._sources.get(following.source) is following:
                self._start(following)

    # -- what others may know

    def lag(self) -> dict[str, int]:
        """Messages stored but not yet committed, by source."""
        in_hand = [self._by_puller.get(one.filler) for one in self._in_hand]
        return {
            source.label: (following.puller.lag() if following.puller is not None else 0) + in_hand.count(following)
            for source, following in self._sources.items()
        }

    def readiness(self) -> Readiness:
        """Ready when every source is followed, but for optional ones that are still to come, and the last batch went through."""
        if self._stopped:
            return Readiness(False, f"stopped at a message that cannot be handled: {self._stopped}", self.lag())
        troubles = [] if self._running else ["not started yet"]
        waiting = [f"waiting for {one.source.stream}" for one in self._sources.values() if one.awaited]
        for following in self._sources.values():
            trouble = following.trouble or (following.puller.trouble if following.puller is not None else "")
            if trouble and not following.awaited:
                troubles.append(f"{following.source.label}: {trouble}")
        if self._trouble:
            troubles.append(self._trouble)
        return Readiness(not troubles, "; ".join([*troubles, *waiting]), self.lag())

    async def caught_up(self, stream: str, sequence: int, timeout_s: float) -> None:
        """Wait until everything of `stream` up to `sequence`, as far as it concerns this consumer's sources, is committed.

        Raises Unavailable after `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                targets = {
                    source: await self._last_concerned(source, sequence)
                    for source in list(self._sources)
                    if source.stream == stream
                }
                async with self._moved:
                    await self._moved.wait_for(lambda: all(self._reached(source, target) for source, target in targets.items()))
        except TimeoutError as error:
            raise Unavailable(f"{self.name} has not come to {stream} message {sequence} within {timeout_s:g} s.") from error

    def _reached(self, source: Source, target: int) -> bool:
        following = self._sources.get(source)
        return following is None or following.at.sequence >= target

    async def _last_concerned(self, source: Source, sequence: int) -> int:
        """Under a subject filter the checkpoint may never reach `sequence`: the last message of the filter is as good."""
        if source.subject is None:
            return sequence
        try:
            answer = await api(self._nc(), f"STREAM.MSG.GET.{source.stream}", {"last_by_subj": source.subject})
        except ApiError as error:
            if error.err_code == MESSAGE_NOT_FOUND:
                return 0
            raise
        return min(sequence, int(answer["message"]["seq"]))

    async def _tell_moved(self) -> None:
        async with self._moved:
            self._moved.notify_all()
