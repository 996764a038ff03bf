"""`python -m tests.simulation SEED`: one run, step by step. `python -m tests.simulation soak`: SOAK_MINUTES (10) of runs from
SIMULATION_SEED (default: new ones) on. Exits with 1 when an invariant does not hold."""

from __future__ import annotations

import os
import secrets
import sys

from tests.simulation.ledger import Broken
from tests.simulation.scenes import kind_of, play
from tests.simulation.soak import soak


def main(arguments: list[str]) -> int:
    """0 when everything held."""
    try:
        if arguments == ["soak"]:
            first = int(os.environ.get("SIMULATION_SEED") or secrets.randbelow(10**12))
            minutes = float(os.environ.get("SOAK_MINUTES") or 10)
            print(f"simulation: {minutes:g} minutes of seeds from {first} on", flush=True)
            soak(first, minutes)
            return 0
        if len(arguments) == 1 and arguments[0].isdecimal():
            return _replay(int(arguments[0]))
    except Broken as broken:
        print(f"BROKEN: {broken}")
        return 1
    print(__doc__, file=sys.stderr)
    return 2


def _replay(seed: int) -> int:
    trace: list[str] = []
    print(f"seed {seed}: {kind_of(seed)}. Seconds, and what happens:")
    try:
        play(seed, trace=trace)
    finally:
        print("\n".join(trace))
    print("everything held")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
