"""Group commit: usage records reach JetStream before their calls are answered, many in one message, one message at a time.

All of a gate's records go to one partition, chosen by its own name: so a commit is one message and one fsync, however many
applications it is about (docs/decisions/0010). While one commit is on its way the calls of the last one are answered and the next
one collects: two groups take turns, and are kept of equal size. A commit whose fate is unknown (no acknowledgement in time) is
taken back: its callers are refused, and the same sequence number is sent again as a `retracted` batch until it is acknowledged,
before anything new; metering then counts none of it, whether or not the first message did arrive. A commit that is acknowledged
too late for the quota leases of some of its records is taken back as to these (docs/decisions/0013-exact-limits.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from services.gate.metrics import Metrics
from shared.clock import Clock
from shared.errors import Unavailable
from shared.events.usage import MSGPACK, RECORDS_MAX, RECORDS_SUBJECT, UsageBatch, UsageRecord, partition_of
from shared.readiness import Readiness
from shared.streams.publish import Outgoing, publish_batch

log = logging.getLogger(__name__)

RECORD_BYTES_MAX: Final = 212
"""A record as msgpack with every string at its longest, and its place among those taken back, take a little less."""
BATCH_BYTES_MAX: Final = 1_024
"""A batch without its records, its headers and its subject take less."""
GROUP_MIN: Final = 16
"""Records up to which a commit takes all that waits."""
DRAIN_S: Final = 5.0
RETRY_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
RETRY_MAX_S: Final = 1.0
HEADERS: Final = {"Content-Type": MSGPACK}
FATE_UNKNOWN: Final = (Unavailable, NatsError, TimeoutError, OSError)


Recorded = Callable[[bool], None]
"""Is told once: True when the record is in the USAGE stream; False when that is not known, or came too late for the record's
lease, and then it counts nothing."""
StillGood = Callable[[str, float], bool]
"""Whether a call whose units are of that lease may pass at that time of the interval timer."""


def _none_ends(lease: str, now_s: float) -> bool:  # noqa: ARG001 - a StillGood
    return True


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    record: UsageRecord
    recorded: Recorded


class Committer:
    """Records usage. `run` is its owner's background task; without it nothing is recorded and callers wait.

    `publisher` is new at each start of the process. At most `waiting_max` callers wait at once.
    """

    def __init__(
        self,
        nc: Callable[[], Client],
        publisher: str,
        partitions: int,
        clock: Clock,
        metrics: Metrics,
        *,
        timeout_s: float,
        waiting_max: int,
        still_good: StillGood = _none_ends,
    ) -> None:
        self._nc = nc
        self._publisher = publisher
        self._clock = clock
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._waiting_max = waiting_max
        self._still_good = still_good
        self.drained = asyncio.Event()
        self._subject = f"{RECORDS_SUBJECT}.{partition_of(publisher, partitions)}"
        self._encode = msgspec.msgpack.Encoder().encode
        self._seq = 0
        self._collecting: list[_Waiting] = []
        self._committing: Sequence[_Waiting] = ()
        self._committed: Sequence[_Waiting] = ()
        self._wake = asyncio.Event()
        self._obstacle = ""
        self._stopping = False

    @property
    def waiting(self) -> int:
        """Callers that wait for their record now."""
        return len(self._collecting) + len(self._committing) + len(self._committed)

    @property
    def full(self) -> bool:
        return self.waiting >= self._waiting_max

    @property
    def blocked(self) -> bool:
        """Whether nothing can be recorded now, so that a call need not be looked at."""
        return bool(self._obstacle) or self._stopping or not self._nc().is_connected

    def readiness(self) -> Readiness:
        if self._obstacle:
            return Readiness(False, self._obstacle)
        return Readiness(not self.blocked, "usage cannot be recorded: not connected to NATS" if self.blocked else "")

    def record(self, record: UsageRecord, recorded: Recorded) -> None:
        """Have `record` in the next commit, and tell `recorded` what became of it: at once when `blocked` or `full`."""
        if self.blocked or self.full:
            recorded(False)
            return
        self._collecting.append(_Waiting(record, recorded))
        self._wake.set()

    async def run(self) -> None:
        """Commit for ever. When cancelled, first finishes what waits, for DRAIN_S at most."""
        work = asyncio.create_task(self._work(), name="gate:commits")
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stopping = True
            self._wake.set()
            await asyncio.wait({work}, timeout=DRAIN_S)
            if work.done() and not work.cancelled() and (error := work.exception()) is not None:
                raise error from None
            raise
        finally:
            self._stopping = True
            work.cancel()
            self._answer_committed()
            self._answer(self._take_all(), recorded=False)
            self.drained.set()

    async def _work(self) -> None:
        while not self._stopping or self._collecting:
            await self._wake.wait()
            if self._collecting:
                await self._commit_next()
            elif not self._stopping:
                self._wake.clear()

    async def _commit_next(self) -> None:
        size = self._group_size()
        self._committing = self._collecting[:size]
        del self._collecting[:size]
        self._seq += 1
        batch = UsageBatch(publisher=self._publisher, seq=self._seq, records=[waiter.record for waiter in self._committing])
        began = self._clock.monotonic()
        if self._committed:
            # In two steps of the event loop: in the next, nats-py sends what is now published. JetStream writes while we answer.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._answer_committed)
        try:
            await self._publish(batch)
        except FATE_UNKNOWN as error:
            await self._take_back(msgspec.structs.replace(batch, retracted=True), error)
        else:
            acknowledged = self._clock.monotonic()
            self._metrics.committed(len(self._committing), acknowledged - began)
            self._answer_committed()
            self._committed, self._committing = self._committing, ()
            late = [
                place
                for place, record in enumerate(batch.records)
                if record.lease and not self._still_good(record.lease, acknowledged)
            ]
            if late:
                await self._void(batch, late)
            elif not self._collecting:
                self._answer_committed()

    def _group_size(self) -> int:
        """Records of the next commit: half of the calls that wait or are about to be answered, as far as they fit into a message.

        Were all taken that wait, callers who ask again as soon as they are answered would end up in a large and a small group:
        the gate would be done with the small one's calls before the large one is on disk, and have nothing to do.
        """
        fitting = min(RECORDS_MAX, max(1, (self._nc().max_payload - BATCH_BYTES_MAX) // RECORD_BYTES_MAX))
        half = (len(self._collecting) + len(self._committed) + 1) // 2
        return min(fitting, max(GROUP_MIN, half))

    async def _void(self, batch: UsageBatch, late: Sequence[int]) -> None:
        """Refuse the calls at these places of a batch that is acknowledged, let the others pass, and have those not counted."""
        committed, self._committed = self._committed, ()
        refused = frozenset(late)
        self._answer([waiter for place, waiter in enumerate(committed) if place not in refused], recorded=True)
        self._answer([committed[place] for place in late], recorded=False)
        retraction = msgspec.structs.replace(batch, retracted=True, voided=tuple(late))
        self._metrics.voided += len(late)
        try:
            await self._publish(retraction)
        except FATE_UNKNOWN as error:
            await self._take_back(retraction, error)

    async def _publish(self, batch: UsageBatch) -> None:
        message = Outgoing(self._subject, self._encode(batch), HEADERS)
        await publish_batch(self._nc(), [message], expected_last_sequence=None, timeout_s=self._timeout_s)

    async def _take_back(self, retraction: UsageBatch, error: Exception) -> None:
        self._obstacle = f"usage cannot be recorded: the USAGE stream did not acknowledge ({error or type(error).__name__})"
        log.warning("gate: %s", self._obstacle)
        self._answer(self._take_all(), recorded=False)
        for delay_s in chain(RETRY_S, repeat(RETRY_MAX_S)):
            await asyncio.sleep(delay_s)
            if not self._nc().is_connected:
                continue
            try:
                await self._publish(retraction)
            except FATE_UNKNOWN:
                continue
            break
        self._obstacle = ""
        self._metrics.retractions += 1
        log.warning("gate: usage can be recorded again; what was not acknowledged is taken back")

    def _take_all(self) -> Sequence[_Waiting]:
        taken = [*self._committing, *self._collecting]
        self._committing = ()
        self._collecting.clear()
        return taken

    def _answer_committed(self) -> None:
        committed, self._committed = self._committed, ()
        self._answer(committed, recorded=True)

    @staticmethod
    def _answer(waiting: Sequence[_Waiting], *, recorded: bool) -> None:
        for waiter in waiting:
            try:
                waiter.recorded(recorded)
            except Exception:
                log.exception("gate: a call could not be answered")
