"""The hot path: from a request to its answer in two steps of the event loop, before and after the record is on disk."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Final, assert_never

from services.gate import answers
from services.gate.answers import Answer
from services.gate.commit import Committer
from services.gate.domain import Apps, Pass, Reason, Rules, decide
from services.gate.leases import Taken, Verdict
from services.gate.leasing import Leasing
from services.gate.limits import Limits
from services.gate.metrics import Metrics
from services.gate.request import read_call
from shared.clock import Clock
from shared.commands.quota import Short, Undecided, Unlimited
from shared.events.usage import UsageRecord
from shared.http_direct import Request
from shared.windows import to_us

log = logging.getLogger(__name__)

PREFIX: Final = "/authorize/"
HEADERS_BYTES_MAX: Final = 65_536
"""Names and values of a request's headers together, four times what proxies send."""


class Edge:
    """Answers `ANY /authorize/{service}`, and 404/300 for any other path. The request's body is not read.

    `refusals` has the answer for every Reason; `ready` says whether all applications and limits are known. At most `waiting_max`
    calls may wait, for units or for their record, when one comes that may have to wait for units.
    """

    def __init__(
        self,
        apps: Apps,
        rules: Rules,
        refusals: dict[Reason, Answer],
        committer: Committer,
        limits: Limits,
        leasing: Leasing,
        ready: Callable[[], bool],
        clock: Clock,
        metrics: Metrics,
        *,
        waiting_max: int,
    ) -> None:
        self._apps = apps
        self._rules = rules
        self._refusals = refusals
        self._committer = committer
        self._limits = limits
        self._leasing = leasing
        self._waiting_max = waiting_max
        self._ready = ready
        self._clock = clock
        self._outcomes = metrics.outcomes

    def __call__(self, request: Request) -> None:
        """Decide, then: refuse, or get units if there is a limit, record the call, and answer once that is done. Never raises."""
        try:
            now = self._clock.now()
            decision = self._decide(request, now)
            if isinstance(decision, Answer):
                self._refuse(decision, request)
            elif self._limits.apply_to(decision):
                self._lease(decision, request)
            else:
                self._record(decision, request, to_us(now))
        except Exception as error:
            self._fail(error, request)

    def _fail(self, error: Exception, request: Request) -> None:
        # The error's own text is left out: it might quote what the caller sent.
        log.error("gate: %s while deciding\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        self._refuse(answers.UNEXPECTED, request)

    def _record(self, decision: Pass, request: Request, occurred_at_us: int) -> None:
        record = UsageRecord(decision.client_id, decision.service, occurred_at_us, decision.quantity, decision.secret_id)
        self._committer.record(record, partial(self._recorded, decision, request))

    def _recorded(self, decision: Pass, request: Request, recorded: bool) -> None:
        """Answer a call whose record is in the USAGE stream, or is taken back. Who has gone stays counted: it was let in."""
        if recorded:
            self._outcomes["passed"] += 1
            request.reply(answers.passed(decision), b"")
        else:
            self._refuse(answers.NOT_RECORDED, request)

    def _lease(self, decision: Pass, request: Request) -> None:
        """Have the call get units: now, or after others."""
        if self._leasing.waiting + self._committer.waiting >= self._waiting_max:
            self._refuse(answers.OVERLOADED, request)
            return
        told = partial(self._told, decision, request)
        verdict = self._leasing.take((decision.client_id, decision.service), decision.account, decision.quantity, told)
        if verdict is not None:
            self._leased(decision, request, verdict)

    def _told(self, decision: Pass, request: Request, verdict: Verdict) -> None:
        """A call that has waited for units. Never raises."""
        try:
            self._leased(decision, request, verdict)
        except Exception as error:
            self._fail(error, request)

    def _leased(self, decision: Pass, request: Request, verdict: Verdict) -> None:
        match verdict:
            case Taken():
                self._spend(decision, request, verdict)
            case Unlimited():
                self._record(decision, request, to_us(self._clock.now()))
            case Short():
                self._refuse(answers.quota_short(verdict, decision.quantity, self._clock.now()), request)
            case Undecided():
                self._refuse(answers.QUOTA_UNDECIDED, request)
            case _:
                assert_never(verdict)

    def _spend(self, decision: Pass, request: Request, taken: Taken) -> None:
        """Record a call with its lease. It is of the moment at which the units were taken: the lease is for that day."""
        if self._committer.blocked or self._committer.full:
            self._leasing.put_back(taken, decision.quantity)
            self._refuse(answers.NOT_RECORDED, request)
            return
        record = UsageRecord(
            decision.client_id, decision.service, taken.at_us, decision.quantity, decision.secret_id, taken.lease
        )
        self._committer.record(record, partial(self._spent, decision, request, taken))

    def _spent(self, decision: Pass, request: Request, taken: Taken, recorded: bool) -> None:
        """As `_recorded`, for a call with a lease."""
        if recorded:
            self._outcomes["passed"] += 1
            request.reply(answers.passed(decision, taken.remaining), b"")
        elif self._leasing.still_good(taken.lease):
            self._refuse(answers.NOT_RECORDED, request)
        else:
            self._refuse(answers.LEASE_ENDED, request)

    def _refuse(self, answer: Answer, request: Request) -> None:
        self._outcomes[answer.outcome] += 1
        request.reply(answer.head, answer.body)

    def _decide(self, request: Request, now: datetime) -> Pass | Answer:
        path = request.path
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
        headers = request.headers
        if len(b"".join(chain.from_iterable(headers))) > HEADERS_BYTES_MAX:
            return answers.HEADERS_TOO_LARGE
        decision = decide(self._apps, self._rules, service, read_call(headers, request.query), now)
        return self._refusals[decision] if isinstance(decision, Reason) else decision
