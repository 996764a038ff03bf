"""Repetitions and what comes of them: figures, references, ratios."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

REPETITIONS: Final = 3


class Aim(msgspec.Struct, frozen=True):
    """What was wished for: a ratio of at least `ratio`, a figure of at least `least` or at most `most`."""

    ratio: float | None = None
    least: float | None = None
    most: float | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `runs` and `reference_runs` are the repetitions that figure and reference are the medians of."""

    benchmark: str
    what: str
    unit: str
    figure: float
    reference_name: str = ""
    reference: float | None = None
    aim: Aim | None = None
    runs: tuple[float, ...] = ()
    reference_runs: tuple[float, ...] = ()
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.figure / self.reference if self.reference else None

    def met(self) -> bool | None:
        """Whether the aim was met; None without one."""
        aim = self.aim
        if aim is None:
            return None
        wanted_ratio = aim.ratio is None or (self.ratio is not None and self.ratio >= aim.ratio)
        return wanted_ratio and self.figure >= (aim.least or 0) and (aim.most is None or self.figure <= aim.most)


class Measured(msgspec.Struct, frozen=True):
    """All repetitions of one thing."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.runs)


Measure = Callable[[], Awaitable[float]]


async def interleaved(measures: Mapping[str, Measure], repetitions: int = REPETITIONS) -> dict[str, Measured]:
    """Each of the measures once for warm-up, which does not count, then all in turn, `repetitions` times (A B A B ...)."""
    for name, measure in measures.items():
        said(f"  warm-up  {name}: {await measure():,.0f}")
    runs: dict[str, list[float]] = {name: [] for name in measures}
    for repetition in range(1, repetitions + 1):
        for name, measure in measures.items():
            found = await measure()
            runs[name].append(found)
            said(f"  {repetition} of {repetitions}   {name}: {found:,.0f}")
    return {name: Measured(tuple(found)) for name, found in runs.items()}


def row(
    benchmark: str, what: str, unit: str, ours: Measured, reference: Measured | None = None, reference_name: str = "",
    aim: Aim | None = None, note: str = "",
) -> Row:  # fmt: skip
    """A line from two measured things."""
    return Row(
        benchmark=benchmark,
        what=what,
        unit=unit,
        figure=ours.median,
        reference_name=reference_name,
        reference=None if reference is None else reference.median,
        aim=aim,
        runs=ours.runs,
        reference_runs=() if reference is None else reference.runs,
        note=note,
    )


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the sorted values do not exceed."""
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def said(text: str) -> None:
    """Progress, on stderr: stdout has the table."""
    print(text, file=sys.stderr, flush=True)
