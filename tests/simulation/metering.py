"""A metering worker as the simulation has it: it counts, answers gates and keeps leases. What it remembers are only timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services.metering import quota
from shared.commands.quota import LeaseQuota, QuotaLeases, Short
from tests.simulation.database import Database
from tests.simulation.world import Process, Step, World

LOOK_S: Final = 0.25
COUNT_S: Final = 1.0
"""How often is looked for messages that nobody spoke of; those that come are counted at once."""
RECALL_S: Final = 0.05

Recall = Callable[[str], None]
"""Asks all gates for units of an application, or "": of all."""


class Worker(Process):
    """`look_s` is how often it looks at the leases, `keeping_s` how long it may take from a look to what it writes after it, in
    each of two steps."""

    for_ever = 2

    def __init__(self, world: World, name: str, database: Database, recall: Recall) -> None:
        super().__init__(world, name)
        self.look_s = LOOK_S
        self.keeping_s = 0.02
        self._database = database
        self._recall = recall
        self.started()

    def started(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}
        self._recalled: dict[str, float] = {}
        self.every(COUNT_S, self._count_all)
        self.after(self.world.random.uniform(0, self.look_s), self._keep)

    # -- granting

    def answer(self, request: LeaseQuota) -> QuotaLeases:
        reply = self._database.answer(request)
        now_s = self.interval_s()
        for wish, answer in zip(request.wishes, reply.answers, strict=True):
            if isinstance(answer, Short) and answer.recallable:
                scope = "" if answer.whose == "account" else wish.client_id
                if now_s >= self._recalled.get(scope, 0.0) + RECALL_S:
                    self._recalled[scope] = now_s
                    self._recall(scope)
        return reply

    # -- counting

    def stored(self, subject: str) -> None:
        """A message was stored: it is delivered soon."""
        self.after(self.world.random.uniform(0.001, 0.03), lambda: self._count(subject))

    def _count_all(self) -> None:
        for subject in self._database.progress:
            self._count(subject)

    def _count(self, subject: str) -> None:
        if self.world.now >= self._database.stalled_until and self._database.count(subject, self.world.random.randint(1, 20)):
            self.stored(subject)

    # -- keeping

    def _keep(self) -> None:
        """Look, then look the end up, then write: each a moment later, and another worker may come between."""
        self.after(self.look_s, self._keep)
        now_s = self.interval_s()
        seen: dict[str, tuple[int, float]] = {}
        for lease, row in self._database.open.items():
            extensions, since = self._seen.get(lease, (-1, now_s))
            if begins_anew(row.extensions, extensions):
                since = now_s
            seen[lease] = row.extensions, since
            if row.end_sequence is None and quota.may_look_for_end(now_s - since):
                self.after(self.world.random.uniform(0, self.keeping_s), self._looking(lease, row.extensions, row.subject))
        self._seen = seen
        if seen:
            self._database.close()

    def _looking(self, lease: str, extensions: int, subject: str) -> Step:
        def look() -> None:
            end = self._database.stream.end(subject)
            self.after(self.world.random.uniform(0, self.keeping_s), lambda: self._database.expire(lease, extensions, end))

        return look


def begins_anew(extensions: int, seen: int) -> bool:
    """Whether a lease's timer starts now: it is new, or was extended since it was seen."""
    return extensions != seen
