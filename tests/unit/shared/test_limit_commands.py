"""What a limit may be, and how what is wrong with one is told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.commands.base import field_problems
from shared.commands.limits import LIMIT_MAX, ScheduleLimits, SetLimits

WHO = {"command_id": "1", "account": "acme", "actor": "token:1", "client_id": "a" * 20, "service": "csr"}


def wrong(command: type[SetLimits | ScheduleLimits], **fields: Any) -> list[str]:
    with pytest.raises(ValidationError) as error:
        command(**(WHO | fields))
    problems = field_problems(error.value.errors())
    assert all((problem.problem and problem.hint) or "thresholds" in problem.field for problem in problems)
    return [problem.field for problem in problems]


def test_a_daily_limit_above_the_monthly_one_is_told_of_both() -> None:
    assert wrong(SetLimits, daily=5, monthly=4) == ["daily", "monthly"]
    assert SetLimits(**WHO, daily=4, monthly=4).daily == 4
    assert SetLimits(**WHO, daily=5).monthly is None


@pytest.mark.parametrize("amount", [True, "5", 1.5])
def test_amounts_are_whole_json_numbers(amount: Any) -> None:
    assert wrong(SetLimits, daily=amount, monthly=amount, expected_version=amount) == ["daily", "monthly", "expected_version"]


def test_amounts_and_percentages_have_bounds() -> None:
    assert SetLimits(**WHO, daily=0, monthly=LIMIT_MAX, daily_thresholds=[100, 1.0]).daily_thresholds == (1, 100)
    for fields in ({"daily": -1}, {"daily": LIMIT_MAX + 1}, {"daily": 10**400}):
        with pytest.raises(ValidationError):
            SetLimits(**WHO, **fields)
    assert wrong(SetLimits, daily_thresholds=[10, 10]) == ["daily_thresholds"]
    for rungs in ([], [0], [101], list(range(1, 22)), None):
        with pytest.raises(ValidationError):
            SetLimits(**WHO, monthly_thresholds=rungs)


def test_a_percentage_that_is_wrong_is_named_alone_and_no_tuple_is_spoken_of() -> None:
    assert wrong(SetLimits, daily_thresholds=[101]) == ["daily_thresholds[0]"]
    assert wrong(SetLimits, daily_thresholds=[50, 0], monthly_thresholds=[]) == ["daily_thresholds[1]", "monthly_thresholds"]
    with pytest.raises(ValidationError) as error:
        SetLimits(**WHO, daily_thresholds=[], monthly_thresholds=list(range(1, 22)))
    problems = [problem.problem for problem in field_problems(error.value.errors())]
    assert problems == ["There should be at least 1 of these.", "There should be at most 20 of these."]


@pytest.mark.parametrize("at", ["1800000000", "18e8", 1_800_000_000, True, "tomorrow", ""])
def test_an_instant_is_no_number(at: Any) -> None:
    assert wrong(ScheduleLimits, effective_at=at) == ["effective_at"]
