"""`python -m tests.exactness.shifted SERVICE SECONDS`: a service whose civil clock is that many seconds behind the machine's.

So local midnight can pass in the middle of a test. Interval timers are untouched.
"""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, datetime, timedelta

from shared.clock import SystemClock
from shared.main import main


def run(service: str, seconds: float) -> int:
    behind = timedelta(seconds=seconds)

    def now(_: SystemClock) -> datetime:
        return datetime.now(UTC) - behind

    SystemClock.now = now  # type: ignore[method-assign]
    program = importlib.import_module(f"services.{service}.app").PROGRAM
    sys.argv = [f"services.{service}"]
    return main(program)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], float(sys.argv[2])))
