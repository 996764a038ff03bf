"""A simulation that finds nothing proves nothing: each rule is broken on purpose here, and has to be found."""

from __future__ import annotations

import pytest

from tests.simulation.ledger import Broken
from tests.simulation.mutants import MUTANTS
from tests.simulation.scenes import play

SEEDS = 400
"""Within so many seeds of the kind that looks for it; at least one of 50 finds each, most find it in the first ten."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    mutant.make(monkeypatch)
    for seed in range(SEEDS):
        try:
            play(seed, mutant.kind)
        except Broken:
            return
    pytest.fail(f"{SEEDS} runs of kind {mutant.kind!r} did not find it")
