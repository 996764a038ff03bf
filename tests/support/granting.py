"""Metering's side of quota leases in one object: the rules of services/metering/quota.py applied to objects instead of rows.

For the gate's tests. It keeps what the invariants of docs/decisions/0013 speak of, and says when one is broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from services.metering.quota import LEASE_S, MARGIN_S, Constraint, Shortage, grant, outstanding
from shared.commands.base import ERROR_HEADER
from shared.commands.quota import (
    RECALL_SUBJECT,
    SUBJECT,
    Answer,
    Leased,
    LeaseQuota,
    QuotaLeases,
    Recall,
    Short,
    Undecided,
    Unlimited,
    Whose,
    Wish,
)
from shared.events.metering import CODEC, AccountLimitChanged, LimitChanged, MeteringEvent, Period, ThresholdCrossed
from shared.events.usage import UsageBatch, UsageRecord
from shared.ids import new_id
from shared.streams.publish import Outgoing, publish_batch
from shared.windows import from_us
from tests.support.servers import round_trip

UTC_NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Scope = tuple[str, str]
"""(client_id, service), or (account, service)."""


@dataclass
class Row:
    """One lease."""

    lease: str
    client_id: str
    service: str
    publisher: str
    day: datetime
    units: int
    seen_s: float
    counted: int = 0
    stated: int | None = None
    closed: bool = False

    @property
    def outstanding(self) -> int:
        return 0 if self.closed else outstanding(self.units, self.counted, self.stated)


@dataclass
class Granting:
    """Limits, usage and leases of applications of one account, whose day begins at `offset` from UTC."""

    offset: timedelta = timedelta(0)
    lease_s: float = LEASE_S
    margin_s: float = MARGIN_S
    gates: int = 1
    account: str = "acme"
    daily: dict[Scope, int] = field(default_factory=dict)
    monthly: dict[Scope, int] = field(default_factory=dict)
    of_account: dict[str, int] = field(default_factory=dict)
    tested: dict[Scope, int] = field(default_factory=dict)
    undecided: str = ""
    rows: dict[str, Row] = field(default_factory=dict)
    counted: dict[tuple[str, str, datetime], int] = field(default_factory=dict)
    requests: list[LeaseQuota] = field(default_factory=list)
    recalls: list[Recall] = field(default_factory=list)

    def answer(self, request: LeaseQuota, now_s: float) -> QuotaLeases:
        self.requests.append(request)
        for one in request.returned:
            row = self.rows.get(one.lease)
            if row is not None and row.stated is None and not row.closed:
                assert row.publisher == request.publisher
                assert 0 <= one.spent <= row.units, "more was spent than granted"
                row.stated = one.spent
        return QuotaLeases(answers=tuple(self._decide(request.publisher, wish, now_s) for wish in request.wishes))

    def _decide(self, publisher: str, wish: Wish, now_s: float) -> Answer:
        assert wish.wanted >= wish.needed >= 1
        if self.undecided:
            return Undecided(self.undecided)
        constraints = self._constraints(wish)
        if not constraints:
            return Unlimited()
        outcome = grant([constraint for constraint, _ in constraints], wish.wanted, wish.needed, self.gates)
        if isinstance(outcome, Shortage):
            return self._short(wish, outcome, constraints)
        return self._granted(publisher, wish, outcome.units, outcome.remaining, now_s)

    def _short(self, wish: Wish, shortage: Shortage, constraints: list[tuple[Constraint, Whose]]) -> Short:
        tightest = shortage.constraint
        whose = next(whose for constraint, whose in constraints if constraint is tightest)
        if shortage.recallable:
            self.recalls.append(Recall(account=self.account, client_id=tightest.client_id, service=wish.service))
        used, resets_at = tightest.counted, tightest.resets_at
        return Short(tightest.period, tightest.limit, used, resets_at, tightest.available, shortage.recallable, whose)

    def _granted(self, publisher: str, wish: Wish, units: int, remaining: int, now_s: float) -> Leased:
        day, end = self.day(wish.at)
        row = self.rows.get(wish.lease)
        if row is None or row.closed or row.stated is not None or row.day != day:
            row = Row(new_id(), wish.client_id, wish.service, publisher, day, 0, now_s)
            self.rows[row.lease] = row
        row.units += units
        row.seen_s = now_s
        return Leased(row.lease, row.units, units, self.lease_s, self.margin_s, day, end, remaining)

    def _constraints(self, wish: Wish) -> list[tuple[Constraint, Whose]]:
        day, month = self.day(wish.at), self.month(wish.at)
        scope = wish.client_id, wish.service
        limits: list[tuple[str, Period, int | None, Whose]] = [
            (wish.client_id, "daily", self.daily.get(scope), "application"),
            (wish.client_id, "monthly", self.monthly.get(scope), "application"),
            ("", "monthly", self.of_account.get(wish.service), "account"),
            (wish.client_id, "monthly", self.tested.get(scope), "test"),
        ]
        found: list[tuple[Constraint, Whose]] = []
        for client_id, period, limit, whose in limits:
            if limit is not None:
                start, end = day if period == "daily" else month
                counted = self.used(client_id, wish.service, start, end)
                out = sum(row.outstanding for row in self._rows_in(client_id, wish.service, start, end))
                found.append((Constraint(client_id, period, 1, limit, counted, out, start, end), whose))
        return found

    def used(self, client_id: str, service: str, start: datetime, end: datetime) -> int:
        """What is counted in [start, end) of the application ("": of all)."""
        return sum(
            units
            for (found, its, day), units in self.counted.items()
            if its == service and client_id in ("", found) and start <= day < end
        )

    def _rows_in(self, client_id: str, service: str, start: datetime, end: datetime) -> list[Row]:
        return [r for r in self.rows.values() if r.service == service and client_id in ("", r.client_id) and start <= r.day < end]

    def count(self, record: UsageRecord, sign: int = 1) -> None:
        """Count a record, or take it back (-1). One of a closed lease counts nothing."""
        day = self.day(from_us(record.occurred_at_us))[0]
        if record.lease:
            row = self.rows[record.lease]
            assert row.day == day, "a record of another day than its lease's"
            assert (row.client_id, row.service) == (record.client_id, record.service)
            if row.closed:
                return
            row.counted += sign * record.quantity
            assert 0 <= row.counted <= row.units, "more came from a lease than was granted"
        key = record.client_id, record.service, day
        self.counted[key] = self.counted.get(key, 0) + sign * record.quantity

    def close_ended(self, now_s: float) -> None:
        """Close what is over, given that all that can come has been counted."""
        for row in self.rows.values():
            if now_s >= row.seen_s + self.lease_s + self.margin_s:
                row.closed = True

    def day(self, at: datetime) -> tuple[datetime, datetime]:
        local = at.astimezone(timezone(self.offset)).replace(hour=0, minute=0, second=0, microsecond=0)
        return local, local + timedelta(days=1)

    def month(self, at: datetime) -> tuple[datetime, datetime]:
        first = self.day(at)[0].replace(day=1)
        return first, (first + timedelta(days=32)).replace(day=1)


def counted_of(batches: Sequence[UsageBatch]) -> dict[str, int]:
    """Units by lease ("": of none) as metering counts them: what was taken back, whole or in part, is subtracted."""
    seen: dict[tuple[str, int], UsageBatch] = {}
    for batch in batches:
        seen.setdefault((batch.publisher, batch.seq), batch)
    back: dict[tuple[str, int], UsageBatch] = {
        (batch.publisher, batch.seq): batch for batch in reversed(batches) if batch.retracted
    }
    units: dict[str, int] = {}
    for key, batch in seen.items():
        gone = back.get(key)
        if batch.retracted or (gone is not None and not gone.voided):
            continue
        for place, record in enumerate(batch.records):
            if gone is None or place not in (gone.voided or ()):
                units[record.lease] = units.get(record.lease, 0) + record.quantity
    return units


class Metering:
    """Answers gates as metering does, over NATS, and publishes its events; event N is not message N, for others come between."""

    def __init__(self, nc: Client, granting: Granting) -> None:
        self.granting = granting
        self.silent = False
        self.refuses = False
        self.hold = asyncio.Event()
        self.hold.set()
        self.nc = nc
        self._events = 0
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        self._subscription = await self.nc.subscribe(SUBJECT, cb=self._on_request)
        await round_trip(self.nc)

    async def stop(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()
            self._subscription = None
            await self.nc.flush()

    async def _on_request(self, message: Msg) -> None:
        if self.silent:
            return
        if self.refuses:
            await self.nc.publish(message.reply, b'{"code":"unexpected","detail":"no"}', headers={ERROR_HEADER: "unexpected"})
            return
        reply = self.granting.answer(msgspec.json.decode(message.data, type=LeaseQuota), asyncio.get_running_loop().time())
        await self.hold.wait()
        for recall in self.granting.recalls:
            await self.nc.publish(RECALL_SUBJECT, msgspec.json.encode(recall))
        self.granting.recalls.clear()
        await self.nc.publish(message.reply, msgspec.json.encode(reply))

    async def recalls(self, client_id: str, service: str = "csr") -> None:
        recall = Recall(account=self.granting.account, client_id=client_id, service=service)
        await self.nc.publish(RECALL_SUBJECT, msgspec.json.encode(recall))

    async def limits(self, client_id: str, daily: int | None, monthly: int | None = None, service: str = "csr") -> None:
        """The application's limits are now these: decided, and told."""
        scope = client_id, service
        for limits, units in ((self.granting.daily, daily), (self.granting.monthly, monthly)):
            limits.pop(scope, None)
            if units is not None:
                limits[scope] = units
        await self.says(
            LimitChanged(
                account=self.granting.account, client_id=client_id, service=service, version=1, daily=daily, monthly=monthly
            )
        )

    async def limits_account(self, monthly: int | None, service: str = "csr") -> None:
        self.granting.of_account.pop(service, None)
        if monthly is not None:
            self.granting.of_account[service] = monthly
        await self.says(AccountLimitChanged(account=self.granting.account, service=service, version=1, monthly=monthly))

    async def says(self, event: MeteringEvent) -> None:
        name = type(event).__name__
        self._events += 1
        headers = {
            "ce-specversion": "1.0",
            "ce-id": f"metering/{self._events}",
            "ce-type": CODEC.ce_type(name, 1),
            "ce-source": "/tollbook/metering",
            "ce-time": datetime.now(UTC).isoformat(),
        }
        message = Outgoing(f"metering.events.{name}", CODEC.encode(event), headers)
        await publish_batch(self.nc, [message], expected_last_sequence=None)

    async def tells_a_crossing(self) -> None:
        """One of the many events that say nothing about who is limited."""
        await self.says(
            ThresholdCrossed(
                account="acme",
                client_id="z" * 20,
                service="csr",
                period="daily",
                window_start=UTC_NOON,
                window_end=UTC_NOON,
                percent=10,
                used=1,
                limit=10,
                limit_version=1,
            )
        )
