"""LeaseQuota: units set aside for gates. Any worker answers; locks in the database make it one decision at a time by scope."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from faststream.nats import NatsBroker

from services.metering.fields import CLIENT_ID
from services.metering.grants import Book, Scope, Terms, unanswerable
from services.metering.guard import Guard
from services.metering.metrics import QuotaMetrics
from services.metering.setting_aside import (
    Home,
    Place,
    Snapshot,
    lock_scopes,
    mark_exhausted,
    read_facts,
    read_homes,
    take_back,
    write_leases,
)
from shared.clock import Clock
from shared.commands.metering import SERVICE
from shared.commands.quota import RECALL_SUBJECT, SUBJECT, WISHES_MAX, Answer, LeaseQuota, QuotaLeases, Recall, Undecided, Wish
from shared.commands.responder import respond
from shared.errors import FieldProblem, InvalidInput, MalformedRequest, Unavailable
from shared.events.usage import RECORDS_SUBJECT
from shared.ids import new_lease_id
from shared.postgres import Connection, Pool
from shared.streams.jetstream import NATS_FAILURES, Connected
from shared.streams.passing import may_pass
from shared.windows import Window, civil

WORKERS_MAX: Final = 8
ACQUIRE_S: Final = 2.0
TRIES_MAX: Final = 3
RECALL_S: Final = 0.05
"""A scope is recalled at most once in this time."""
REMEMBERED_MAX: Final = 100_000
INT64: Final = 2**63
_PUBLISHER: Final = re.compile(r"[\x21-\x7e]{1,64}", re.ASCII)
_LEASE: Final = re.compile(r"[a-z0-9]{1,32}", re.ASCII)


class Granted(NamedTuple):
    """What came of one transaction."""

    answers: tuple[Answer, ...]
    recalls: frozenset[Scope]


class Started(NamedTuple):
    """What there is once the service has started."""

    pool: Pool
    guard: Guard
    metrics: QuotaMetrics


class _Asked(NamedTuple):
    """A wish that can be looked at: its place in the request, and the windows of its account at `wish.at`."""

    place: int
    wish: Wish
    home: Home
    day: Window
    month: Window


class _OutOfDate(Exception):
    """What was remembered when the locks were taken is not so any more."""


class Granting:
    """Answers LeaseQuota. Before `start` it answers Unavailable."""

    def __init__(self, terms: Terms, partitions: int, nc: Connected, clock: Clock) -> None:
        self._terms = terms
        self._partitions = partitions
        self._nc = nc
        self._clock = clock
        self._started: Started | None = None
        self._homes: dict[str, Home] = {}
        self._limited: set[tuple[str, str]] = set()
        self._recalled: dict[Scope, float] = {}

    def start(self, started: Started) -> None:
        """Answer from now on."""
        self._started = started

    def subscribe(self, broker: NatsBroker) -> None:
        """Take the gates' requests; several workers share them (queue group)."""

        def read(data: bytes) -> LeaseQuota:
            return read_request(data, self._partitions)

        respond(broker, SUBJECT, SERVICE, read, self.lease_quota, msgspec.json.encode, WORKERS_MAX, in_document=False)

    async def lease_quota(self, request: LeaseQuota) -> QuotaLeases:
        """Take back what is returned and answer every wish. Raises Unavailable."""
        if self._started is None:
            raise Unavailable("Metering is starting.")
        granted = await self._grant(self._started, request)
        self._started.metrics.answered(granted.answers)
        await self._recall(self._started, granted.recalls)
        return QuotaLeases(answers=granted.answers)

    async def _grant(self, started: Started, request: LeaseQuota) -> Granted:
        floor = started.guard.floor
        try:
            for _ in range(TRIES_MAX):
                try:
                    async with started.pool.acquire(timeout=ACQUIRE_S) as connection, connection.transaction():
                        return await self._decide(connection, request, floor)
                except _OutOfDate:
                    continue
        except Exception as error:
            if not may_pass(error):
                raise
            raise Unavailable("Metering's database does not answer now. Trying again later is safe.") from error
        raise Unavailable("Accounts change faster than leases can be granted. Trying again is safe.")

    async def _decide(self, connection: Connection, request: LeaseQuota, floor: Mapping[str, int] | None) -> Granted:
        """One transaction's work. Raises _OutOfDate when it has to be done again."""
        publisher, subject = request.publisher, f"{RECORDS_SUBJECT}.{request.partition}"
        now = self._clock.now()
        answers: list[Answer] = [
            Undecided(unanswerable(wish, now, self._terms.test_quotas) or f"there is no application {wish.client_id} here")
            for wish in request.wishes
        ]
        asked = await self._look_at(connection, request.wishes, now)
        scopes = {scope for one in asked for scope in self._scopes(one)}
        await lock_scopes(connection, scopes)
        await take_back(connection, publisher, request.returned, [one.wish.lease for one in asked if one.wish.lease])
        if not asked:
            return Granted(tuple(answers), frozenset())
        snapshot = await read_facts(connection, publisher, subject, [_place(one) for one in asked], floor or {})
        self._check(asked, scopes, snapshot)
        book = Book(self._terms, new_lease_id, trusted=floor is not None and snapshot.trusted)
        for one in asked:
            if one.place in snapshot.facts:
                answers[one.place] = book.answer(one.wish, one.day, one.month, snapshot.facts[one.place])
        if not await write_leases(connection, publisher, subject, book.set_aside.values()):
            raise _OutOfDate
        await mark_exhausted(connection, book.exhausted)
        return Granted(tuple(answers), frozenset(book.recalls))

    async def _look_at(self, connection: Connection, wishes: Sequence[Wish], now: datetime) -> list[_Asked]:
        """The wishes that can be looked at."""
        if len(self._homes) > REMEMBERED_MAX:
            self._homes.clear()
        missing = {wish.client_id for wish in wishes if wish.client_id not in self._homes and CLIENT_ID.fullmatch(wish.client_id)}
        if missing:
            self._homes |= await read_homes(connection, missing)
        found: list[_Asked] = []
        windows: dict[tuple[str, datetime], tuple[Window, Window]] = {}  # a gate asks for all of its wishes at one moment
        for place, wish in enumerate(wishes):
            home = self._homes.get(wish.client_id)
            if home is not None and not unanswerable(wish, now, self._terms.test_quotas):
                when = (home.zone, wish.at)
                if when not in windows:
                    zone = civil(home.zone)
                    windows[when] = zone.day(wish.at), zone.month(wish.at)
                found.append(_Asked(place, wish, home, *windows[when]))
        return found

    def _scopes(self, asked: _Asked) -> list[Scope]:
        """What has to be locked for a wish: its own scope, and the account's if it is known to have a limit."""
        account, service = asked.home.account, asked.wish.service
        own = Scope(account, asked.wish.client_id, service)
        return [own, own._replace(client_id="")] if (account, service) in self._limited else [own]

    def _check(self, asked: Sequence[_Asked], locked: Set[Scope], snapshot: Snapshot) -> None:
        """Whether the right scopes were locked. What is remembered is right afterwards. Raises _OutOfDate."""
        if len(self._limited) > REMEMBERED_MAX:
            self._limited.clear()
        right = True
        for one in asked:
            facts = snapshot.facts.get(one.place)
            if facts is None:
                continue
            home = self._homes[one.wish.client_id] = snapshot.homes[one.wish.client_id]
            right = right and home == one.home
            if facts.account_monthly is not None:
                self._limited.add((home.account, one.wish.service))
                right = right and Scope(home.account, "", one.wish.service) in locked
        if not right:
            raise _OutOfDate

    async def _recall(self, started: Started, scopes: frozenset[Scope]) -> None:
        """Ask the gates for what they do not need. It may be lost: then leases end by themselves."""
        now_s = self._clock.monotonic()
        if len(self._recalled) > REMEMBERED_MAX:
            self._recalled.clear()
        for scope in scopes:
            if now_s < self._recalled.get(scope, -RECALL_S) + RECALL_S:
                continue
            self._recalled[scope] = now_s
            try:
                await self._nc().publish(RECALL_SUBJECT, msgspec.json.encode(Recall(**scope._asdict())))
            except NATS_FAILURES:
                continue
            started.metrics.recalled()


def _place(one: _Asked) -> Place:
    return Place(one.place, one.wish.client_id, one.wish.service, one.day.start, one.month.start, one.wish.lease)


_REQUEST: Final = msgspec.json.Decoder(LeaseQuota)


def read_request(data: bytes, partitions: int) -> LeaseQuota:
    """The request. Raises MalformedRequest or InvalidInput, naming the field."""
    try:
        request = _REQUEST.decode(data)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise _invalid(path.rstrip("`").lstrip(".") or "(whole)", problem) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedRequest("The message is not JSON in UTF-8.") from error
    if _PUBLISHER.fullmatch(request.publisher) is None:
        raise _invalid("publisher", "1 to 64 printable ASCII characters without space are allowed")
    if not 0 <= request.partition < partitions:
        raise _invalid("partition", f"0 to {partitions - 1} is allowed")
    _check_items(request)
    return request


def _check_items(request: LeaseQuota) -> None:
    for place, wish in enumerate(request.wishes):
        if wish.at.tzinfo is None:
            raise _invalid(f"wishes[{place}].at", "an offset from UTC is missing, such as Z")
        if wish.lease and _LEASE.fullmatch(wish.lease) is None:
            raise _invalid(f"wishes[{place}].lease", "a-z and 0-9 are allowed")
    for place, one in enumerate(request.returned):
        if _LEASE.fullmatch(one.lease) is None:
            raise _invalid(f"returned[{place}].lease", "a-z and 0-9 are allowed")
        if not 0 <= one.spent < INT64:
            raise _invalid(f"returned[{place}].spent", "an integer of 64 bits, not below 0, is expected")


def _invalid(field: str, problem: str) -> InvalidInput:
    hint = f"At most {WISHES_MAX} wishes and {WISHES_MAX} returned leases go into one request." if "length" in problem else ""
    return InvalidInput("The request breaks the rules named in `fields`.", [FieldProblem(field, problem, hint)])
