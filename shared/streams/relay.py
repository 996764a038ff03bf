"""The relay: event N of a service's log becomes message N of its stream, whatever crashes and however many relays there are."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any, Final

import msgspec

from shared.clock import Clock
from shared.errors import Unavailable
from shared.eventlog.log import EventLog, Head, Meta, Recorded
from shared.postgres import Connection, Pool
from shared.readiness import Readiness
from shared.rounds import Rounds
from shared.streams.cloudevents import cloudevent_headers
from shared.streams.declare import StreamState, delete_stream, ensure_stream, log_name, log_stream, set_due, stream_state
from shared.streams.jetstream import Connected, StreamRefused, api, stored_message
from shared.streams.message import message_hash
from shared.streams.publish import BATCH_MESSAGES_MAX, Outgoing, TooBig, WrongLastSequence, publish_batch, split_batches

log = logging.getLogger(__name__)

POLL_S: Final = 0.1
COMPANY_S: Final = 0.005
"""How long what was committed waits for more to go with it: commits come in runs, and each batch costs NATS an fsync."""
COMPANY_FACTOR: Final = 4.0
"""How much longer than the last batch took it waits while commits keep coming: files, fsyncs and reading cost by the batch."""
COMPANY_MAX_S: Final = 0.03
CHECK_S: Final = 1.0
BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 5.0
ACQUIRE_S: Final = 10.0
AGAIN: Final = "Repeating the same command id in a moment is safe."
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('tollbook relay ' || current_schema(), 0))"


class HistoryDiffers(StreamRefused):
    """The stream holds what the log does not: one of the two is a copy of another moment."""


class Relay:
    """Publishes the log of `service` to its stream, in order.

    Each batch carries Nats-Expected-Last-Sequence = the position before its first event, so that of any number of relays, retries
    and zombies just one gets a batch in. A stream that is missing or emptied is made again and written from position 1. A
    stream that says something else than the log is never touched: `readiness` says what happened and what to do. `looked`
    is set once it has compared the two: before that, `guard` has nothing done.
    """

    def __init__(self, service: str, pool: Pool, log: EventLog[Any], nc: Connected, replicas: int, clock: Clock) -> None:
        self.service = service
        self.stream = log_name(service)
        self.relayed = 0
        self._pool = pool
        self._log = log
        self._nc = nc
        self._replicas = replicas
        self._clock = clock
        self._woken = asyncio.Event()
        self._head = 0
        self._rounds = Rounds(f"relay of {self.stream}", self._look_and_follow, every_s=0)
        self._reconnects = -1
        self._checked_at = 0.0
        self.looked = asyncio.Event()
        self._differs = ""

    def wake(self) -> None:
        """Something was committed: relay it now, not at the next poll. Call it from the event loop's thread."""
        self._woken.set()

    def readiness(self) -> Readiness:
        """Ready while the stream follows the log; the lag is in events."""
        return replace(self._rounds.readiness(), lag={self.stream: max(0, self._head - self.relayed)})

    def guard(self, head: Head) -> None:
        """Raise Unavailable if nothing may be decided on a log that ends at `head`, for it would be lost with that log."""
        if self._differs:
            raise Unavailable(f"Nothing was done. {self._differs}")
        if not self.looked.is_set():
            raise Unavailable(f"Nothing was done: {self.service} has just started and not yet looked at {self.stream}. {AGAIN}")
        if head.position < self.relayed:
            raise Unavailable(f"Nothing was done: the log ends at {head.position}, but had reached {self.relayed}. {AGAIN}")

    async def run(self) -> None:
        """Relay until cancelled."""
        await self._rounds.run()

    async def _look_and_follow(self) -> None:
        try:
            self.relayed = await self._check()
            self._rounds.went_well()
            await self._follow()
        except WrongLastSequence as mismatch:
            log.info("%s: the stream ends at %s, not at %d: looking again", self.stream, mismatch.actual, self.relayed)
        except HistoryDiffers as differs:
            self._differs = str(differs)
            raise

    async def _follow(self) -> None:
        """Publish what is new, whenever there is some. Returns when it is time to check the stream again."""
        self._checked_at = self._clock.monotonic()
        while True:
            began = self._clock.monotonic()
            self._woken.clear()
            while await self._relay_some() == BATCH_MESSAGES_MAX:
                pass
            company_s = self._company_s(self._clock.monotonic() - began)
            if self._clock.monotonic() - self._checked_at >= CHECK_S or self._nc().stats["reconnects"] != self._reconnects:
                return
            try:
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(company_s)

    def _company_s(self, took_s: float) -> float:
        """How long the next batch waits for more, when the last one took so long."""
        more_came = self._woken.is_set()
        return max(COMPANY_S, min(took_s * COMPANY_FACTOR, COMPANY_MAX_S)) if more_came else COMPANY_S

    async def _relay_some(self) -> int:
        """Publish the next events of the log, up to a bound; how many these were."""
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            events = await self._log.read(connection, self.relayed, BATCH_MESSAGES_MAX)
            full = len(events) == BATCH_MESSAGES_MAX
            self._head = (await self._log.head(connection)).position if full else self.relayed + len(events)
        for batch in split_batches(self._outgoing(event) for event in events):
            try:
                await self._publish(batch)
            except TooBig as error:
                if error.index:
                    await self._publish(batch[: error.index])
                raise StreamRefused(
                    f"Event {self.relayed + 1} of the {self.service} log is too big for NATS: {error}."
                    " Raise max_payload on the NATS servers."
                ) from error
        return len(events)

    async def _publish(self, batch: list[Outgoing]) -> None:
        stored = await publish_batch(self._nc(), batch, expected_last_sequence=self.relayed)
        if stored != self.relayed + len(batch):
            raise StreamRefused(f"{self.stream} numbered event {self.relayed + len(batch)} as {stored}.")
        self.relayed = stored

    def _outgoing(self, event: Recorded) -> Outgoing:
        meta = msgspec.json.decode(event.meta, type=Meta)
        headers = cloudevent_headers(
            id_=f"{self.service}-{event.position}",
            source=f"/tollbook/{self.service}",
            type_=self._log.codec.ce_type(event.type, event.schema),
            time=event.recorded_at,
            subject=event.stream,
            extensions={
                "version": str(event.version),
                "hash": event.hash.hex(),
                "correlationid": meta.correlation_id,
                "causationid": meta.causation_id,
            },
        )
        if meta.traceparent:
            headers["traceparent"] = meta.traceparent
        return Outgoing(f"{self.service}.events.{event.type}", event.data, headers)

    async def _check(self) -> int:
        """Make sure that the stream holds the beginning of the log and nothing else; how much of it. Raises StreamRefused."""
        nc = self._nc()
        self._reconnects = nc.stats["reconnects"]
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            due = (await self._log.head(connection)).position
        state = await ensure_stream(nc, log_stream(self.service, self._replicas, due))
        # The log is read after the stream: it only grows, so a stream that is ahead of it now has always been.
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            head = await self._log.head(connection)
            if state.last > head.position:
                raise self._ahead(state, head)
            if not state.whole:
                state = await self._begin_anew(connection, head)
            await self._compare(connection, state.last)
        lost_its_end = state.last < (self.relayed if self.looked.is_set() else head.position)
        if state.due > head.position or (lost_its_end and state.due < head.position):
            await set_due(nc, self.stream, head.position)  # so that nobody takes the present end for the log's
        self._differs = ""
        self.looked.set()
        return state.last

    def _ahead(self, state: StreamState, head: Head) -> HistoryDiffers:
        return HistoryDiffers(
            f"The stream {self.stream} ends at {state.last}, but the log of {self.service} ends at {head.position}: the database"
            " was restored from an older copy than NATS. Restore the newer copy of the database; or, if events"
            f" {head.position + 1} to {state.last} are to be given up, {self._begin_again()}"
        )

    def _begin_again(self) -> str:
        return (
            f"delete the stream {self.stream} and the KV buckets of {self.service} (all of them are written again), then rebuild"
            " every service that reads the stream (--rebuild). docs/reliability.md shows how."
        )

    async def _compare(self, connection: Connection, position: int) -> None:
        """Whether the stream's last message is the event of that position."""
        if position == 0:
            return
        answer = await api(self._nc(), f"STREAM.MSG.GET.{self.stream}", {"seq": position})
        subject, _, headers, data = stored_message(answer)
        (event,) = await self._log.read(connection, position - 1, 1)
        if message_hash(subject, headers, data) != event.hash:
            raise HistoryDiffers(
                f"Message {position} of the stream {self.stream} is not event {position} of the {self.service} log: the"
                " database was restored from an older copy than NATS and has gone on since. Restore the database that belongs"
                f" to the stream; or, if this database is the right one, {self._begin_again()}"
            )

    async def _begin_anew(self, connection: Connection, head: Head) -> StreamState:
        """Replace a stream that has lost messages by an empty one: its sequences cannot be set back in any other way.

        One relay at a time, and only after a second look: another may have done it and be writing already.
        """
        async with connection.transaction():
            await connection.execute(_LOCK)
            state = await stream_state(self._nc(), self.stream)
            if state is not None and state.whole:
                return state
            if state is not None:
                log.warning(
                    "%s holds %d messages, %d to %d, but should hold all from 1: it is written again from the log",
                    self.stream,
                    state.messages,
                    state.first,
                    state.last,
                )
                await delete_stream(self._nc(), self.stream)
            return await ensure_stream(self._nc(), log_stream(self.service, self._replicas, head.position))
