"""The delivery worker: waiting notifications become messages, and messages are tried until their fate is recorded.

A message is committed before it is first tried, under an id that is its idempotency key at every channel. Trying takes a claim,
which one process at a time has; whoever dies loses it when it ends, and another one goes on. The fate of all that a message tells
is recorded in the transaction that removes it. So each request gets its one fate, whatever crashes, and nothing is forgotten.

There is one window in which something is sent twice: between the provider's acceptance and our commit. Who dies in it, or is cut
off from the database until its claim has ended, leaves a message that looks untried. It is then sent again with the same id:
`Message-ID`, `webhook-id`; whoever looks at that sees one message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from services.alerts import outbox
from services.alerts.metrics import DeliveryMetrics
from services.alerts.outbox import Loaded
from services.alerts.sending import GRACE_S, Sender, gone
from services.alerts.settling import Recorder
from shared.clock import Clock
from shared.eventlog.vault import Vault
from shared.events.alerts import Method
from shared.ids import new_id
from shared.postgres import Connection, Pool
from shared.readiness import Readiness
from shared.rounds import Rounds

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""How often it looks when nothing wakes it: what another process asked for, and claims of the dead, are found so."""
PAUSE_S: Final = 0.01
"""Between two looks, at least: what frees itself meanwhile is claimed together."""
REST: Final = 4
"""Between two rounds of making messages, at least so many times as long as the last one took: when very many wait that nobody
takes now, looking through them takes its time."""
CLAIM_MARGIN_S: Final = 5.0
"""A claim is for as long as a try may take and this: for reading what is to be said before, and recording what came after."""
COUNT_S: Final = 15.0
ACQUIRE_S: Final = 10.0
DRAIN_S: Final = 4.0
"""How long tries that are under way may take to end when the service stops: what is broken off may be sent twice."""


class Limits:
    """What a method may have: tries at once, and how long each takes at most."""

    def __init__(self, at_once: int, limit_s: float) -> None:
        self.at_once = at_once
        self.claim_s = limit_s + GRACE_S + CLAIM_MARGIN_S


class Worker:
    """Delivers until cancelled. Several processes may: they share the messages."""

    def __init__(
        self,
        pool: Pool,
        vault: Vault,
        sender: Sender,
        recorder: Recorder,
        limits: Mapping[Method, Limits],
        metrics: DeliveryMetrics,
        clock: Clock,
    ) -> None:
        self._pool = pool
        self._vault = vault
        self._sender = sender
        self._recorder = recorder
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._name = new_id()
        self._claims = 0
        self._trying: dict[str, tuple[Method, asyncio.Task[None]]] = {}
        self._rounds = Rounds("delivery", self._round, POLL_S)
        self._counted_at: float | None = None
        self._rest_until = 0.0

    def wake(self) -> None:
        """Something was committed: look now. Call it from the event loop's thread."""
        self._rounds.wake()

    def readiness(self) -> Readiness:
        """Ready while it can look, and record what it sent."""
        trouble = self._rounds.trouble or self._recorder.trouble
        resting = self._sender.resting()
        return Readiness(not trouble, trouble or (f"left alone after failures: {resting}" if resting else ""))

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            await self._rounds.run()
        finally:
            await self.drain()

    async def _round(self) -> float:
        next_at = await self.look()
        within_s = POLL_S if next_at is None else (next_at - self._clock.now()).total_seconds()
        self._rounds.every_s = max(0.0, min(POLL_S, within_s))
        return PAUSE_S

    async def drain(self) -> None:
        """Let what is under way end, for DRAIN_S; then break it off."""
        tasks = [task for _, task in self._trying.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=DRAIN_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> datetime | None:
        """Make messages of what is ready, and begin tries as far as there is room; returns when there is more to do."""
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            await self._recorder.ask(connection)
            ready_at = await self._make(connection)
            found = await outbox.outlook(connection, self._clock.now())
            for method in found.methods:
                await self._begin(connection, method)
            await self._count(connection)
        return min((at for at in (ready_at, found.next_at) if at is not None), default=None)

    async def _make(self, connection: Connection) -> datetime | None:
        """Make messages, unless that was done a moment ago; when there is more to do."""
        began = self._clock.monotonic()
        if began < self._rest_until:
            return self._clock.now() + timedelta(seconds=self._rest_until - began)
        ready_at = await outbox.make_messages(connection, self._clock.now())
        ended = self._clock.monotonic()
        self._rest_until = ended + REST * (ended - began)
        return ready_at

    async def _begin(self, connection: Connection, method: Method) -> None:
        limits = self._limits[method]
        mine = [id_ for id_, (of, _) in self._trying.items() if of == method]
        room = limits.at_once - len(mine)
        if room <= 0 or self._sender.rests(method):
            return
        self._claims += 1
        claimed = await outbox.claim(
            connection,
            method,
            self._clock.now(),
            by=f"{self._name}-{self._claims}",
            began_s=self._clock.monotonic(),
            claim_s=limits.claim_s,
            but=mine,
            at_most=room,
        )
        if not claimed:
            return
        for loaded in await outbox.load(connection, self._vault, claimed):
            task = asyncio.create_task(self._deliver(loaded), name=f"alerts:{method}")
            self._trying[loaded.claimed.message_id] = method, task

    async def _deliver(self, loaded: Loaded) -> None:
        """One try, to its record. Until that is committed nobody here tries it again, even when the claim has ended."""
        id_ = loaded.claimed.message_id
        try:
            outcome = await self._sender.attempt(loaded) if loaded.items else gone(loaded, self._clock.now())
            await self._recorder.record(outcome)
        except Exception as error:
            # Our own mistake before anything was sent: its claim ends, and it is tried again.
            log.error("alerts: a try has failed: %s", type(error).__name__, exc_info=error)  # noqa: TRY400
        finally:
            del self._trying[id_]
            self.wake()

    async def _count(self, connection: Connection) -> None:
        now = self._clock.monotonic()
        if self._counted_at is None or now - self._counted_at >= COUNT_S:
            self._metrics.waiting(await outbox.count_waiting(connection))
            self._counted_at = now
