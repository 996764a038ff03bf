"""`make soak` for the simulation: seeds without end, until one fails or the time is over."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.simulation.ledger import Broken
from tests.simulation.scenes import play

REPORT_S = 30.0


def soak(first: int, minutes: float) -> int:
    """Play seeds from `first` on, and print how it goes; how many held. Raises Broken, whose text tells how to replay it."""
    began = told = time.monotonic()
    for count, seed in enumerate(_from(first)):
        now = time.monotonic()
        if now - told >= REPORT_S or now - began >= minutes * 60:
            told = now
            print(f"simulation: {count} seeds held, {count / (now - began) * 60:.0f} a minute", flush=True)
        if now - began >= minutes * 60:
            return count
        play_or_tell(seed)
    raise AssertionError("there is no last seed")


def play_or_tell(seed: int) -> None:
    """Play one seed; when it fails, say how to see it again."""
    try:
        play(seed)
    except Exception as error:
        raise Broken(f"{error}\n{how_to_replay(seed)}") from error


def how_to_replay(seed: int) -> str:
    return (
        f"the same again, step by step: .venv/bin/python -m tests.simulation {seed}\n"
        f"as a test: SIMULATION_SEED={seed} .venv/bin/pytest tests/simulation"
    )


def _from(seed: int) -> Iterator[int]:
    while True:
        yield seed
        seed += 1
