"""The short form of `make chaos`: a seed that is always the same, and one that nobody has seen before."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.chaos.plan import Size
from tests.chaos.run import Run

SIZE = Size(faults=16, records=10_000, commands=60)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [20, None], ids=["seed 20", "random seed"])
async def test_everything_holds_after_faults_in_random_order(seed: int | None, tmp_path: Path) -> None:
    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    print(f"seed {chosen}")
    report = await Run(chosen, SIZE, tmp_path, print).run()
    print(report.text())
    assert not report.violations, report.text()
