"""One run: hammer at every door, hurt the processes, heal, use up what is left, and compare the books."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.exactness.accounts import Accounts
from tests.exactness.hammer import Answer, Connection, Hammer, called
from tests.exactness.stream import counted, lapsed_places, stored
from tests.exactness.town import LEASE_S, Town, running_town
from tests.support.gates import Issued, until

CALLERS: Final = 2
REST_S: Final = 60.0
USE_UP_S: Final = 60.0
KINDS: Final = ("kill gate", "kill gate", "pause gate", "pause gate", "kill worker", "pause worker", "nats")
WEIGHT_MAX: Final = 2_000
NEVER: Final = 5
"""So many refusals in a row, the limit used up: nothing more will pass."""


@dataclass(frozen=True)
class Size:
    """How long, how many gates, how many blows, and the largest limit."""

    gates: int = 8
    seconds: float = 25.0
    faults: int = 10
    limit_max: int = 3_000


@dataclass
class Limited:
    """An application and its limits."""

    app: Issued
    daily: int | None
    monthly: int | None


@dataclass
class Report:
    """What a run came to: it is good without `violations`."""

    seed: int
    violations: list[str] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        lines = [f"seed {self.seed}", *(f"  {name:<40} {value:>10,}" for name, value in self.figures.items())]
        return "\n".join([*lines, *(f"VIOLATION: {one}" for one in self.violations or ["none"])])


async def run(seed: int, size: Size, folder: Path, say: Callable[[str], None] = lambda _: None) -> Report:
    """Midnight passes in the middle of the load, whatever the hour."""
    report = Report(seed)
    async with running_town(folder, size.gates, 20.0 + 2.5 * size.gates + size.seconds / 2) as town:
        await Run(seed, size, town, report, say).play()
    return report


class Run:
    """One run in a town that is ready."""

    def __init__(self, seed: int, size: Size, town: Town, report: Report, say: Callable[[str], None]) -> None:
        self._random = Random(f"{seed} limits")
        self._faults = Random(f"{seed} faults")
        self._seed = seed
        self._size = size
        self._town = town
        self._report = report
        self._say = say
        self._accounts = Accounts()
        self._shared = 2 * size.limit_max

    async def play(self) -> None:
        limited = await self._set_limits()
        doors = [gate.door() for gate in self._town.gates]
        hammer = Hammer(doors, [one.app for one in limited], self._accounts, self._seed)
        hammering = asyncio.create_task(hammer.run(CALLERS))
        try:
            await self._hurt()
        finally:
            hammer.stopping = True
            await hammering
        self._say("healing")
        for process in (*self._town.workers, *self._town.gates):
            await process.ready()
        await self._come_to_rest()
        for one in limited:
            await self._use_up(one)
        await self._come_to_rest()
        messages, lapsed = await stored(self._town.nc), await lapsed_places(self._town.database)
        self._report.figures["records that came after their lease"] = len(lapsed)
        in_stream = counted(messages, lapsed)
        months = [sum((await self._town.counted(one.app.client_id, "m")).values()) for one in limited]
        if sum(months) > self._shared:
            self._report.violations.append(f"{sum(months)} counted for the account, {self._shared} a month allowed")
        for one in limited:
            await self._compare(one, in_stream[one.app.client_id], shared_is_used_up=sum(months) == self._shared)
        self._report.figures |= {f"answered {status or 'not at all'}": n for status, n in sorted(self._accounts.outcomes.items())}

    async def _set_limits(self) -> list[Limited]:
        """Limits from 1 to the largest, of days, of months, of both; blocked; and one that all share."""
        most = self._size.limit_max
        wanted: list[tuple[int | None, int | None]] = [
            (1, None),
            (7, 10),
            (self._random.randint(20, 60), None),
            (None, self._random.randint(100, 300)),
            (most // 4, most // 3),
            (most, None),
            (0, None),
        ]
        limited = [Limited(await self._town.register(), daily, monthly) for daily, monthly in wanted]
        for one in limited:
            await self._town.limit(one.app, one.daily, one.monthly)
        await self._town.limit_account(self._shared)
        await asyncio.sleep(1.0)  # gates hear of limits from the stream, milliseconds after the answer
        return limited

    async def _hurt(self) -> None:
        """Blows at gates, workers and NATS, with time between them; some outlast a lease."""
        gap_s = self._size.seconds / (self._size.faults + 1)
        paused: list[asyncio.Task[None]] = []
        for number in range(self._size.faults):
            await asyncio.sleep(gap_s)
            kind = self._faults.choice(KINDS)
            self._say(f"fault {number + 1}/{self._size.faults}: {kind}")
            self._report.figures[kind] = self._report.figures.get(kind, 0) + 1
            pause_s = self._faults.choice([0.3, 1.0, 1.5 * LEASE_S, 3 * LEASE_S])
            match kind:
                case "kill gate":
                    self._accounts.died(self._faults.choice(self._town.gates).kill())
                case "pause gate":
                    paused.append(asyncio.create_task(self._faults.choice(self._town.gates).pause(pause_s)))
                case "kill worker":
                    self._faults.choice(self._town.workers).kill()
                case "pause worker":
                    paused.append(asyncio.create_task(self._faults.choice(self._town.workers).pause(pause_s)))
                case _:
                    await asyncio.to_thread(self._town.nats.kill)
                    await asyncio.sleep(self._faults.uniform(0.1, 1.5))
                    await asyncio.to_thread(self._town.nats.start)
        await asyncio.sleep(gap_s)
        await asyncio.gather(*paused, return_exceptions=True)

    async def _come_to_rest(self) -> None:
        """Until every lease is closed: then everything is counted, and nothing is set aside."""

        async def at_rest() -> bool:
            return await self._town.set_aside() == 0

        await until(at_rest, "every lease to be closed", REST_S)

    async def _use_up(self, one: Limited) -> None:
        """Call at all doors in turn until nothing more passes: with large weights first, in the end one by one."""
        connections = [(door, Connection(door)) for door in (gate.door() for gate in self._town.gates)]
        loop = asyncio.get_running_loop()
        refused, deadline, turn, weight = 0, loop.time() + USE_UP_S, 0, 1
        while refused < NEVER * len(connections):
            if loop.time() > deadline:
                self._report.violations.append(f"{one}: still undecided after {USE_UP_S:.0f} s of calls")
                break
            door, connection = connections[turn % len(connections)]
            turn += 1
            answer = await called(connection, door, one.app, weight, self._accounts)
            refused = refused + 1 if answer is not None and self._is_over(answer) else 0
            weight = min(2 * weight, WEIGHT_MAX) if answer is not None and answer.status == 200 else max(1, weight // 2)
        for _, connection in connections:
            connection.close()

    @staticmethod
    def _is_over(answer: Answer) -> bool:
        """Whether the answer says that the limit is used up, to the unit."""
        if answer.status != 429:
            return False
        error = answer.body["error"]
        return bool(error["used"] >= error["limit"])

    async def _compare(self, one: Limited, in_stream: int, *, shared_is_used_up: bool) -> None:
        """Never over; all of it used; and what passed was counted."""
        told = self._accounts.of(one.app.client_id)
        days = await self._town.counted(one.app.client_id, "d")
        months = await self._town.counted(one.app.client_id, "m")
        say = self._report.violations.append
        if one.daily is not None and any(units > one.daily for units in days.values()):
            say(f"{one}: {days} counted, {one.daily} a day allowed")
        if one.monthly is not None and any(units > one.monthly for units in months.values()):
            say(f"{one}: {months} counted, {one.monthly} a month allowed")
        units = sum(days.values())
        if not told.passed <= units <= told.passed + told.unsure:
            say(f"{one}: {units} counted, {told.passed} passed, {told.unsure} unsure")
        if units != in_stream:
            say(f"{one}: {units} counted, {in_stream} acknowledged")
        if units != sum(months.values()):
            say(f"{one}: {days} by day, but {months} by month")
        self._report.figures["units passed"] = self._report.figures.get("units passed", 0) + told.passed
        self._report.figures["units unsure"] = self._report.figures.get("units unsure", 0) + told.unsure
        if not shared_is_used_up:
            self._check_used_up(one, days, months)

    def _check_used_up(self, one: Limited, days: dict[object, int], months: dict[object, int]) -> None:
        """Demand was above the limit to the end: the day that is open, or the month, is used up."""
        last_day = max(days, default=None)  # type: ignore[type-var]
        full_day = one.daily is not None and (one.daily == 0 or (last_day is not None and days[last_day] == one.daily))
        full_month = one.monthly is not None and max(months.values(), default=0) == one.monthly
        if not (full_day or full_month):
            self._report.violations.append(f"{one}: not used up: {days} by day, {months} by month")
