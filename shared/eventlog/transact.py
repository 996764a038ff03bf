"""Deciding: load, fold, decide, append, project, all or nothing, for as many waiting commands as there are.

Commands that arrive while others are decided go together into the next group: they are decided one after the other on each
other's results, but share its round trips and its one fsync. A refused command leaves nothing behind and disturbs no other.

A group is read with one statement and written with another one, which appends to the log at the positions that follow what was
read. If somebody else has appended meanwhile, those are taken: then nothing is written, and the group is decided anew, with the
log's head locked from before it is read. So are groups from the beginning that need more than that (`_needs_the_lock`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, Final, Generic, TypeAlias, TypeVar

import asyncpg

from shared.clock import Clock
from shared.commands.base import Command, Reply
from shared.errors import CommandReused, Conflict, TollbookError, Unavailable
from shared.eventlog.changes import Bound, Change, insert, renumbered
from shared.eventlog.decision import Decision
from shared.eventlog.facts import FactsOf, no_facts
from shared.eventlog.log import Entry, EventLog, Head, Meta, Placed, Recorded, changed_meanwhile, holding_the_head
from shared.eventlog.pending import Pending
from shared.eventlog.tables import Tables
from shared.eventlog.vault import Vault
from shared.events.codec import Event
from shared.postgres import Connection, Pool

log = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)
R = TypeVar("R", bound=Reply)
State = TypeVar("State")
Known: TypeAlias = Mapping[tuple[str, str], tuple[bytes, bytes | None]]
Facts = TypeVar("Facts")
Rows: TypeAlias = Mapping[Pending, Sequence[Any] | None]

BATCH_MAX: Final = 64
WAITING_MAX: Final = 2_000
ATTEMPTS_MAX: Final = 5
BACKOFF_S: Final = 0.1
LOCKED_FOR_S: Final = 5.0
"""How long the head is locked for every group after somebody else's was in the way: two that write much would meet each time."""
REVEALED_FOR: Final = "24 hours"
"""How long a stored reply may repeat a secret. The command stays known for ever; only what it revealed is forgotten."""

PASSING_ERRORS: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg's own confusion after a connection broke or a statement was given up
    asyncpg.OperatorInterventionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.TooManyConnectionsError,
    ConnectionError,
    TimeoutError,
)
"""Failures of the database that may be gone when the same transaction is tried again."""

FORGET_EVERY_S: Final = 3600

# What is read before deciding, in one statement; if the head is locked, it must come after the one that does it, to see what was
# committed until then. `known`: those of the commands ($1 accounts, $2 ids) that were done before; `past`: the events of the
# streams $3; then the rows of each statement of facts, by keys.
_READ: Final = """
    SELECT position, hash,
        ARRAY(
            SELECT row(account, command_id, fingerprint, reply) FROM command
            WHERE (account, command_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
        ) AS known,
        ARRAY(
            SELECT row(stream, type, schema, data::text) FROM event WHERE stream = ANY($3::text[]) ORDER BY stream, version
        ) AS past{facts}
    FROM log_head
"""
_READ_ARGUMENTS: Final = 3
_READ_COLUMNS: Final = 4
_KEEP_COMMANDS: Final = insert(
    "command",
    {
        "account": "text",
        "command_id": "text",
        "fingerprint": "bytea",
        "reply": "bytea",
        "reveals": "text",
        "recorded_at": "timestamptz",
    },
)
_FORGET_REVEALED: Final = f"""
    UPDATE command SET reply = NULL
    WHERE reveals IS NOT NULL AND reply IS NOT NULL AND recorded_at < $1::timestamptz - interval '{REVEALED_FOR}'
"""  # noqa: S608 - a constant


class Transactor(Generic[E]):
    """Runs commands on one service's log. `project` turns each event into changes of the service's own read tables.

    `committed` is called after each commit that appended something: the relay's wake.
    """

    def __init__(
        self,
        pool: Pool,
        event_log: EventLog[E],
        vault: Vault,
        project: Callable[[Placed, E], list[Change]],
        clock: Clock,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._log = event_log
        self._vault = vault
        self._project = project
        self._clock = clock
        self._committed = committed
        self._waiting: deque[Pending] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._forget_at = clock.monotonic()
        self._locked_until = clock.monotonic()

    async def run(
        self,
        command: Command,
        stream: str,
        initial: State,
        evolve: Callable[[State, E], State],
        decide: Callable[[State, Facts], Decision[E, R]],
        reply: type[R],
        facts: Callable[[Connection], Awaitable[Facts]] = no_facts,  # type: ignore[assignment]  # Facts is None then
    ) -> R:
        """Decide `command` on `stream` and return its reply, which is the first one if the command was done before.

        `facts` reads what else the decision needs of the command's account, and of no other, under the head's lock (a `FactsOf`
        may do without it). Raises what `decide` raises; CommandReused when the id was used for something else; Unavailable when
        the database does not answer, too many commands wait, or the log's guard has nothing done.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable("Too many commands are waiting. Trying again in a moment is safe.")
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append(Pending(command, stream, initial, evolve, decide, reply, facts, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="transact")
        return await done

    async def run_in(
        self,
        connection: Connection,
        command: Command,
        stream: str,
        initial: State,
        evolve: Callable[[State, E], State],
        decide: Callable[[State, Facts], Decision[E, R]],
        reply: type[R],
        facts: Callable[[Connection], Awaitable[Facts]] = no_facts,  # type: ignore[assignment]  # Facts is None then
    ) -> R:
        """The same inside the caller's transaction: how a reaction's events commit together with its checkpoint."""
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        await self._log.lock_head(connection)
        outcome = await self._decide_all(connection, [Pending(command, stream, initial, evolve, decide, reply, facts, done)])
        outcome.settle()
        return await done

    async def _work(self) -> None:
        """Decide until nobody waits. Whatever goes wrong reaches those who wait for it."""
        while self._waiting:
            batch = self._next_batch()
            try:
                await self._commit(batch)
            except Exception as error:
                for pending in batch:
                    if not pending.done.done():
                        pending.done.set_exception(error)
            except asyncio.CancelledError:
                for pending in (*batch, *self._waiting):
                    pending.done.cancel()
                raise

    def _next_batch(self) -> list[Pending]:
        """The commands that wait, up to a bound; one that repeats an id of the batch waits for the next."""
        batch: dict[tuple[str, str], Pending] = {}
        while self._waiting and len(batch) < BATCH_MAX and self._waiting[0].key not in batch:
            pending = self._waiting.popleft()
            batch[pending.key] = pending
        return list(batch.values())

    async def _commit(self, batch: Sequence[Pending]) -> None:
        locked = _needs_the_lock(batch) or self._clock.monotonic() < self._locked_until
        for attempt in range(ATTEMPTS_MAX):
            try:
                await self._decide_and_write(batch, locked)
            except PASSING_ERRORS as error:
                # Even if the commit went through and only its answer was lost: the command ids make the repetition harmless.
                log.warning("transaction failed, attempt %d: %s", attempt + 1, type(error).__name__)
                await asyncio.sleep(BACKOFF_S * 2**attempt)
            except (asyncpg.PostgresError, Conflict):
                if not locked:  # most likely somebody else has appended: with the lock it is this group's own fault
                    locked, self._locked_until = True, self._clock.monotonic() + LOCKED_FOR_S
                    continue
                if len(batch) == 1:
                    raise
                for pending in batch:  # one of them broke the transaction: only that one shall fail
                    await self._alone(pending)
                return
            else:
                return
        raise Unavailable("The database does not answer now. Repeating the same command id later is safe.")

    async def _alone(self, pending: Pending) -> None:
        try:
            await self._commit([pending])
        except Exception as error:
            pending.done.set_exception(error)

    async def _decide_and_write(self, batch: Sequence[Pending], locked: bool) -> None:
        async with self._pool.acquire(timeout=5) as connection:
            if self._clock.monotonic() >= self._forget_at:
                await connection.execute(_FORGET_REVEALED, self._clock.now())
                self._forget_at = self._clock.monotonic() + FORGET_EVERY_S
            async with holding_the_head(connection) if locked else nullcontext():
                outcome = await self._decide_all(connection, batch)
            outcome.settle()
            if outcome.appended:
                self._committed()

    async def _decide_all(self, connection: Connection, batch: Sequence[Pending]) -> _Outcome:
        """Decide and write: whole, in the transaction of `connection` or else in one of its own."""
        outcome = _Outcome()
        head, known, events, rows = await self._read(connection, batch)
        self._log.guard(head)
        fresh = self._answer_repeated(batch, known, outcome)
        if not fresh:
            return outcome
        tables = Tables(connection, self._vault, rows)
        kept: list[tuple[object, ...]] = []
        shredded: set[str] = set()
        for pending in fresh:
            facts = await tables.facts_for(pending)
            past = events[pending.stream]
            try:
                decision = pending.decide(pending.fold(past), facts)
            except TollbookError as error:
                outcome.refused.append((pending, error))
                continue
            meta = Meta(pending.command.command_id, pending.command.actor, pending.command.command_id)
            entries = [Entry(pending.stream, len(past), decision.events, meta)]
            entries += [Entry(stream, 0, events, meta) for stream, events in decision.begins.items()]
            recorded = self._log.prepare(head, entries, decision.at)
            if recorded:
                head = head._replace(position=recorded[-1].position, hash=recorded[-1].hash)
            outcome.appended.extend(recorded)
            past.extend(decision.events)
            decided = chain(decision.events, *decision.begins.values())
            pairs = zip(recorded, decided, strict=True)
            changes = [change for row, event in pairs for change in self._project(row, event)]
            tables.change(pending, changes, decision.seal)
            shredded |= set(decision.shred)
            kept.append(self._kept(pending, decision))
            outcome.replies.append((pending, decision.reply))
        also = self._log.writes(outcome.appended) if outcome.appended else []
        if kept:
            also.append(Bound(_KEEP_COMMANDS, [list(column) for column in zip(*kept, strict=True)]))
        try:
            async with connection.transaction() if shredded and not connection.is_in_transaction() else nullcontext():
                await tables.write(also)
                for id_ in sorted(shredded):  # after the replies are kept: it forgets one of this very batch too
                    await self._vault.shred(connection, id_)
        except asyncpg.UniqueViolationError as error:
            if error.table_name == "event":
                raise changed_meanwhile() from error
            raise
        return outcome

    async def _read(self, connection: Connection, batch: Sequence[Pending]) -> tuple[Head, Known, dict[str, list[E]], Rows]:
        """The end of the log; fingerprint and reply of each command that was done before; the events of each stream; the rows
        of facts that can be read together."""
        events: dict[str, list[E]] = {pending.stream: [] for pending in batch}
        accounts, ids = [pending.key[0] for pending in batch], [pending.key[1] for pending in batch]
        together: dict[str, list[Pending]] = {}
        for pending in batch:
            if isinstance(pending.facts, FactsOf):
                together.setdefault(pending.facts.statement, []).append(pending)
        keys = [sorted({pending.facts.key for pending in asking}) for asking in together.values()]
        row = await connection.fetchrow(_read_with(tuple(together)), accounts, ids, list(events), *keys)
        assert row is not None, "the migration inserts the one row"
        position, hash_, known, past = row[:_READ_COLUMNS]
        for stream, type_, schema, data in past:
            events[stream].append(self._log.codec.decode(type_, schema, data))
        rows: dict[Pending, Sequence[Any] | None] = {}
        for asking, found in zip(together.values(), row[_READ_COLUMNS:], strict=True):
            by_key = {one[0]: one for one in found}
            rows |= {pending: by_key.get(pending.facts.key) for pending in asking}
        return Head(position, hash_), {(one[0], one[1]): (one[2], one[3]) for one in known}, events, rows

    def _answer_repeated(self, batch: Sequence[Pending], known: Known, outcome: _Outcome) -> list[Pending]:
        """Commands that were not done before; the others get their first reply, or their refusal."""
        fresh: list[Pending] = []
        for pending in batch:
            if pending.key not in known:
                fresh.append(pending)
                continue
            try:
                outcome.replies.append((pending, self._first_reply(pending, *known[pending.key])))
            except TollbookError as error:
                outcome.refused.append((pending, error))
        return fresh

    def _first_reply(self, pending: Pending, fingerprint: bytes, sealed: bytes | None) -> Reply:
        """What was answered when the command was done. Raises CommandReused, Conflict and VaultKeyUnknown."""
        if not self._vault.is_fingerprint(fingerprint, pending.asked):
            raise CommandReused("This command id (Idempotency-Key) was used for another request. Use a new one for each wish.")
        if sealed is None:
            raise Conflict("This was done before. Its reply held a secret and is no longer kept: read the object instead.")
        reply: Reply = pending.reply.model_validate_json(self._vault.open(pending.reply_context, sealed))
        return reply

    def _kept(self, pending: Pending, decision: Decision[Any, Any]) -> tuple[object, ...]:
        reply = self._vault.seal(pending.reply_context, decision.reply.model_dump_json().encode())
        return (*pending.key, self._vault.fingerprint(pending.asked), reply, decision.reveals, self._clock.now())


@dataclass
class _Outcome:
    """What a transaction will have come to once it is committed; told to nobody before that."""

    replies: list[tuple[Pending, Reply]] = field(default_factory=list)
    refused: list[tuple[Pending, TollbookError]] = field(default_factory=list)
    appended: list[Recorded] = field(default_factory=list)

    def settle(self) -> None:
        for pending, reply in self.replies:
            if not pending.done.done():
                pending.done.set_result(reply)
        for pending, error in self.refused:
            if not pending.done.done():
                pending.done.set_exception(error)


def _needs_the_lock(batch: Sequence[Pending]) -> bool:
    """Whether facts are read in a way of their own, or must show what was decided before in the same group."""
    asking = [pending for pending in batch if pending.facts is not no_facts]
    if not all(isinstance(pending.facts, FactsOf) for pending in asking):
        return True
    return bool(asking) and len({pending.command.account for pending in batch}) < len(batch)


@lru_cache(maxsize=100)
def _read_with(facts: tuple[str, ...]) -> str:
    """The statement that reads these facts too."""
    statements = (renumbered(statement, _READ_ARGUMENTS + number) for number, statement in enumerate(facts))
    return _READ.format(facts="".join(f", ARRAY(SELECT row(f.*) FROM ({statement}) AS f)" for statement in statements))  # noqa: S608 - constants
