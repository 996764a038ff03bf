"""The short form of `make chaos`, with a seed that nobody has seen before; it is printed, and replays."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.chaos.plan import Size
from tests.chaos.run import Run

SIZE = Size(faults=20, records=10_000, commands=60)


@pytest.mark.timeout(300)
async def test_everything_holds_after_faults_in_random_order(tmp_path: Path) -> None:
    seed = secrets.randbelow(1_000_000)
    print(f"seed {seed}")
    report = await Run(seed, SIZE, tmp_path, print).run()
    print(report.text())
    assert not report.violations, report.text()
