"""What a run does, all of it from its seed: how much load, which faults, in which order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

TARGETS: Final = ("nats", "postgres", "registry", "metering", "gate", "console", "caddy")
PAUSE_S: Final = (0.2, 4.0)
GAP_S: Final = (0.3, 2.5)


@dataclass(frozen=True)
class Size:
    """How much flows through the stack (`calls` and `singles` are part of `records`), and how often it is hurt meanwhile."""

    faults: int = 100
    records: int = 200_000
    commands: int = 500

    @property
    def calls(self) -> int:
        """Real calls through the proxy."""
        return max(20, self.records // 100)

    @property
    def singles(self) -> int:
        """Single CloudEvents."""
        return max(20, self.records // 100)

    @property
    def batched(self) -> int:
        """Records in batches."""
        return self.records - self.calls - self.singles


@dataclass(frozen=True)
class Fault:
    """One blow. `after_s`: how long after the one before; `pause_s`: how long a paused process stands still, 0 for kill -9."""

    target: str
    kind: Literal["kill", "pause"]
    after_s: float
    pause_s: float = 0.0

    def __str__(self) -> str:
        return f"kill -9 {self.target}" if self.kind == "kill" else f"stop {self.target} for {self.pause_s:.1f} s"


def schedule(seed: int, faults: int) -> list[Fault]:
    """The faults of a run. Pauses may overlap with whatever comes next."""
    random = Random(f"{seed} faults")
    planned = []
    for _ in range(faults):
        target, after_s = random.choice(TARGETS), random.uniform(*GAP_S)
        if random.random() < 0.5:
            planned.append(Fault(target, "kill", after_s))
        else:
            planned.append(Fault(target, "pause", after_s, random.uniform(*PAUSE_S)))
    return planned


class Pace:
    """Spreads the load over the faults: what is to be done flows as far as the faults have come, and all of it in the end."""

    def __init__(self, faults: int) -> None:
        self._step = 1 / (faults + 1)
        self._share = self._step
        self._moved = asyncio.Condition()

    async def turn(self, share: float) -> None:
        """Wait until the part of the load that is at `share` of the whole (0 to 1) may flow."""
        async with self._moved:
            await self._moved.wait_for(lambda: share <= self._share)

    async def move(self) -> None:
        """One more fault was done."""
        async with self._moved:
            self._share = min(1.0, self._share + self._step)
            self._moved.notify_all()

    async def end(self) -> None:
        """No more faults: whatever is left may flow."""
        async with self._moved:
            self._share = 1.0
            self._moved.notify_all()
