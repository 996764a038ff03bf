"""`make chaos`: one run with CHAOS_SEED (default: a new one), CHAOS_FAULTS, CHAOS_RECORDS, CHAOS_COMMANDS."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.plan import Size
from tests.chaos.run import Run


def main() -> int:
    """0 when everything held; 1 otherwise, and the stack's folder and log are kept."""
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
    size = Size(*(int(os.environ.get(f"CHAOS_{name}") or usual) for name, usual in
                  (("FAULTS", Size.faults), ("RECORDS", Size.records), ("COMMANDS", Size.commands))))  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="tollbook-chaos-"))
    print(f"seed {seed}; the same again: CHAOS_SEED={seed} make chaos; in {folder}", flush=True)
    report = asyncio.run(Run(seed, size, folder, lambda line: print(line, flush=True)).run())
    print(report.text(), flush=True)
    if report.violations:
        print(f"kept: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
