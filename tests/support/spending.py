"""Gates that ask, spend, return and count at random, all at once, on rows of metering; and what must hold after each step."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from random import Random
from typing import Final

import msgspec
from nats.aio.client import Client

from shared.clock import FixedClock
from shared.commands.quota import Leased, Returned, Short, Wish
from shared.postgres import Connection, Pool
from shared.windows import CivilWindows, civil
from tests.support.quota_rows import SERVICE, A, B, Wisher, above_limit, account_limit, count_units, granting_on, limit

# Several do it at once here, which the one keeper never does: what another is at is left to it.
CLOSE_COUNTED: Final = """
    UPDATE quota_lease SET closed_at = now() WHERE lease = ANY(ARRAY(
        SELECT lease FROM quota_lease WHERE counted >= stated FOR UPDATE SKIP LOCKED))
"""


class Spent(msgspec.Struct):
    """A lease as its gate holds it. `waiting` is spent, but not counted yet."""

    client_id: str
    at: datetime
    units: int
    spent: int = 0
    waiting: int = 0


class Crowd:
    """Six gates at three workers. Limits are set at random; after each step what is counted and set aside is looked at by SQL,
    and what was admitted by what the gates have spent."""

    def __init__(self, pool: Pool, nc: Client, clock: FixedClock, zone: str, random: Random) -> None:
        self.granted = 0
        self.refused = 0
        self._pool = pool
        self._clock = clock
        self._windows: CivilWindows = civil(zone)
        self._zone = zone
        self._random = random
        workers = [granting_on(pool, nc, clock) for _ in range(3)]
        self._gates = [Wisher(workers[n % 3], clock, f"gate-{n}", n % 4) for n in range(6)]
        self._leases: list[dict[str, Spent]] = [{} for _ in self._gates]
        self._admitted: Counter[tuple[str, str, datetime]] = Counter()
        self._highest: dict[tuple[str, str], int] = {}
        self._days: set[datetime] = set()

    @property
    def days_seen(self) -> int:
        return len(self._days)

    async def step(self, connection: Connection) -> None:
        """Some of the limits change; then every gate does something, all at once; then the invariants are looked at."""
        self._days.add(self._windows.day(self._clock.now()).start)
        if self._random.random() < 0.3 or not self._highest:
            await self._change_limits(connection)
        before = {tuple(row[:3]): row[3] for row in await above_limit(connection)}
        await asyncio.gather(*(self._act(number) for number in range(len(self._gates))))
        for row in await above_limit(connection):
            assert row[3] <= before.get(tuple(row[:3]), 0), f"{row} grew above its limit; before: {before}"
        for (client_id, period, start), units in self._admitted.items():
            highest = self._highest.get((client_id, period))
            assert highest is None or units <= highest, f"{client_id} {period} {start}: {units} of {highest} admitted"
        self._clock.advance(self._random.choice([0, 0.2, 1]))

    async def _change_limits(self, connection: Connection) -> None:
        for client_id in (A, B):
            daily, monthly = self._random.randint(0, 120), self._random.randint(50, 200)
            await limit(connection, client_id, daily, monthly)
            self._raise(client_id, "d", daily)
            self._raise(client_id, "m", monthly)
        monthly = self._random.randint(100, 300)
        await account_limit(connection, monthly)
        self._raise("", "m", monthly)

    def _raise(self, client_id: str, period: str, to: int) -> None:
        self._highest[client_id, period] = max(to, self._highest.get((client_id, period), 0))

    async def _act(self, number: int) -> None:
        leases = self._leases[number]
        self._spend(leases)
        for lease, held in list(leases.items()):
            if held.waiting and self._random.random() < 0.6:
                async with self._pool.acquire() as connection:
                    await count_units(connection, held.client_id, held.at, held.waiting, lease, self._zone)
                held.waiting = 0
        returned = [Returned(lease, held.spent) for lease, held in leases.items() if self._random.random() < 0.3]
        given_up = {one.lease: leases.pop(one.lease) for one in returned}
        wishes = [self._wish(leases) for _ in range(self._random.randint(0, 3))]
        answers = await self._gates[number].ask(*wishes, returned=returned)
        for wish, answer in zip(wishes, answers, strict=True):
            if isinstance(answer, Leased):
                self.granted += 1
                held = leases.setdefault(answer.lease, Spent(wish.client_id, wish.at, 0))
                held.units = answer.units
            elif isinstance(answer, Short):
                self.refused += 1
        async with self._pool.acquire() as connection:  # what was still on its way
            for lease, held in given_up.items():
                if held.waiting:
                    await count_units(connection, held.client_id, held.at, held.waiting, lease, self._zone)
            closable = [lease for lease, held in leases.items() if held.spent == held.units and not held.waiting]
            await connection.execute(CLOSE_COUNTED)
            await connection.execute("UPDATE quota_lease SET closed_at = now() WHERE lease = ANY($1::text[])", closable)
            for lease in closable:
                del leases[lease]

    def _spend(self, leases: dict[str, Spent]) -> None:
        for held in leases.values():
            units = self._random.randint(0, held.units - held.spent)
            held.spent += units
            held.waiting += units
            day, month = self._windows.day(held.at).start, self._windows.month(held.at).start
            self._admitted[held.client_id, "d", day] += units
            self._admitted[held.client_id, "m", month] += units
            self._admitted["", "m", month] += units

    def _wish(self, leases: dict[str, Spent]) -> Wish:
        client_id = self._random.choice([A, B])
        mine = [lease for lease, held in leases.items() if held.client_id == client_id]
        needed = self._random.choice([1, 1, 2, 7])
        named = self._random.choice(mine) if mine and self._random.random() < 0.6 else ""
        return Wish(client_id, SERVICE, needed + self._random.randint(0, 30), needed, self._clock.now(), named)
