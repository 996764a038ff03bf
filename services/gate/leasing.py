"""Getting quota leases: calls wait here, in order, while metering is asked for units; what is not needed is given back.

One request is under way at a time, for all applications whose calls wait or whose leases run low: docs/decisions/0013. What a
lease may be spent for is decided in leases.py; here are the connection, the clock and the calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
from nats.aio.msg import Msg

from services.gate.leases import Key, Leases, Taken, Verdict, Waiting
from services.gate.metrics import Metrics
from shared.clock import Clock
from shared.commands.base import ERROR_HEADER
from shared.commands.quota import RECALL_SUBJECT, SUBJECT, LeaseQuota, QuotaLeases, Recall, Returned, Undecided, Wish
from shared.readiness import Readiness
from shared.streams.jetstream import NATS_FAILURES, Connected, raise_if_cancelled
from shared.windows import to_us

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S: Final = 1.0
LINGER_S: Final = 0.003
"""How long a request waits for calls that come right after the first."""
GATHER_S: Final = 0.2
"""How long leases that run low wait for others, while no call waits: one request for many costs little more than one for one.
They last for longer than that (LOW_S)."""
PATIENCE_S: Final = 1.7
"""How long a call waits at most; looked at every LOOK_S, so that it is refused within two seconds."""
LOOK_S: Final = 0.05
TIDY_S: Final = 0.5
BACKOFF_S: Final = (0.05, 0.1, 0.2, 0.5)
DRAIN_S: Final = 5.0
RETURN_S: Final = 1.0

NOT_ANSWERED: Final = Undecided("metering does not answer")
STOPPING: Final = Undecided("the gate is being stopped")

Told = Callable[[Verdict], None]
"""Is told once what becomes of a call that waited."""


class Failed(Exception):
    """Metering's answer cannot be used; the text says why."""


class _Line(msgspec.Struct):
    """The calls of one application that wait, and their units together."""

    calls: deque[_Call]
    units: int = 0


class _Call(msgspec.Struct, gc=False):
    """A call that waits; `told` is None once it need not."""

    key: Key
    account: str
    quantity: int
    since_s: float
    told: Told | None


class Leasing:
    """Gives calls units of limits. `run` is its owner's background task; without it nothing is asked, and calls wait.

    `publisher` and `partition` are those of this gate's usage. `drained` returns once every record that is on its way has met its
    fate: what is left is returned after that.
    """

    def __init__(
        self,
        nc: Connected,
        leases: Leases,
        publisher: str,
        partition: int,
        clock: Clock,
        metrics: Metrics,
        drained: Callable[[], Awaitable[object]],
    ) -> None:
        self._nc = nc
        self._leases = leases
        self._publisher = publisher
        self._partition = partition
        self._clock = clock
        self._metrics = metrics
        self._drained = drained
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(QuotaLeases).decode
        self._lines: dict[Key, _Line] = {}
        self._arrivals: deque[_Call] = deque()
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._away_since_s: float | None = None
        self._trouble = ""
        self._stopping = False
        self.waiting = 0

    def readiness(self) -> Readiness:
        """Always ready: calls without a limit pass, and those whose leases last."""
        trouble = (
            self._trouble and f"metering does not lease quota ({self._trouble}): calls that need units of a limit are refused"
        )
        return Readiness(True, trouble)

    def take(self, key: Key, account: str, quantity: int, told: Told) -> Verdict | None:
        """What becomes of a call that is made now; None: it waits, and `told` is told, within two seconds. First come, first
        served: who comes while others of the application wait, waits too."""
        now_s = self._clock.monotonic()
        if key not in self._lines:
            verdict = self._leases.take(key, account, quantity, now_s, self._now_us())
            if verdict is not None:
                if self._leases.due():
                    self._wake.set()
                return verdict
        if self._stopping:
            return STOPPING
        if self._away_since_s is not None and now_s > self._away_since_s + PATIENCE_S:
            return NOT_ANSWERED
        call = _Call(key, account, quantity, now_s, told)
        line = self._lines.setdefault(key, _Line(deque()))
        line.calls.append(call)
        line.units += quantity
        self._arrivals.append(call)
        self.waiting += 1
        self._hurry()
        return None

    def put_back(self, taken: Taken, quantity: int) -> None:
        """These units were not used: no record names them, and none ever will."""
        self._leases.put_back(taken, quantity)

    def still_good(self, lease: str) -> bool:
        """Whether a call whose units are of `lease` may pass now."""
        return self._leases.still_good(lease, self._clock.monotonic())

    def revoke(self, account: str, client_id: str, service: str) -> None:
        """A limit of this scope has changed, or the application: its leases end. client_id "": all of the account's."""
        self._leases.revoke(account, client_id, service, self._clock.monotonic())
        if self._leases.due() or self._lines:
            self._hurry()

    def _hurry(self) -> None:
        """Somebody waits, here or at another gate: ask without gathering more."""
        self._wake.set()
        self._urgent.set()

    async def run(self) -> None:
        """Ask for ever. When cancelled, returns all leases once what is on its way is recorded."""
        subscription = await self._nc().subscribe(RECALL_SUBJECT, cb=self._recalled)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_asking(), name="gate:leases asking")
                tasks.create_task(self._keep_tidy(), name="gate:leases tidying")
        finally:
            self._stopping = True
            self._refuse_all()
            with suppress(*NATS_FAILURES):
                await subscription.unsubscribe()
            # In a task of its own, which nobody has cancelled yet.
            await asyncio.wait({asyncio.create_task(self._return_all(), name="gate:leases returning")})

    # -- asking

    async def _keep_asking(self) -> None:
        failures = 0
        while True:
            if not failures:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S if self._lines else TIDY_S):
                        await self._wake.wait()
                self._wake.clear()
                await asyncio.sleep(LINGER_S)
                await self._gather()
            try:
                await self._ask(probe=failures > 0)
                failures = 0
                self._answers_again()
            except (Failed, msgspec.MsgspecError, *NATS_FAILURES) as error:
                self._does_not_answer(str(error) or type(error).__name__)
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1

    async def _gather(self) -> None:
        """Wait for other leases to run low, until a call waits or units are asked back."""
        if not self._lines:
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    await self._urgent.wait()
        self._urgent.clear()

    async def _ask(self, *, probe: bool = False, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        """One request, if there is anything to ask for or to return; with `probe` in any case. Raises what it can fail with."""
        waiting = {key: Waiting(line.calls[0].quantity, line.units, line.calls[0].account) for key, line in self._lines.items()}
        asked_s = self._clock.monotonic()
        wishes = self._leases.wishes(waiting, asked_s, self._now_us())
        returned = self._leases.returns()
        if not wishes and not returned and not probe:
            return
        reply = await self._request(wishes, returned, timeout_s)
        self._leases.returned(returned)
        now_s = self._clock.monotonic()
        for wish, answer in zip(wishes, reply.answers, strict=True):
            self._leases.answered(wish, answer, asked_s, now_s)
        for wish in wishes:
            self._serve((wish.client_id, wish.service))
        if self._lines or self._leases.due():
            self._wake.set()

    async def _request(self, wishes: list[Wish], returned: list[Returned], timeout_s: float) -> QuotaLeases:
        nc = self._nc()
        if not nc.is_connected:
            raise Failed("NATS is not connected")
        body = LeaseQuota(publisher=self._publisher, partition=self._partition, wishes=tuple(wishes), returned=tuple(returned))
        self._metrics.lease_requests += 1
        answer = await nc.request(SUBJECT, self._encode(body), timeout=timeout_s)
        raise_if_cancelled()
        if answer.headers and ERROR_HEADER in answer.headers:
            raise Failed(f"it refused: {answer.headers[ERROR_HEADER]}")
        reply = self._decode(answer.data)
        if len(reply.answers) != len(wishes):
            raise Failed(f"it answered {len(reply.answers)} of {len(wishes)} wishes")
        return reply

    def _does_not_answer(self, trouble: str) -> None:
        if self._away_since_s is None:
            self._away_since_s = self._clock.monotonic()
            log.warning("gate: metering does not lease quota: %s", trouble)
        self._trouble = trouble

    def _answers_again(self) -> None:
        if self._away_since_s is not None:
            log.warning("gate: metering leases quota again")
        self._away_since_s, self._trouble = None, ""

    # -- the calls that wait

    def _serve(self, key: Key) -> None:
        """Tell the first calls of an application, as far as there is a verdict; the others go to the end of the line."""
        line = self._lines.get(key)
        while line is not None and line.calls:
            call = line.calls[0]
            verdict = self._leases.take(key, call.account, call.quantity, self._clock.monotonic(), self._now_us())
            if verdict is None:
                self._lines[key] = self._lines.pop(key)
                return
            self._leave(call)
            self._tell(call, verdict)

    def _tell(self, call: _Call, verdict: Verdict) -> None:
        told, call.told = call.told, None
        self.waiting -= 1
        try:
            if told is not None:
                told(verdict)
        except Exception:
            log.exception("gate: a call could not be answered")

    def _refuse_late(self) -> None:
        """Refuse the calls that have waited for PATIENCE_S: with what metering said last of their application, if anything."""
        late_s = self._clock.monotonic() - PATIENCE_S
        while self._arrivals and (self._arrivals[0].told is None or self._arrivals[0].since_s < late_s):
            call = self._arrivals.popleft()
            if call.told is not None:
                self._leave(call)
                self._tell(call, self._leases.last_word(call.key) or NOT_ANSWERED)

    def _leave(self, call: _Call) -> None:
        """Take a call off its line: always the first of it, since all wait for the same time."""
        line = self._lines[call.key]
        line.calls.popleft()
        line.units -= call.quantity
        if not line.calls:
            del self._lines[call.key]

    def _refuse_all(self) -> None:
        for call in self._arrivals:
            if call.told is not None:
                self._tell(call, STOPPING)
        self._arrivals.clear()
        self._lines.clear()

    # -- giving back

    async def _keep_tidy(self) -> None:
        tidied_s = self._clock.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            self._refuse_late()
            now_s = self._clock.monotonic()
            if now_s >= tidied_s + TIDY_S:
                tidied_s = now_s
                self._leases.tidy(now_s, self._now_us())
                if self._leases.due():
                    self._wake.set()

    async def _recalled(self, message: Msg) -> None:
        try:
            recall = msgspec.json.decode(message.data, type=Recall)
        except msgspec.MsgspecError as error:
            log.warning("gate: a recall of units cannot be read: %s", error)
            return
        self._leases.recall(recall.account, recall.client_id, recall.service)
        if self._leases.due():
            self._hurry()

    async def _return_all(self) -> None:
        """What cannot be returned in time comes back by itself, when the leases end."""
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._drained()
            self._leases.return_all()
            async with asyncio.timeout(RETURN_S):
                while self._leases.due():
                    await self._ask(timeout_s=RETURN_S)
        except (Failed, msgspec.MsgspecError, *NATS_FAILURES) as error:
            log.info("gate: leases are left to end by themselves: %s", str(error) or type(error).__name__)

    def _now_us(self) -> int:
        return to_us(self._clock.now())
