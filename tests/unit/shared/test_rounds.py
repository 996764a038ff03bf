"""Rounds: again and again, whatever happens, and always with an answer to how it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from shared.rounds import Rounds


class Steps:
    """Does what it was told for each round, then nothing."""

    def __init__(self, *outcomes: Exception | float | None) -> None:
        self.done = 0
        self._outcomes = list(outcomes)

    async def __call__(self) -> float | None:
        self.done += 1
        outcome = self._outcomes.pop(0) if self._outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @staticmethod
    async def until(done: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not done():  # noqa: ASYNC110 - what is waited for may be any sum of things
                await asyncio.sleep(0.005)


async def test_it_is_not_ready_before_the_first_round_and_ready_after_it() -> None:
    steps = Steps()
    rounds = Rounds("bread", steps, every_s=60)
    assert not rounds.readiness().ready
    task = asyncio.create_task(rounds.run())
    await steps.until(lambda: rounds.readiness().ready)
    task.cancel()
    assert steps.done == 1


async def test_waking_it_spares_the_wait() -> None:
    steps = Steps()
    rounds = Rounds("bread", steps, every_s=60)
    task = asyncio.create_task(rounds.run())
    await steps.until(lambda: rounds.readiness().ready)
    rounds.wake()
    await steps.until(lambda: steps.done == 2)
    task.cancel()


async def test_a_failure_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps(TimeoutError("no flour"), TimeoutError("no flour"), TimeoutError("no flour"))
    rounds = Rounds("bread", steps, every_s=60)
    with caplog.at_level(logging.ERROR, "shared.rounds"):
        task = asyncio.create_task(rounds.run())
        await steps.until(lambda: steps.done == 2)
        assert rounds.readiness().detail == "bread: no flour"
        await steps.until(lambda: steps.done == 4 and rounds.readiness().ready)
        task.cancel()
    assert [(record.message, record.exc_info) for record in caplog.records] == [("bread: no flour", None)]


async def test_our_own_mistake_is_told_with_its_trace_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    steps = Steps(KeyError("salt"))
    rounds = Rounds("bread", steps, every_s=60)
    with caplog.at_level(logging.ERROR, "shared.rounds"):
        task = asyncio.create_task(rounds.run())
        await steps.until(lambda: steps.done == 2)
        task.cancel()
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_a_step_that_goes_on_for_long_can_say_that_all_is_well() -> None:
    async def long() -> None:
        rounds.went_well()
        await asyncio.Event().wait()

    rounds = Rounds("bread", long, every_s=60)
    task = asyncio.create_task(rounds.run())
    await Steps.until(lambda: rounds.readiness().ready)
    task.cancel()
