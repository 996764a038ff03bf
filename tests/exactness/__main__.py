"""`python -m tests.exactness [SEED]`: one long run, for `make soak`. Exit code 1 on a violation."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from tests.exactness.run import Size, run

LONG = Size(seconds=180.0, faults=60, limit_max=100_000)


def main() -> int:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else SystemRandom().randrange(1_000_000)
    seconds = float(os.environ.get("EXACTNESS_SECONDS", LONG.seconds))
    size = Size(LONG.gates, seconds, int(seconds / LONG.seconds * LONG.faults), LONG.limit_max)
    print(f"seed {seed}; the same again: .venv/bin/python -m tests.exactness {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="exactness-") as folder:
        report = asyncio.run(run(seed, size, Path(folder), lambda text: print(text, flush=True)))
    print(report.text())
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
