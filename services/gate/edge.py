"""The hot path: from a request to its answer in two steps of the event loop, before and after the record is on disk."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Final

from services.gate import answers
from services.gate.answers import Answer
from services.gate.commit import Committer
from services.gate.domain import Apps, Pass, Reason, Rules, decide
from services.gate.metrics import Metrics
from services.gate.request import read_call
from shared.clock import Clock
from shared.events.usage import UsageRecord
from shared.http_direct import Reply
from shared.service import Scope

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

    def __call__(self, scope: Scope, reply: Reply) -> None:
        """Decide, then: refuse, or record the call and answer once that is done. Never raises."""
        try:
            now = self._clock.now()
            decision = self._decide(scope, now)
            if isinstance(decision, Answer):
                self._refuse(decision, reply)
            else:
                self._committer.record(_record_of(decision, now), partial(self._recorded, decision, reply))
        except Exception as error:
            # The error's own text is left out: it might quote what the caller sent.
            log.error("gate: %s while deciding\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))  # noqa: TRY400
            self._refuse(answers.UNEXPECTED, reply)

    def _recorded(self, decision: Pass, reply: Reply, recorded: bool) -> None:
        """Answer a call whose record is in the USAGE stream, or is taken back. Who has gone stays counted: it was let in."""
        if recorded:
            self._outcomes["passed"] += 1
            reply(answers.passed(decision), b"")
        else:
            self._refuse(answers.NOT_RECORDED, reply)

    def _refuse(self, answer: Answer, reply: Reply) -> None:
        self._outcomes[answer.outcome] += 1
        reply(answer.head, answer.body)

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
        if sum(map(len, chain.from_iterable(headers))) > HEADERS_BYTES_MAX:
            return answers.HEADERS_TOO_LARGE
        decision = decide(self._apps, self._rules, service, read_call(headers, scope["query_string"]), now)
        return self._refusals[decision] if isinstance(decision, Reason) else decision


def _record_of(decision: Pass, now: datetime) -> UsageRecord:
    return UsageRecord(decision.client_id, decision.service, (now - EPOCH) // MICROSECOND, decision.quantity, decision.secret_id)
