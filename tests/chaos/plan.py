"""What a run does, all of it from its seed: how much load, which faults, in which order."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

TARGETS: Final = ("nats", "postgres", "registry", "metering", "gate", "alerts", "review", "console", "caddy", "inbox")
PAUSE_S: Final = (0.2, 4.0)
GAP_S: Final = (0.3, 2.5)
LOOK_S: Final = 0.01


@dataclass(frozen=True)
class Size:
    """How much flows through the stack (`calls` and `singles` are part of `records`), and how often it is hurt meanwhile."""

    faults: int = 100
    records: int = 200_000
    commands: int = 500

    @property
    def stories(self) -> int:
        """Applications for service apps, each with about ten commands besides."""
        return max(2, self.commands // 25)

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
    """Spreads the load evenly over the faults: what is to be done flows as far as they have come, and all of it in the end."""

    def __init__(self, faults: int) -> None:
        self._step = 1 / (faults + 1)
        self._share = 0.0
        self._over_s = GAP_S[1]
        self._began = time.monotonic()

    async def turn(self, share: float) -> None:
        """Wait until the part of the load that is at `share` of the whole (0 to 1) may flow."""
        while share > self._allowed():  # noqa: ASYNC110 - time moves it too
            await asyncio.sleep(LOOK_S)

    def next(self, over_s: float) -> None:
        """The next fault comes in so many seconds: until then its share of the load flows."""
        self._share = min(1.0, self._share + self._step)
        self._over_s, self._began = over_s, time.monotonic()

    def end(self) -> None:
        """No more faults: whatever is left may flow."""
        self._share = 1.0

    def _allowed(self) -> float:
        return self._share + self._step * min(1.0, (time.monotonic() - self._began) / self._over_s)
