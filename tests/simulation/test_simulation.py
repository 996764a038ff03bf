"""What must always hold, holds: for a number of seeds in each `make test`, for as many as there is time in `make soak`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from tests.simulation.ledger import Broken
from tests.simulation.mutants import outstanding_not_counted
from tests.simulation.scenes import KINDS, play
from tests.simulation.soak import play_or_tell

PARTS = 8
SEEDS = 60
"""In each part: so that parts can run beside each other."""
_GIVEN = os.environ.get("SIMULATION_SEED")
_RANGES = [range(first, first + SEEDS) for first in range(0, PARTS * SEEDS, SEEDS)]
PLAYED = [range(int(_GIVEN), int(_GIVEN) + 1)] if _GIVEN else _RANGES

_DIGEST = """
import hashlib
from tests.simulation.scenes import play
trace = []
for seed in range({seeds}):
    play(seed, trace=trace)
print(hashlib.sha256("\\n".join(trace).encode()).hexdigest())
"""


@pytest.mark.parametrize("seeds", PLAYED, ids=lambda seeds: f"from {seeds.start}")
def test_nobody_gets_too_much_and_nothing_is_stranded(seeds: range) -> None:
    for seed in seeds:
        play_or_tell(seed)


def test_a_seed_is_a_run() -> None:
    """The same to the last step, also in another process, whose hashes of strings are others."""
    seeds = 2 * len(KINDS)
    trace: list[str] = []
    for seed in range(seeds):
        play(seed, trace=trace)
    assert len(trace) > 1_000
    here = hashlib.sha256("\n".join(trace).encode()).hexdigest()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-c", _DIGEST.format(seeds=seeds)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == here


def test_a_seed_that_fails_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    outstanding_not_counted(monkeypatch)
    seed = KINDS.index("scarce")
    with pytest.raises(Broken) as found:
        play_or_tell(seed)
    assert f"python -m tests.simulation {seed}\n" in str(found.value)
    assert f"SIMULATION_SEED={seed} .venv/bin/pytest" in str(found.value)
