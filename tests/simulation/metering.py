"""A metering worker as the simulation has it: it counts, answers gates and keeps leases. What it remembers are only timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from services.metering import quota
from services.metering.ends import ACKNOWLEDGED_S
from shared.commands.quota import LeaseQuota, QuotaLeases, Short
from shared.events.usage import MSGPACK, UsageBatch
from tests.simulation.database import Database
from tests.simulation.world import Process, Step, World

LOOK_S: Final = 0.25
COUNT_S: Final = 1.0
"""How often is looked for messages that nobody spoke of; those that come are counted at once."""
RECALL_S: Final = 0.05
HEADERS: Final = {"content-type": MSGPACK}
_encode: Final = msgspec.msgpack.Encoder().encode

Recall = Callable[[str], None]
"""Asks all gates for units of an application, or "": of all."""
Found = Callable[[int], None]
"""Is told where a partition ends."""


class Worker(Process):
    """`look_s` is how often it looks at the leases, `keeping_s` how long it may take from a look to what it writes after it, in
    each of two steps. After `cut_off`, its connection leads to a node that led USAGE and is cut off from the others, which have
    chosen another leader: it is told of nothing new, and nothing that it publishes is stored.
    """

    for_ever = 2

    def __init__(self, world: World, name: str, database: Database, recall: Recall) -> None:
        super().__init__(world, name)
        self.look_s = LOOK_S
        self.keeping_s = 0.02
        self._database = database
        self._recall = recall
        self._cut_off_until = 0.0
        self._ends_then: dict[str, int] = {}
        self.started()

    def started(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}
        self._recalled: dict[str, float] = {}
        self._marked: dict[str, int] = {}
        self.every(COUNT_S, self._count_all)
        self.after(self.world.random.uniform(0, self.look_s), self._keep)

    def cut_off(self, seconds: float) -> None:
        self.world.note(f"{self.name} is with the old leader of USAGE for {seconds:.1f} s")
        self._cut_off_until = self.world.now + seconds
        self._ends_then = {subject: self._database.stream.end(subject) for subject in self._database.progress}

    def let_in(self) -> None:
        """It is with the others again, at once."""
        self._cut_off_until = 0.0

    @property
    def is_cut_off(self) -> bool:
        return self.world.now < self._cut_off_until

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
        if self.is_cut_off or self.world.now < self._database.stalled_until:
            return
        if self._database.count(subject, self.world.random.randint(1, 20)):
            self.stored(subject)

    # -- keeping

    def _keep(self) -> None:
        """Look, then have the ends found, then write: each a moment later, and another worker may come between."""
        self.after(self.look_s, self._keep)
        now_s = self.interval_s()
        seen: dict[str, tuple[int, float]] = {}
        over: dict[str, list[tuple[str, int]]] = {}
        noted: dict[str, list[int | None]] = {}
        for lease, row in self._database.open.items():
            extensions, since = self._seen.get(lease, (-1, now_s))
            if begins_anew(row.extensions, extensions):
                since = now_s
            seen[lease] = row.extensions, since
            if row.end_sequence is not None or quota.may_look_for_end(now_s - since):
                over.setdefault(row.subject, []).append((lease, row.extensions))
                noted.setdefault(row.subject, []).append(row.end_sequence)
        self._seen = seen
        for subject, leases in over.items():
            self.after(
                self.world.random.uniform(0, self.keeping_s), self._finding(subject, noted[subject], self._writing(leases))
            )
        if seen:
            self._database.close()

    def _finding(self, subject: str, noted: list[int | None], found: Found) -> Step:
        """Have the end found if a lease has none, or one that is above what the partition seems to end at."""

        def find() -> None:
            ends = [end for end in noted if end is not None]
            if len(ends) < len(noted) or self.newest(subject) < max(ends):
                self.find_end(subject, found)

        return find

    def _writing(self, leases: list[tuple[str, int]]) -> Found:
        def found(end: int) -> None:
            def write() -> None:
                for lease, extensions in leases:
                    self._database.expire(lease, extensions, end)

            self.after(self.world.random.uniform(0, self.keeping_s), write)

        return found

    def newest(self, subject: str) -> int:
        """Where a partition ends, as whoever leads the stream says: too low, if that one is cut off."""
        return self._ends_then[subject] if self.is_cut_off else self._database.stream.end(subject)

    def find_end(self, subject: str, found: Found) -> None:
        """Publish a marker; where it is stored, if the acknowledgement comes in time."""
        seq = self._marked[subject] = self._marked.get(subject, 0) + 1
        publisher = f"{self.name}-{self.life}-{subject.rpartition('.')[2]}"
        data = _encode(UsageBatch(publisher=publisher, seq=seq, records=[]))
        asked_s, waiting = self.interval_s(), [found]

        def acknowledged(end: int) -> None:
            if waiting and self.interval_s() < asked_s + ACKNOWLEDGED_S:
                waiting.pop()(end)

        def store() -> None:
            if not self.is_cut_off:
                end = self._database.stream.store(subject, data, HEADERS)
                self.world.note(f"{publisher} marks {subject} at {end}")
                self.world.send(self.own(lambda: acknowledged(end)))

        self.world.send(store)


def begins_anew(extensions: int, seen: int) -> bool:
    """Whether a lease's timer starts now: it is new, or was extended since it was seen."""
    return extensions != seen
