"""Virtual time, and everything that goes wrong in it: all of it from one seed, so that a seed is a run."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

Step = Callable[[], None]

DRIFT_MAX: Final = 0.09
"""How much faster or slower an interval timer may run than the world's: far more than real ones, so that both margins are
needed."""
SKEW_MAX_S: Final = 2.0
"""How far a civil clock may be off."""
LONG_DELAY_S: Final = 15.0
LOSS: Final = 0.01
REPETITION: Final = 0.01


class World:
    """Steps in the order of their time; ties in the order in which they were planned. `faults`: whether messages get lost now.

    `hazard` is the chance of each step of a process that it dies before it, or pauses. `trace` collects what happened, if anybody
    reads it.
    """

    def __init__(self, seed: int, trace: list[str] | None = None) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.faults = True
        self.down_until = 0.0
        self.hazard = 0.0
        self.trace = trace
        self._planned: list[tuple[float, int, Step]] = []
        self._number = 0

    def after(self, delay: float, step: Step) -> None:
        """Plan a step."""
        self._number += 1
        heappush(self._planned, (self.now + delay, self._number, step))

    def run(self, until: float) -> None:
        """Do every step up to that time."""
        planned = self._planned
        while planned and planned[0][0] <= until:
            self.now, _, step = heappop(planned)
            step()
        self.now = until

    @property
    def planned(self) -> int:
        """How many steps are to come."""
        return len(self._planned)

    def note(self, text: str) -> None:
        """One line of the trace. Ask for `trace` first: making the text takes longer than the step that it is about."""
        if self.trace is not None:
            self.trace.append(f"{self.now:10.4f}  {text}")

    def send(self, step: Step, slow: tuple[float, float] | None = None) -> None:
        """Have a message arrive: soon, late, twice, or never; so they also overtake each other. `slow`: after between so many
        seconds."""
        chance = self.random.random
        if not self.faults:
            self.after(0.0005 + 0.0045 * chance(), step)
            return
        if self.now < self.down_until or chance() < LOSS:
            return
        self.after(self._delay() if slow is None else self.random.uniform(*slow), step)
        if chance() < REPETITION:
            self.after(self._delay(), step)

    def _delay(self) -> float:
        chance = self.random.random
        kind = chance()
        if kind < 0.9:
            return 0.0005 + 0.0095 * chance()
        return 0.01 + 1.5 * chance() if kind < 0.985 else 1.5 + (LONG_DELAY_S - 1.5) * chance()


class Process:
    """Something that crashes (its memory is gone; `started` makes it anew) and pauses (its steps wait, time goes on).

    `for_ever` is how many of its steps plan themselves again.
    """

    for_ever = 1

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = 0
        self.down = False
        self.drift = world.random.choice([-DRIFT_MAX, DRIFT_MAX, world.random.uniform(-DRIFT_MAX, DRIFT_MAX)])
        self.skew_s = world.random.uniform(-SKEW_MAX_S, SKEW_MAX_S)
        self._paused_until = 0.0

    @property
    def away(self) -> bool:
        """Whether it is dead, or pauses."""
        return self.down or self.world.now < self._paused_until

    def interval_s(self) -> float:
        """Its interval timer; another machine's says something else."""
        return 1000.0 + self.world.now * (1.0 + self.drift)

    def own(self, step: Step) -> Step:
        """The step as this life of the process does it: not after a crash, and not during a pause."""
        life, world = self.life, self.world

        def guarded() -> None:
            if self.life != life or self.down:
                return
            if world.now < self._paused_until:
                world.after(self._paused_until - world.now + world.random.uniform(0, 0.001), guarded)
                return
            if world.hazard and world.random.random() < world.hazard:
                self._come_to_harm()
                guarded()
                return
            step()

        return guarded

    def after(self, delay: float, step: Step) -> None:
        self.world.after(delay, self.own(step))

    def every(self, interval: float, step: Step) -> None:
        def again() -> None:
            step()
            self.world.after(interval, guarded)

        guarded = self.own(again)
        self.world.after(self.world.random.uniform(0, interval), guarded)

    def _come_to_harm(self) -> None:
        random = self.world.random
        if random.random() < 0.4:
            self.crash()
        else:
            self.pause(random.choice([random.uniform(0.01, 3.0), random.uniform(8.0, 12.0)]))

    def crash(self) -> None:
        if not self.down:
            self._end("dies")

    def _end(self, how: str) -> None:
        """This life is over; another begins soon."""
        self.world.note(f"{self.name} {how}")
        self.life += 1
        self.down = True
        self._paused_until = 0.0

        def restart() -> None:
            self.down = False
            self.world.note(f"{self.name} starts")
            self.started()

        self.world.after(self.world.random.uniform(0.05, 2.0), restart)

    def pause(self, seconds: float) -> None:
        self.world.note(f"{self.name} pauses for {seconds:.3f} s")
        self._paused_until = self.world.now + seconds

    def started(self) -> None:
        """Begin anew, with an empty memory."""
        raise NotImplementedError
