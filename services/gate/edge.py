"""The hot path: one bare ASGI function from a request to its answer, without a framework."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from services.gate import answers
from services.gate.answers import Answer
from services.gate.commit import Committer
from services.gate.domain import Apps, Pass, Reason, Rules, decide
from services.gate.metrics import Metrics
from services.gate.request import read_call
from shared.clock import Clock
from shared.events.usage import UsageRecord
from shared.service import Receive, Scope, Send

log = logging.getLogger(__name__)

PREFIX: Final = "/authorize/"
HEADERS_BYTES_MAX: Final = 65_536
"""Names and values of a request's headers together, four times what proxies send."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


class Edge:
    """Answers `ANY /authorize/{service}`, and 404/300 for any other path. The request's body is not read.

    `refusals` has the answer for every Reason; `ready` says whether all applications are known.
    """

    def __init__(
        self,
        apps: Apps,
        rules: Rules,
        refusals: dict[Reason, Answer],
        committer: Committer,
        ready: Callable[[], bool],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._apps = apps
        self._rules = rules
        self._refusals = refusals
        self._committer = committer
        self._ready = ready
        self._clock = clock
        self._outcomes = metrics.outcomes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - a body is not read
        if scope["type"] != "http":
            return
        try:
            now = self._clock.now()
            decision = self._decide(scope, now)
            if isinstance(decision, Pass) and not await self._record(decision, now):
                decision = answers.NOT_RECORDED
        except Exception as error:
            # The error's own text is left out: it might quote what the caller sent.
            log.error("gate: %s while deciding\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))  # noqa: TRY400
            decision = answers.UNEXPECTED
        if isinstance(decision, Pass):
            self._outcomes["passed"] += 1
            await send(answers.passed(decision))
            await send(answers.NO_BODY)
        else:
            self._outcomes[decision.outcome] += 1
            await send(decision.start)
            await send(decision.body)

    def _decide(self, scope: Scope, now: datetime) -> Pass | Answer:
        path: str = scope["path"]
        if not path.startswith(PREFIX):
            return answers.NOT_FOUND
        service = path[len(PREFIX) :]
        if service not in self._rules.services:
            return self._refusals[Reason.UNKNOWN_SERVICE]
        if not self._ready():
            return answers.STARTING
        if self._committer.blocked:
            return answers.NOT_RECORDED
        if self._committer.full:
            return answers.OVERLOADED
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if sum([len(name) + len(value) for name, value in headers]) > HEADERS_BYTES_MAX:
            return answers.HEADERS_TOO_LARGE
        decision = decide(self._apps, self._rules, service, read_call(headers, scope["query_string"]), now)
        return self._refusals[decision] if isinstance(decision, Reason) else decision

    async def _record(self, decision: Pass, now: datetime) -> bool:
        """True when the call's usage is in the USAGE stream. A caller that has gone meanwhile stays counted: it was let in."""
        occurred_at_us = (now - EPOCH) // MICROSECOND
        record = UsageRecord(decision.client_id, decision.service, occurred_at_us, decision.quantity, decision.secret_id)
        return await self._committer.record(record)
